//! libFuzzer's entry to the target `session_ops`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::session_ops::check(data));

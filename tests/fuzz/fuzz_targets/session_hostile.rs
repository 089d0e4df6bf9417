//! libFuzzer's entry to the target `session_hostile`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::session_hostile::check(data));

//! libFuzzer's entry to the target `jwt`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::jwt::check(data));

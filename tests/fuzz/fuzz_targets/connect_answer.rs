//! libFuzzer's entry to the target `connect_answer`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::connect_answer::check(data));

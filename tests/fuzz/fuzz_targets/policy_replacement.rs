//! libFuzzer's entry to the target `policy_replacement`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::policy_replacement::check(data));

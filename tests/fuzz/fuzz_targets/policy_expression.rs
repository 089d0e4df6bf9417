//! libFuzzer's entry to the target `policy_expression`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::policy_expression::check(data));

//! libFuzzer's entry to the target `policy_document`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::policy_document::check(data));

//! libFuzzer's entry to the target `update_manifest`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::update_manifest::check(data));

//! libFuzzer's entry to the target `addr_url`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::addr_url::check(data));

//! libFuzzer's entry to the target `web_request`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::web_request::check(data));

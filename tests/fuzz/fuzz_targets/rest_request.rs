//! libFuzzer's entry to the target `rest_request`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::rest_request::check(data));

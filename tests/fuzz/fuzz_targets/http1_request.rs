//! libFuzzer's entry to the target `http1_request`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::http1_request::check(data));

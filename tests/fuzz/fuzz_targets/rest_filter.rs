//! libFuzzer's entry to the target `rest_filter`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::rest_filter::check(data));

//! libFuzzer's entry to the target `http_head`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::http_head::check(data));

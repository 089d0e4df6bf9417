//! libFuzzer's entry to the target `http1_response`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::http1_response::check(data));

//! libFuzzer's entry to the target `proxy_header`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::proxy_header::check(data));

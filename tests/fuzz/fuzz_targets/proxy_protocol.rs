//! libFuzzer's entry to the target `proxy_protocol`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::proxy_protocol::check(data));

//! libFuzzer's entry to the target `tls_records`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::tls_records::check(data));

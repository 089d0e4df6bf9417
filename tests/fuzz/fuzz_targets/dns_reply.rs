//! libFuzzer's entry to the target `dns_reply`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::dns_reply::check(data));

//! libFuzzer's entry to the target `edge_head`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::edge_head::check(data));

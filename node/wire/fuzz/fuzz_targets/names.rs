//! Fuzzes names, ids, addresses. What must hold: [`wardlock_fuzz::edge::names`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wardlock_fuzz::edge::names(data));

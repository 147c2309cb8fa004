//! Fuzzes names, ids, addresses. What must hold: [`wardlock_fuzz::edge::names`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: wardlock_fuzz::begin("names", wardlock_fuzz::seeds::names),
    |data: &[u8]| wardlock_fuzz::edge::names(data)
);

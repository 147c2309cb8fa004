//! Fuzzes who a certificate is for. What must hold: [`wardlock_fuzz::edge::certificates`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: wardlock_fuzz::begin("certificates", wardlock_fuzz::seeds::certificates),
    |data: &[u8]| wardlock_fuzz::edge::certificates(data)
);

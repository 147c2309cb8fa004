//! Fuzzes a node's configuration file. What must hold: [`wardlock_fuzz::edge::config`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: wardlock_fuzz::begin("config", wardlock_fuzz::seeds::config),
    |data: &[u8]| wardlock_fuzz::edge::config(data)
);

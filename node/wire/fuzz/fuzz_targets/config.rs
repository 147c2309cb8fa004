//! Fuzzes a node's configuration file. What must hold: [`wardlock_fuzz::edge::config`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wardlock_fuzz::edge::config(data));

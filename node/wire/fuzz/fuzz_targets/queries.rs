//! Fuzzes a question to a shard. What must hold: [`wardlock_fuzz::machine::queries`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wardlock_fuzz::machine::queries(data));

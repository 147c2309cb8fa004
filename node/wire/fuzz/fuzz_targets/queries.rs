//! Fuzzes a question to a shard. What must hold: [`wardlock_fuzz::machine::queries`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: wardlock_fuzz::begin("queries", wardlock_fuzz::seeds::queries),
    |data: &[u8]| wardlock_fuzz::machine::queries(data)
);

//! Fuzzes entries of a shard's log, applied. What must hold: [`wardlock_fuzz::machine::batches`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: wardlock_fuzz::begin("batches", wardlock_fuzz::seeds::batches),
    |data: &[u8]| wardlock_fuzz::machine::batches(data)
);

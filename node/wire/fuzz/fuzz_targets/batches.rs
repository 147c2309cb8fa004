//! Fuzzes entries of a shard's log, applied. What must hold: [`wardlock_fuzz::machine::batches`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wardlock_fuzz::machine::batches(data));

//! Fuzzes a shard's state, restored and used. What must hold: [`wardlock_fuzz::machine::snapshots`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wardlock_fuzz::machine::snapshots(data));

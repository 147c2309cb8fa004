//! Fuzzes changes of the shard map, applied. What must hold: [`wardlock_fuzz::placement::changes`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wardlock_fuzz::placement::changes(data));

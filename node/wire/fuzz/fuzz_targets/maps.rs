//! Fuzzes the shard map, restored and used. What must hold: [`wardlock_fuzz::placement::maps`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wardlock_fuzz::placement::maps(data));

//! Fuzzes the shard map, restored and used. What must hold: [`wardlock_fuzz::placement::maps`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: wardlock_fuzz::begin("maps", wardlock_fuzz::seeds::maps),
    |data: &[u8]| wardlock_fuzz::placement::maps(data)
);

//! Fuzzes changes of the shard map, applied. What must hold: [`wardlock_fuzz::placement::changes`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: wardlock_fuzz::begin("changes", wardlock_fuzz::seeds::changes),
    |data: &[u8]| wardlock_fuzz::placement::changes(data)
);

//! Fuzzes a shard's state, restored and used. What must hold: [`wardlock_fuzz::snapshot::snapshots`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: wardlock_fuzz::begin("machine_snapshots", wardlock_fuzz::seeds::machine_snapshots),
    |data: &[u8]| wardlock_fuzz::snapshot::snapshots(data)
);

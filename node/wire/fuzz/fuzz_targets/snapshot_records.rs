//! Fuzzes what stands beside a snapshot's chunks. What must hold: [`wardlock_fuzz::log::snapshot_records`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: wardlock_fuzz::begin("snapshot_records", wardlock_fuzz::seeds::snapshot_records),
    |data: &[u8]| wardlock_fuzz::log::snapshot_records(data)
);

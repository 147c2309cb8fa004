//! Fuzzes what stands beside a snapshot's chunks. What must hold: [`wardlock_fuzz::log::snapshot_records`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wardlock_fuzz::log::snapshot_records(data));

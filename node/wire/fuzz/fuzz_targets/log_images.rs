//! Fuzzes a log's file with changes, opened and used. What must hold: [`wardlock_fuzz::log::images`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wardlock_fuzz::log::images(data));

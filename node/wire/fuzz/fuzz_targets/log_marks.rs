//! Fuzzes a group's marks. What must hold: [`wardlock_fuzz::log::marks`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wardlock_fuzz::log::marks(data));

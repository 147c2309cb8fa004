//! Fuzzes whole rows that no log would write, in a log that is opened and used. What must hold: [`wardlock_fuzz::log::replay`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wardlock_fuzz::log::replay(data));

//! Fuzzes a group's marks. What must hold: [`wardlock_fuzz::log::marks`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: wardlock_fuzz::begin("log_marks", wardlock_fuzz::seeds::log_marks),
    |data: &[u8]| wardlock_fuzz::log::marks(data)
);

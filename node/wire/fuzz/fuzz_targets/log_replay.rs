//! Fuzzes whole rows that no log would write, in a log that is opened and used. What must hold: [`wardlock_fuzz::log::replay`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: wardlock_fuzz::begin("log_replay", wardlock_fuzz::seeds::log_replay),
    |data: &[u8]| wardlock_fuzz::log::replay(data)
);

//! Fuzzes a row of the log. What must hold: [`wardlock_fuzz::log::rows`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: wardlock_fuzz::begin("log_rows", wardlock_fuzz::seeds::log_rows),
    |data: &[u8]| wardlock_fuzz::log::rows(data)
);

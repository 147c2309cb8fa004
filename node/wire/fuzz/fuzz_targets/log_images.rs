//! Fuzzes a log's file with changes, opened and used. What must hold: [`wardlock_fuzz::log::images`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: wardlock_fuzz::begin("log_images", wardlock_fuzz::seeds::log_images),
    |data: &[u8]| wardlock_fuzz::log::images(data)
);

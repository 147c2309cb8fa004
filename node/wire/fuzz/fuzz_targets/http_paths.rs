//! Fuzzes which call a path means. What must hold: [`wardlock_fuzz::http::paths`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wardlock_fuzz::http::paths(data));

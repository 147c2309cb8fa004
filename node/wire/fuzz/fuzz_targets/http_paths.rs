//! Fuzzes which call a path means. What must hold: [`wardlock_fuzz::http::paths`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: wardlock_fuzz::begin("http_paths", wardlock_fuzz::seeds::http_paths),
    |data: &[u8]| wardlock_fuzz::http::paths(data)
);

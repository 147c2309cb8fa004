//! Fuzzes a whole call of the gateway. What must hold: [`wardlock_fuzz::http::calls`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: wardlock_fuzz::begin("http_calls", wardlock_fuzz::seeds::http_calls),
    |data: &[u8]| wardlock_fuzz::http::calls(data)
);

//! Fuzzes what comes over a connection to the gateway. What must hold: [`wardlock_fuzz::http::streams`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: wardlock_fuzz::begin("http_streams", wardlock_fuzz::seeds::http_streams),
    |data: &[u8]| wardlock_fuzz::http::streams(data)
);

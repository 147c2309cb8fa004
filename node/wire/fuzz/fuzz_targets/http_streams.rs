//! Fuzzes what comes over a connection to the gateway. What must hold: [`wardlock_fuzz::http::streams`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wardlock_fuzz::http::streams(data));

//! Fuzzes a whole call of the gateway. What must hold: [`wardlock_fuzz::http::calls`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wardlock_fuzz::http::calls(data));

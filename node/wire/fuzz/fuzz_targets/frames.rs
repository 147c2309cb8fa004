//! Fuzzes frames in a stream, cut into reads anywhere. What must hold: [`wardlock_fuzz::wire::frames`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wardlock_fuzz::wire::frames(data));

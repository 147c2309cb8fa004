//! Fuzzes frames in a stream, cut into reads anywhere. What must hold: [`wardlock_fuzz::wire::frames`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: wardlock_fuzz::begin("frames", wardlock_fuzz::seeds::frames),
    |data: &[u8]| wardlock_fuzz::wire::frames(data)
);

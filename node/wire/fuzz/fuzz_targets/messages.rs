//! Fuzzes one message, decoded, encoded and decoded. What must hold: [`wardlock_fuzz::wire::messages`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: wardlock_fuzz::begin("messages", wardlock_fuzz::seeds::messages),
    |data: &[u8]| wardlock_fuzz::wire::messages(data)
);

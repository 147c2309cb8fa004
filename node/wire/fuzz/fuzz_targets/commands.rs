//! Fuzzes histories of commands on few sessions and names. What must hold: [`wardlock_fuzz::machine::commands`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: wardlock_fuzz::begin("commands", wardlock_fuzz::seeds::commands),
    |data: &[u8]| wardlock_fuzz::machine::commands(data)
);

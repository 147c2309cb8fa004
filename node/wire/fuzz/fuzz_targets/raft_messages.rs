//! Fuzzes what replicas say to each other. What must hold: [`wardlock_fuzz::wire::raft_messages`].
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: wardlock_fuzz::begin("raft_messages", wardlock_fuzz::seeds::raft_messages),
    |data: &[u8]| wardlock_fuzz::wire::raft_messages(data)
);

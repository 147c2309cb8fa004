//! The consensus library, behind one door: its types, its network, its state machine.

pub mod types;

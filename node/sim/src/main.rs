//! `wardlock-sim`: runs seeds, one or many, and crash campaigns.
fn main() {}

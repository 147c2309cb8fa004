//! `wardlock dev` as its users meet it: over HTTP, from a shell, from one start to the next.
//!
//! One cluster runs at a time; each test starts its own.

mod added;
mod config;
mod given;
mod input;
mod life;
mod services;
#[path = "../support/mod.rs"]
mod support;
mod watch;

use std::time::{Duration, SystemTime};

/// Reads a time as the API writes it.
fn time(text: &serde_json::Value) -> SystemTime {
    let text = text.as_str().unwrap_or_else(|| panic!("{text} is no time"));
    assert!(text.ends_with('Z'), "{text} is not in UTC");
    humantime::parse_rfc3339(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// Whether a time is within a few seconds of what it should be.
fn is_about(time: SystemTime, wanted: SystemTime) -> bool {
    time.max(wanted).duration_since(time.min(wanted)).unwrap() < Duration::from_secs(20)
}

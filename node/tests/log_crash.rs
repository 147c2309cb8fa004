//! The log and the snapshots under crashes, damage and failures of their disks: a slice of what
//! `wardlock-sim crash` does for as long as one likes.

use wardlock_sim::crash::{Campaign, failures, flips, points};

#[test]
fn a_crash_before_any_call_loses_nothing_that_was_acknowledged() {
    let campaign =
        Campaign { images: 12_000, seed: 1, torn: 1, steps: 40, only: None, threads: 2, shows_progress: false };
    let report = points(&campaign).unwrap_or_else(|loss| panic!("{loss}"));
    let missing = report.missing(campaign.images);
    assert!(missing.is_empty(), "too little was looked at: {missing:?}\n{report}");
}

#[test]
fn damage_to_any_kind_of_page_is_noticed_or_changes_nothing() {
    let report = flips(1, 3_000).unwrap_or_else(|loss| panic!("{loss}"));
    let missing = report.missing();
    assert!(missing.is_empty() && report.damaged() > 3_000, "too little was damaged: {missing:?}\n{report}");
}

#[test]
fn nothing_is_acknowledged_after_a_failure_and_all_before_it_is_found() {
    let report = failures(1, 40, 11).unwrap_or_else(|loss| panic!("{loss}"));
    let missing = report.missing();
    assert!(missing.is_empty(), "too little failed: {missing:?}\n{report}");
}

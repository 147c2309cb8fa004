//! How long the clients of each shard were without an answer after each fault: a function of what they saw.
//!
//! A shard's outage after a fault has two measures, and counts as the longer of them:
//! - `first_success_s`: from the fault to the first success of an operation that began after it. It cannot be shorter
//!   than the time to the shard's next operation, so it is no finer than the load is dense.
//! - `longest_gap_s`: the longest time during which somebody waited, or had failed and not succeeded since, and
//!   nobody got an answer. A fault that strikes late (a node that drains first) shows in this one. Time in which nobody
//!   asked is not counted.
//!
//! A fault's time ends where the next begins. A shard that gave no success until then was out for all of it.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

/// One operation. Times are since the beginning of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Where the name it was about belongs.
    pub(crate) shard: u32,
    /// When it began.
    pub(crate) started: Duration,
    /// When it was answered or given up.
    pub(crate) ended: Duration,
    /// Whether there was an answer.
    pub(crate) answered: bool,
}

/// What one fault meant for one shard.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Outage {
    /// The shard.
    pub(crate) shard: u32,
    /// Whether the node that was struck led it.
    pub(crate) led: bool,
    /// The longer of the next two, seconds.
    pub(crate) seconds: f64,
    /// From the fault to the first success of an operation begun after it; `null` where there was none.
    pub(crate) first_success_s: Option<f64>,
    /// The longest time in which somebody waited and nobody got an answer.
    pub(crate) longest_gap_s: f64,
}

/// The outage of each shard that was asked, after a fault at `from` whose time ends at `until`.
pub(crate) fn outages(seen: &[Seen], led: &[u32], from: Duration, until: Duration) -> Vec<Outage> {
    let mut shards: BTreeMap<u32, Vec<&Seen>> = BTreeMap::new();
    for one in seen.iter().filter(|one| one.ended >= from && one.started < until) {
        shards.entry(one.shard).or_default().push(one);
    }
    let outage = |(shard, seen): (u32, Vec<&Seen>)| {
        let after = seen.iter().filter(|one| one.answered && one.started >= from && one.ended <= until);
        let first = after.map(|one| one.ended - from).min();
        let gap = longest_gap(&seen, from, until);
        Outage {
            shard,
            led: led.contains(&shard),
            seconds: first.unwrap_or(until - from).max(gap).as_secs_f64(),
            first_success_s: first.map(|first| first.as_secs_f64()),
            longest_gap_s: gap.as_secs_f64(),
        }
    };
    shards.into_iter().map(outage).collect()
}

/// The longest part of the time in which somebody waited and nobody was answered.
fn longest_gap(seen: &[&Seen], from: Duration, until: Duration) -> Duration {
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    enum What {
        Began,
        Failed,
        Answered,
    }
    let ended = |one: &Seen| if one.answered { What::Answered } else { What::Failed };
    let mut points: Vec<(Duration, What)> =
        seen.iter().flat_map(|one| [(one.started, What::Began), (one.ended, ended(one))]).collect();
    points.sort_unstable();
    let (mut under_way, mut since, mut longest) = (0_u32, None, Duration::ZERO);
    let length = |since: Duration, at: Duration| at.min(until).saturating_sub(since.max(from));
    for (at, what) in points {
        match what {
            What::Began => {
                under_way += 1;
                since.get_or_insert(at);
            }
            // Whoever gave up would have asked again: the wait goes on.
            What::Failed => under_way -= 1,
            What::Answered => {
                under_way -= 1;
                longest = longest.max(since.map_or(Duration::ZERO, |since| length(since, at)));
                since = (under_way > 0).then_some(at);
            }
        }
    }
    longest.max(since.map_or(Duration::ZERO, |since| length(since, until)))
}

/// How many operations there were, and how many of them without an answer or with one only after `late`.
pub(crate) fn failed_or_late(seen: &[Seen], late: Duration) -> (u64, u64) {
    let missed = seen.iter().filter(|one| !one.answered || one.ended.saturating_sub(one.started) > late);
    (seen.len() as u64, missed.count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn seen(shard: u32, started: u64, ended: u64, answered: bool) -> Seen {
        Seen { shard, started: ms(started), ended: ms(ended), answered }
    }

    /// A shard that is asked every 10 ms and answers after 2, but for a time.
    fn steady(shard: u32, out: std::ops::Range<u64>, until: u64) -> Vec<Seen> {
        let one = |at: u64| match out.contains(&(at + 2)) {
            false => seen(shard, at, at + 2, true),
            true => seen(shard, at, out.end, true),
        };
        (0..until / 10).map(|n| one(n * 10)).collect()
    }

    fn seconds(outages: &[Outage]) -> Vec<(u32, bool, f64, f64)> {
        let rounded = |seconds: f64| (seconds * 1_000.0).round() / 1_000.0;
        let one = |one: &Outage| (one.shard, one.led, rounded(one.seconds), rounded(one.longest_gap_s));
        outages.iter().map(one).collect()
    }

    #[test]
    fn only_the_shards_of_the_struck_node_are_out_and_for_as_long_as_they_are() {
        let mut all = steady(1, 1_000..1_800, 5_000);
        all.extend(steady(2, 0..0, 5_000));
        let outages = outages(&all, &[1], ms(1_001), ms(5_000));
        // What began before the fault and was answered at its end counts for the gap alone.
        assert_eq!(seconds(&outages), [(1, true, 0.799, 0.799), (2, false, 0.011, 0.002)]);
    }

    #[test]
    fn a_fault_that_strikes_late_shows_in_the_gap() {
        let outages = outages(&steady(1, 1_500..1_900, 5_000), &[1], ms(1_000), ms(5_000));
        assert_eq!(outages[0].first_success_s, Some(0.002));
        assert_eq!(seconds(&outages), [(1, true, 0.4, 0.4)]);
    }

    #[test]
    fn one_that_hangs_while_others_are_answered_is_no_outage() {
        let mut all = steady(1, 0..0, 5_000);
        all.push(seen(1, 1_000, 4_500, false));
        let outages = outages(&all, &[1], ms(1_000), ms(5_000));
        assert!(outages[0].seconds < 0.012, "{outages:?}");
    }

    #[test]
    fn failures_do_not_end_an_outage_and_silence_does_not_make_one() {
        let failing = [
            seen(1, 0, 5, true),
            seen(1, 1_000, 1_010, false),
            seen(1, 1_500, 1_510, false),
            seen(1, 2_000, 2_010, true),
        ];
        assert_eq!(seconds(&outages(&failing, &[], ms(900), ms(3_000))), [(1, false, 1.11, 1.01)]);
        let idle = [seen(1, 0, 5, true), seen(1, 2_000, 2_010, true)];
        assert_eq!(seconds(&outages(&idle, &[], ms(900), ms(3_000))), [(1, false, 1.11, 0.01)]);
    }

    #[test]
    fn what_does_not_come_back_was_out_for_all_of_the_faults_time() {
        let mut all = steady(1, 1_000..9_000, 5_000);
        let first = outages(&all, &[1], ms(1_000), ms(3_000));
        assert_eq!((first[0].seconds, first[0].first_success_s), (2.0, None));
        all.retain(|one| one.ended < ms(1_000));
        assert_eq!(outages(&all, &[1], ms(1_000), ms(3_000)), [], "a shard that nobody asked");
    }

    #[test]
    fn late_is_as_bad_as_failed() {
        let all = [seen(1, 0, 5, true), seen(1, 0, 1_001, true), seen(1, 0, 1_000, true), seen(1, 0, 3, false)];
        assert_eq!(failed_or_late(&all, ms(1_000)), (4, 2));
    }
}

//! What faults cost: from outages to figures that a promise of availability can be held against.

use std::time::Duration;

use serde::Serialize;

use super::{
    inject::{Injected, Kind},
    outage::{Outage, Seen, failed_or_late, outages},
};

/// What 99.9 % allows in a month of 30 days, seconds.
pub(super) const BUDGET_S: f64 = 30.0 * 86_400.0 * 0.001;

/// One fault and what it meant.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    pub(super) node: u32,
    /// Seconds since the load began.
    pub(super) at_s: f64,
    /// Until every node answered and every replica had caught up again.
    pub(super) well_after_s: f64,
    /// Of the shards that the node led.
    pub(super) outage_s: Spread,
    /// The longest outage of any other shard.
    pub(super) others_max_s: Option<f64>,
    /// Operations until the next fault, and those of them that failed or were late.
    pub(super) operations: u64,
    pub(super) failed_or_late: u64,
    /// Shard by shard.
    pub(super) shards: Vec<Outage>,
    /// How long each operation took that began while its shard, one that the node led, was out; seconds.
    #[serde(skip)]
    pub(super) waits_s: Vec<f64>,
}

/// A few figures of a small set, in seconds; `null` of none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) count: usize,
    pub(crate) median: Option<f64>,
    pub(crate) p90: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) max: Option<f64>,
}

impl Spread {
    pub(crate) fn of(mut all: Vec<f64>) -> Spread {
        all.sort_by(f64::total_cmp);
        // The smallest value that so many of them do not exceed.
        let rank = |share: f64| all.get(((share * all.len() as f64).ceil() as usize).max(1) - 1).copied();
        Spread { count: all.len(), median: rank(0.5), p90: rank(0.9), p99: rank(0.99), max: rank(1.0) }
    }
}

/// What all faults of a kind come to.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Sum {
    /// `kill`, `pause`, `cut`, `restart` or `all`.
    pub(super) kind: &'static str,
    pub(super) faults: usize,
    /// Of all shards that the struck nodes led.
    pub(super) outage_s: Spread,
    /// How long each operation took that began in such an outage, to its answer or its failure: what each client
    /// saw of it.
    pub(super) waits_s: Spread,
    /// How many such faults a month 99.9 % pays for, at the median and at the worst outage of a shard.
    pub(super) allowed_a_month_median: Option<f64>,
    pub(super) allowed_a_month_worst: Option<f64>,
}

/// The whole run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Availability {
    pub(super) operations: u64,
    pub(super) failed_or_late: u64,
    /// The share of operations answered in time, percent.
    pub(super) by_operations_percent: Option<f64>,
    /// The share of all shards' time that was no outage, percent.
    pub(super) by_time_percent: Option<f64>,
}

/// Each fault with its outages; a fault's time ends where the next begins, the last one's with the load.
pub(super) fn faults(injected: &[Injected], seen: &[Seen], late: Duration, end: Duration) -> Vec<Fault> {
    let until = |n: usize| injected.get(n + 1).map_or(end, |next| next.at);
    let fault = |(n, fault): (usize, &Injected)| {
        let shards = outages(seen, &fault.led, fault.at, until(n));
        let of = |led: bool| shards.iter().filter(move |one| one.led == led).map(|one| one.seconds);
        let within = |one: &&Seen| fault.at <= one.started && one.started < until(n);
        let within: Vec<Seen> = seen.iter().filter(within).copied().collect();
        let (operations, missed) = failed_or_late(&within, late);
        Fault {
            kind: fault.kind,
            node: fault.node,
            at_s: fault.at.as_secs_f64(),
            well_after_s: fault.well_after.as_secs_f64(),
            outage_s: Spread::of(of(true).collect()),
            others_max_s: of(false).reduce(f64::max),
            operations,
            failed_or_late: missed,
            waits_s: waits(&shards, &within, fault.at),
            shards,
        }
    };
    injected.iter().enumerate().map(fault).collect()
}

/// How long each operation took that began while one of these shards, which the struck node led, was out.
fn waits(shards: &[Outage], within: &[Seen], at: Duration) -> Vec<f64> {
    let out = |shard: u32| shards.iter().find(|one| one.led && one.shard == shard).and_then(|one| one.first_success_s);
    let began_out = |one: &&Seen| out(one.shard).is_some_and(|out| (one.started - at).as_secs_f64() <= out);
    within.iter().filter(began_out).map(|one| one.ended.saturating_sub(one.started).as_secs_f64()).collect()
}

/// A sum for each kind that occurred and, where there are several, one for all.
pub(super) fn sums(faults: &[Fault]) -> Vec<Sum> {
    let sum = |name: &'static str, of: &dyn Fn(&Fault) -> bool| {
        let of: Vec<&Fault> = faults.iter().filter(|fault| of(fault)).collect();
        let struck = of.iter().flat_map(|fault| fault.shards.iter().filter(|one| one.led).map(|one| one.seconds));
        let outage_s = Spread::of(struck.collect());
        let allowed = |seconds: Option<f64>| seconds.filter(|seconds| *seconds > 0.0).map(|seconds| BUDGET_S / seconds);
        Sum {
            kind: name,
            faults: of.len(),
            outage_s,
            waits_s: Spread::of(of.iter().flat_map(|fault| fault.waits_s.iter().copied()).collect()),
            allowed_a_month_median: allowed(outage_s.median),
            allowed_a_month_worst: allowed(outage_s.max),
        }
    };
    let mut sums: Vec<Sum> = [Kind::Kill, Kind::Pause, Kind::Cut, Kind::Restart]
        .iter()
        .map(|kind| sum(kind.name(), &|fault: &Fault| fault.kind == *kind))
        .filter(|sum| sum.faults > 0)
        .collect();
    if sums.len() > 1 {
        sums.push(sum("all", &|_| true));
    }
    sums
}

/// Of the run as a whole; `shards` is how many there are, `end` how long it took.
pub(super) fn availability(
    faults: &[Fault],
    seen: &[Seen],
    late: Duration,
    shards: u32,
    end: Duration,
) -> Availability {
    let (operations, missed) = failed_or_late(seen, late);
    // What a shard that was not struck waits for is its next operation.
    let out = |one: &Outage| if one.led { one.seconds } else { one.longest_gap_s };
    let out: f64 = faults.iter().flat_map(|fault| fault.shards.iter().map(out)).sum();
    let whole = f64::from(shards) * end.as_secs_f64();
    Availability {
        operations,
        failed_or_late: missed,
        by_operations_percent: (operations > 0).then(|| 100.0 * (1.0 - missed as f64 / operations as f64)),
        by_time_percent: (whole > 0.0).then(|| 100.0 * (1.0 - out / whole)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn injected(kind: Kind, at: u64, led: &[u32]) -> Injected {
        Injected { kind, node: 1, at: ms(at), led: led.to_vec(), well_after: ms(4_000) }
    }

    /// Two shards, asked every 10 ms; what is asked of shard 1 in `out` is answered at its end.
    fn seen(out: std::ops::Range<u64>, until: u64) -> Vec<Seen> {
        let one = |shard: u32, at: u64| {
            let ended = if shard == 1 && out.contains(&(at + 1)) { out.end } else { at + 1 };
            Seen { shard, started: ms(at), ended: ms(ended), answered: true }
        };
        (0..until / 10).flat_map(|n| [one(1, n * 10), one(2, n * 10)]).collect()
    }

    #[test]
    fn a_faults_cost_is_that_of_the_shards_it_struck() {
        let seen = seen(2_000..3_500, 20_000);
        let injected = [injected(Kind::Kill, 2_000, &[1]), injected(Kind::Pause, 12_000, &[2])];
        let faults = faults(&injected, &seen, ms(1_000), ms(20_000));
        assert_eq!(
            faults[0].outage_s,
            Spread { count: 1, median: Some(1.5), p90: Some(1.5), p99: Some(1.5), max: Some(1.5) }
        );
        assert!(faults[0].others_max_s.unwrap() < 0.02, "{:?}", faults[0]);
        // What was asked in the first half second waited for longer than one.
        assert_eq!((faults[0].operations, faults[0].failed_or_late), (2_000, 50));
        assert!(faults[1].outage_s.max.unwrap() < 0.02);

        let sums = sums(&faults);
        let named: Vec<(&str, usize, usize)> =
            sums.iter().map(|sum| (sum.kind, sum.faults, sum.outage_s.count)).collect();
        assert_eq!(named, [("kill", 1, 1), ("pause", 1, 1), ("all", 2, 2)]);
        assert_eq!(sums[0].allowed_a_month_worst, Some(2_592.0 / 1.5));
        // Asked every 10 ms from the fault to the answer.
        assert_eq!((sums[0].waits_s.count, sums[0].waits_s.max), (151, Some(1.5)));

        let whole = availability(&faults, &seen, ms(1_000), 2, ms(20_000));
        assert_eq!(whole.failed_or_late, 50);
        assert_eq!(whole.by_operations_percent, Some(100.0 * (1.0 - 50.0 / 4_000.0)));
        let by_time = whole.by_time_percent.unwrap();
        assert!((96.1..96.3).contains(&by_time), "1.5 s of 40 s: {by_time}");
    }

    #[test]
    fn figures_of_small_sets_are_values_of_theirs() {
        let of = |all: &[f64]| Spread::of(all.to_vec());
        assert_eq!(of(&[]), Spread::default());
        assert_eq!(of(&[3.0, 1.0, 2.0]).median, Some(2.0));
        let ten: Vec<f64> = (1..=10).map(f64::from).collect();
        assert_eq!(of(&ten), Spread { count: 10, median: Some(5.0), p90: Some(9.0), p99: Some(10.0), max: Some(10.0) });
    }

    #[test]
    fn nothing_was_injected_and_nobody_asked() {
        assert!(sums(&[]).is_empty());
        let nothing = availability(&[], &[], ms(1_000), 0, Duration::ZERO);
        assert_eq!((nothing.by_operations_percent, nothing.by_time_percent), (None, None));
    }
}

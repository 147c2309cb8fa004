//! The figures of a report by name, as `--fail-if` and the table of `compare` use them.

use crate::report::{Figures, Latencies, Report};

/// One figure of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metric {
    Throughput,
    /// Of a kind of operation, from the intended start.
    Latency(Kind, Rank),
    ServerCpu,
    ServerMemory,
    Errors,
    Contended,
    TimedOut,
    LostLocks,
    SafetyViolations,
}

/// What a metric is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    PerSecond,
    Milliseconds,
    Microseconds,
    Bytes,
    Count,
}

/// A field of [`Latencies`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    All,
    Read,
    Write,
    Acquire,
    Refused,
    QueueWait,
    Handoff,
    Renew,
    Release,
    KeepAlive,
}

/// A field of [`Figures`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rank {
    Mean,
    P50,
    P90,
    P99,
    P999,
    P9999,
    Max,
}

const KINDS: [(&str, Kind); 10] = [
    ("all", Kind::All),
    ("read", Kind::Read),
    ("write", Kind::Write),
    ("acquire", Kind::Acquire),
    ("refused", Kind::Refused),
    ("queue_wait", Kind::QueueWait),
    ("handoff", Kind::Handoff),
    ("renew", Kind::Renew),
    ("release", Kind::Release),
    ("keep_alive", Kind::KeepAlive),
];

const RANKS: [(&str, Rank); 7] = [
    ("mean", Rank::Mean),
    ("p50", Rank::P50),
    ("p90", Rank::P90),
    ("p99", Rank::P99),
    ("p999", Rank::P999),
    ("p9999", Rank::P9999),
    ("max", Rank::Max),
];

const OTHERS: [(&str, Metric); 8] = [
    ("throughput", Metric::Throughput),
    ("server_cpu_us_per_op", Metric::ServerCpu),
    ("server_memory_bytes", Metric::ServerMemory),
    ("errors", Metric::Errors),
    ("contended", Metric::Contended),
    ("timed_out", Metric::TimedOut),
    ("lost_locks", Metric::LostLocks),
    ("safety_violations", Metric::SafetyViolations),
];

/// What may stand where a metric is expected.
pub(crate) const NAMES: &str = "throughput, mean, p50, p90, p99, p999, p9999, max (of all operations, or of one kind: \
     read.p99; kinds: read, write, acquire, refused, queue_wait, handoff, renew, release, keep_alive), \
     server_cpu_us_per_op, server_memory_bytes, errors, contended, timed_out, lost_locks, safety_violations";

/// The rows of the table; those that neither side has are left out.
pub(crate) const SHOWN: [Metric; 20] = [
    Metric::Throughput,
    Metric::Latency(Kind::All, Rank::P50),
    Metric::Latency(Kind::All, Rank::P99),
    Metric::Latency(Kind::All, Rank::P999),
    Metric::Latency(Kind::All, Rank::Max),
    Metric::Latency(Kind::Read, Rank::P50),
    Metric::Latency(Kind::Read, Rank::P99),
    Metric::Latency(Kind::Write, Rank::P50),
    Metric::Latency(Kind::Write, Rank::P99),
    Metric::Latency(Kind::QueueWait, Rank::P50),
    Metric::Latency(Kind::QueueWait, Rank::P99),
    Metric::Latency(Kind::Handoff, Rank::P50),
    Metric::Latency(Kind::Handoff, Rank::P99),
    Metric::Latency(Kind::KeepAlive, Rank::P99),
    Metric::ServerCpu,
    Metric::ServerMemory,
    Metric::Errors,
    Metric::TimedOut,
    Metric::LostLocks,
    Metric::SafetyViolations,
];

impl Metric {
    /// `throughput`, `p99`, `read.p99` …
    pub(crate) fn named(name: &str) -> Option<Metric> {
        let other = || OTHERS.iter().find(|(known, _)| *known == name).map(|(_, metric)| *metric);
        let rank = |name| RANKS.iter().find(|(known, _)| *known == name).map(|(_, rank)| *rank);
        let kind = |name| KINDS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind);
        match name.split_once('.') {
            Some((of, figure)) => Some(Metric::Latency(kind(of)?, rank(figure)?)),
            None => other().or_else(|| Some(Metric::Latency(Kind::All, rank(name)?))),
        }
    }

    /// The name that [`Metric::named`] reads.
    pub(crate) fn name(self) -> String {
        let rank_name = |rank| RANKS.iter().find(|(_, known)| *known == rank).map_or("", |(name, _)| name);
        match self {
            Metric::Latency(Kind::All, rank) => rank_name(rank).to_owned(),
            Metric::Latency(kind, rank) => {
                let kind = KINDS.iter().find(|(_, known)| *known == kind).map_or("", |(name, _)| name);
                format!("{kind}.{}", rank_name(rank))
            }
            other => OTHERS.iter().find(|(_, known)| *known == other).map_or("", |(name, _)| name).to_owned(),
        }
    }

    pub(crate) fn unit(self) -> Unit {
        match self {
            Metric::Throughput => Unit::PerSecond,
            Metric::Latency(..) => Unit::Milliseconds,
            Metric::ServerCpu => Unit::Microseconds,
            Metric::ServerMemory => Unit::Bytes,
            _ => Unit::Count,
        }
    }

    /// The figure; none where it could not be measured or did not occur.
    pub(crate) fn of(self, report: &Report) -> Option<f64> {
        match self {
            Metric::Throughput => Some(report.throughput_ops_per_s),
            Metric::Latency(kind, rank) => rank.of(kind.of(&report.latency_ms)),
            Metric::ServerCpu => report.server_cpu_us_per_op,
            Metric::ServerMemory => report.server_memory_bytes.map(|bytes| bytes as f64),
            Metric::Errors => Some(report.errors as f64),
            Metric::Contended => Some(report.contended as f64),
            Metric::TimedOut => Some(report.timed_out as f64),
            Metric::LostLocks => Some(report.lost_locks as f64),
            Metric::SafetyViolations => Some(report.safety_violations as f64),
        }
    }
}

impl Kind {
    fn of(self, latencies: &Latencies) -> &Figures {
        match self {
            Kind::All => &latencies.all,
            Kind::Read => &latencies.read,
            Kind::Write => &latencies.write,
            Kind::Acquire => &latencies.acquire,
            Kind::Refused => &latencies.refused,
            Kind::QueueWait => &latencies.queue_wait,
            Kind::Handoff => &latencies.handoff,
            Kind::Renew => &latencies.renew,
            Kind::Release => &latencies.release,
            Kind::KeepAlive => &latencies.keep_alive,
        }
    }
}

impl Rank {
    fn of(self, figures: &Figures) -> Option<f64> {
        match self {
            Rank::Mean => figures.mean,
            Rank::P50 => figures.p50,
            Rank::P90 => figures.p90,
            Rank::P99 => figures.p99,
            Rank::P999 => figures.p999,
            Rank::P9999 => figures.p9999,
            Rank::Max => figures.max,
        }
    }
}

impl Unit {
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Unit::PerSecond => "ops/s",
            Unit::Milliseconds => "ms",
            Unit::Microseconds => "µs",
            Unit::Bytes => "bytes",
            Unit::Count => "",
        }
    }

    /// How many of this unit `suffix` stands for; none where it does not fit.
    pub(crate) fn factor(self, suffix: &str) -> Option<f64> {
        match (self, suffix) {
            (_, "") => Some(1.0),
            (Unit::Milliseconds, "us" | "µs") => Some(1e-3),
            (Unit::Milliseconds, "ms") | (Unit::Microseconds, "us" | "µs") => Some(1.0),
            (Unit::Milliseconds, "s") | (Unit::Microseconds, "ms") => Some(1e3),
            (Unit::PerSecond | Unit::Count, "K" | "k") => Some(1e3),
            (Unit::PerSecond | Unit::Count, "M") => Some(1e6),
            (Unit::Bytes, "KiB") => Some(1024.0),
            (Unit::Bytes, "MiB") => Some(1024.0 * 1024.0),
            (Unit::Bytes, "GiB") => Some(1024.0 * 1024.0 * 1024.0),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_found_by_its_name_and_every_name_is_told() {
        let latencies = KINDS.iter().flat_map(|(_, kind)| RANKS.iter().map(|(_, rank)| Metric::Latency(*kind, *rank)));
        for metric in latencies.chain(OTHERS.iter().map(|(_, metric)| *metric)) {
            assert_eq!(Metric::named(&metric.name()), Some(metric));
        }
        assert_eq!(Metric::named("all.p99"), Metric::named("p99"));
        assert_eq!([Metric::named("p98"), Metric::named("reads.p99"), Metric::named("")], [None; 3]);
        let told =
            |name: &str| NAMES.split(|other: char| !other.is_alphanumeric() && other != '_').any(|word| word == name);
        for name in KINDS
            .iter()
            .map(|(name, _)| *name)
            .chain(RANKS.iter().map(|(name, _)| *name))
            .chain(OTHERS.iter().map(|(name, _)| *name))
        {
            assert!(told(name), "{name} is not in the help");
        }
    }
}

//! From what was recorded to a [`Report`].

use hdrhistogram::Histogram;

use super::{
    Account,
    recorder::{Kind, Kinds, Recorder, quantile_ms},
    shards::Shards,
};
use crate::{
    proc,
    report::{Buckets, Env, Figures, Generator, Latencies, Report, SCHEMA, Shard, Workload},
    run::Options,
    target::Target,
    workload::{Kind as Load, Plan, Schedule},
};

/// Its one thread is busy for so much of the time: it is as good as full.
const FULL: f64 = 0.92;
/// So many wake-ups, of all, may be late.
const LATE: f64 = 0.01;

/// The report of one measurement.
pub(crate) fn report(
    target: &Target,
    options: &Options,
    plan: &Plan,
    shards: &Shards,
    recorder: Recorder,
    account: Account,
) -> Report {
    let about = target.about();
    let latency = Merged::of(&recorder.latency, &recorder.handoff);
    let service = recorder.service.as_ref().map(|kinds| Merged::of(kinds, &recorder.handoff));
    let seconds = plan.duration.as_secs_f64();
    let operations = recorder.answered;
    let per_operation = |cpu: std::time::Duration| {
        let share = operations as f64 * account.seconds / seconds;
        (operations > 0).then(|| cpu.as_secs_f64() * 1e6 / share)
    };
    let cores = |cpu: std::time::Duration| cpu.as_secs_f64() / account.seconds;
    let (violations, examples) = account.violations.clone();
    Report {
        schema: SCHEMA,
        env: Env {
            system: about.system.clone(),
            protocol: about.protocol.clone(),
            target: options.place.target.clone(),
            nodes: about.nodes,
            shards: about.shards,
            ..proc::env()
        },
        workload: workload(plan, about.connections, about.consistency),
        seconds,
        throughput_ops_per_s: operations as f64 / seconds,
        offered_ops_per_s: account.counts.map(|counts| counts.offered as f64 / seconds),
        latency_ms: latency.figures(),
        service_ms: service.as_ref().unwrap_or(&latency).figures(),
        server_cpu_us_per_op: account.server_cpu.and_then(per_operation),
        server_cpu_cores: account.server_cpu.map(cores),
        generator_cpu_us_per_op: per_operation(account.own_cpu),
        server_memory_bytes: account.server_memory,
        generator: generator(&recorder, &account, cores(account.own_cpu)),
        errors: recorder.failures.values().sum(),
        contended: recorder.contended,
        timed_out: recorder.timed_out,
        lost_locks: recorder.lost,
        safety_violations: violations,
        safety_examples: examples,
        histograms: latency.named().map(|(name, histogram)| (name.to_owned(), buckets(histogram))).collect(),
        shards: of_shards(target, shards, &recorder),
        errors_by_kind: recorder.failures,
        series: recorder.series,
    }
}

fn workload(plan: &Plan, connections: u32, consistency: String) -> Workload {
    let schedule = match (plan.rate, plan.schedule) {
        (None, _) => "closed",
        (Some(_), Schedule::Fixed) => "fixed",
        (Some(_), Schedule::Poisson) => "poisson",
    };
    Workload {
        kind: match plan.kind {
            Load::Mix => "mix",
            Load::Locks => "locks",
            Load::Keepalive => "keepalive",
            Load::Handoff => "handoff",
        }
        .to_owned(),
        schedule: schedule.to_owned(),
        rate: plan.rate,
        clients: plan.clients,
        connections,
        sessions: plan.sessions,
        names: plan.names,
        distribution: plan.distribution.to_string(),
        reads: plan.reads,
        shared: plan.shared,
        hold: plan.hold.to_string(),
        wait_s: plan.wait.as_secs_f64(),
        lease_s: plan.lease.map(|lease| lease.as_secs_f64()),
        session_ttl_s: plan.ttl.as_secs_f64(),
        consistency,
    }
}

/// The generator's own account: promise 2 of the bench.
fn generator(recorder: &Recorder, account: &Account, cores: f64) -> Generator {
    let share = account.lateness.map_or(0.0, |late| late.late as f64 / late.wakes.max(1) as f64);
    let limited = if cores >= FULL {
        let busy = cores * 100.0;
        Some(format!("its one thread was busy {busy:.0} % of the time: it could hardly send more"))
    } else if share > LATE {
        let late = share * 100.0;
        Some(format!("{late:.0} % of its wake-ups came more than 5 ms late: it was left too little of the processor"))
    } else {
        None
    };
    Generator {
        late: recorder.late,
        dropped: account.counts.map_or(0, |counts| counts.dropped),
        worst_lag_ms: recorder.worst_lag.as_secs_f64() * 1e3,
        cpu_cores: Some(cores),
        limited,
    }
}

fn of_shards(target: &Target, shards: &Shards, recorder: &Recorder) -> Vec<Shard> {
    let all = shards.all().zip(&recorder.shards);
    let mut all: Vec<Shard> = all
        .map(|((id, sample), histogram)| Shard {
            id,
            leader: target.shard_of(sample).and_then(|(_, leader)| leader),
            ops: histogram.len(),
            p50: quantile_ms(histogram, 0.5),
            p99: quantile_ms(histogram, 0.99),
        })
        .collect();
    all.sort_by_key(|shard| shard.id);
    all
}

/// Histograms by the names of [`Latencies`], those over several kinds among them.
struct Merged<'a> {
    kinds: &'a Kinds,
    handoff: &'a Histogram<u64>,
    write: Histogram<u64>,
    all: Histogram<u64>,
}

impl<'a> Merged<'a> {
    fn of(kinds: &'a Kinds, handoff: &'a Histogram<u64>) -> Merged<'a> {
        let merge = |parts: &[Kind]| {
            let mut whole = Histogram::new_from(handoff);
            for part in parts {
                // All have the same bounds.
                let _ = whole.add(&kinds[*part as usize]);
            }
            whole
        };
        let writes =
            [Kind::Acquire, Kind::Refused, Kind::QueueWait, Kind::TimedOut, Kind::Renew, Kind::Release, Kind::Read];
        Merged { kinds, handoff, write: merge(&writes[..6]), all: merge(&writes) }
    }

    fn named(&self) -> impl Iterator<Item = (&'static str, &Histogram<u64>)> {
        let of = |kind: Kind| &self.kinds[kind as usize];
        [
            ("all", &self.all),
            ("read", of(Kind::Read)),
            ("write", &self.write),
            ("acquire", of(Kind::Acquire)),
            ("refused", of(Kind::Refused)),
            ("queue_wait", of(Kind::QueueWait)),
            ("handoff", self.handoff),
            ("renew", of(Kind::Renew)),
            ("release", of(Kind::Release)),
            ("keep_alive", of(Kind::KeepAlive)),
        ]
        .into_iter()
    }

    fn figures(&self) -> Latencies {
        let of = |kind: Kind| figures(&self.kinds[kind as usize]);
        Latencies {
            all: figures(&self.all),
            read: of(Kind::Read),
            write: figures(&self.write),
            acquire: of(Kind::Acquire),
            refused: of(Kind::Refused),
            queue_wait: of(Kind::QueueWait),
            handoff: figures(self.handoff),
            renew: of(Kind::Renew),
            release: of(Kind::Release),
            keep_alive: of(Kind::KeepAlive),
        }
    }
}

fn figures(histogram: &Histogram<u64>) -> Figures {
    let at = |quantile| quantile_ms(histogram, quantile);
    Figures {
        count: histogram.len(),
        mean: (!histogram.is_empty()).then(|| histogram.mean() / 1e3),
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        p9999: at(0.9999),
        max: at(1.0),
    }
}

fn buckets(histogram: &Histogram<u64>) -> Buckets {
    let recorded = || histogram.iter_recorded();
    Buckets {
        us: recorded().map(|step| step.value_iterated_to()).collect(),
        count: recorded().map(|step| step.count_since_last_iteration()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_histograms_hold_what_their_parts_hold() {
        let mut recorder = Recorder::new(0, false);
        let values = [(Kind::Read, 1_000), (Kind::Acquire, 3_000), (Kind::Release, 5_000), (Kind::KeepAlive, 9_000)];
        for (kind, value) in values {
            recorder.latency[kind as usize].record(value).expect("in range");
        }
        let merged = Merged::of(&recorder.latency, &recorder.handoff);
        let latencies = merged.figures();
        assert_eq!((latencies.all.count, latencies.write.count, latencies.keep_alive.count), (3, 2, 1));
        assert!(latencies.all.max.is_some_and(|max| (max - 5.0).abs() < 0.01), "{latencies:?}");
        assert_eq!(latencies.handoff, Figures::default());
        let all = buckets(&merged.all);
        assert_eq!((all.us.len(), all.count), (3, vec![1, 1, 1]));
    }
}

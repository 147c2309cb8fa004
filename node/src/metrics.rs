//! What the dashboards see. Names and labels are public: see the README's list.
//!
//! Never a label with a lock's, a session's or a client's name: their number has no bound.
//!
//! Handles are made once; an event costs an atomic add.

use std::{sync::OnceLock, time::Duration};

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use wardlock_machine::{Counts, Effects, EndReason, Health, Outcome};
use wardlock_placement::GroupId;

use crate::group::freshness::{Settled, TooStale};

/// Latency buckets, in seconds: from a memory access to a patient client.
const SECONDS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];
/// How often histograms are folded up.
const UPKEEP: Duration = Duration::from_secs(5);
/// Buckets for shares.
const RATIOS: [f64; 11] = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];
/// Buckets for things that are counted.
const COUNTS: [f64; 12] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0, 4096.0, 16384.0];

/// The process's recorder, installed and described by the first call. Where another recorder is there
/// already, this one renders nothing.
pub fn install() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(start).clone()
}

fn start() -> PrometheusHandle {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_entries".to_owned()), &COUNTS))
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_ratio".to_owned()), &RATIOS))
        .expect("the buckets are not empty")
        .build_recorder();
    let handle = recorder.handle();
    if let Err(error) = metrics::set_global_recorder(recorder) {
        tracing::warn!("metrics are not recorded: {error}");
        return handle;
    }
    describe();
    // Histograms keep their samples until somebody folds them up, also where nobody scrapes.
    let upkeep = handle.clone();
    let fold = move || {
        loop {
            std::thread::sleep(UPKEEP);
            upkeep.run_upkeep();
        }
    };
    if let Err(error) = std::thread::Builder::new().name("metrics".to_owned()).spawn(fold) {
        tracing::warn!("metrics are folded up by scrapes only: {error}");
    }
    handle
}

fn describe() {
    describe_gauge!("wardlock_server_has_leader", "1 where this node's replica of the shard knows a leader");
    describe_gauge!("wardlock_shards_without_leader", "Replicas here whose group has no leader");
    describe_counter!("wardlock_leader_changes_total", "Leaderships that began or ended on this node");
    describe_counter!("wardlock_raft_proposals_committed_total", "Log entries proposed here that committed");
    describe_counter!("wardlock_raft_proposals_failed_total", "Log entries proposed here whose outcome was lost");
    describe_gauge!("wardlock_raft_proposals_pending", "Log entries proposed here and not yet applied");
    describe_gauge!("wardlock_raft_apply_lag_entries", "Entries in the log that are not applied");
    describe_counter!("wardlock_raft_proposals_applied_total", "Log entries applied on this node");
    describe_histogram!("wardlock_proposal_commands_entries", "Commands that share one log entry");
    describe_histogram!("wardlock_session_keepalive_margin_ratio", "What was left of a session's TTL when it spoke");
    describe_counter!("wardlock_fence_checks_total", "Fencing tokens looked at, by verdict");
    describe_counter!("wardlock_stale_reads_total", "Reads that any replica answers, by what was known of its age");
    describe_histogram!("wardlock_stale_read_age_seconds", "The age that stale reads were told");
    describe_counter!("wardlock_dns_queries_total", "DNS messages that came, by type and answer");
    describe_histogram!("wardlock_request_duration_seconds", "Time a gateway took to answer, by call and status");
    describe_histogram!("wardlock_log_fsync_duration_seconds", "Time of one commit of the log, its sync included");
    describe_histogram!("wardlock_log_batch_entries", "Log entries that share one commit");
    describe_gauge!("wardlock_log_bytes", "Bytes of the log that no snapshot covers yet");
    describe_gauge!("wardlock_disk_free_bytes", "Free space of the data directory's file system");
    describe_histogram!("wardlock_lock_wait_seconds", "Time from request to grant of queued requests");
    describe_counter!("wardlock_deadlocks_total", "Waits that this node ended because they were part of a deadlock");
    describe_counter!("wardlock_lock_grants_total", "Locks and elections granted by this node");
    describe_counter!("wardlock_lock_lost_total", "Grants that ended otherwise than by release");
    describe_gauge!("wardlock_locks_held", "Grants in the shards that this node leads");
    describe_gauge!(
        "wardlock_configurations",
        "Paths of the configuration that have a value, in the shards that this node leads"
    );
    describe_gauge!(
        "wardlock_configuration_bytes",
        "Bytes of the configuration in the shards that this node leads: current values, and earlier versions"
    );
    describe_gauge!("wardlock_services", "Services that have an instance, in the shards that this node leads");
    describe_gauge!(
        "wardlock_service_instances",
        "Instances of services in the shards that this node leads, by health"
    );
    describe_gauge!("wardlock_watchers", "Watches that are open at this node's gateway");
    describe_histogram!("wardlock_watch_lag_seconds", "From what happened to its being told, by wall clocks");
    describe_counter!("wardlock_watch_resets_total", "Watches that were told of a gap, by reason");
    describe_counter!("wardlock_webhook_deliveries_total", "Attempts to deliver to webhooks' targets, by result");
    describe_histogram!("wardlock_webhook_lag_seconds", "From what happened to its delivery, by wall clocks");
    describe_gauge!("wardlock_webhook_outstanding", "Events that are read for webhooks and not delivered yet");
    describe_gauge!("wardlock_lock_waiters", "Queued requests in the shards that this node leads");
    describe_gauge!("wardlock_sessions", "Open sessions that are at home in the shards that this node leads");
    describe_counter!("wardlock_session_expired_total", "Sessions that ended, by reason");
    describe_gauge!("wardlock_cert_expiry_timestamp_seconds", "When this process's certificate ends, Unix time");
}

/// One replica's counters. Clones count together.
#[derive(Clone)]
pub struct ShardMetrics {
    leader_changes: Counter,
    committed: Counter,
    failed: Counter,
    pending: Gauge,
    commands: Histogram,
    grants: Counter,
    waits: Histogram,
    margins: Histogram,
    fences: [(bool, Counter); 2],
    lost: [(EndReason, Counter); 5],
    ended: [(EndReason, Counter); 2],
}

impl ShardMetrics {
    /// Of the replica of `group`.
    pub fn new(group: GroupId) -> ShardMetrics {
        let lost = [
            EndReason::LeaseExpired,
            EndReason::SessionExpired,
            EndReason::SessionClosed,
            EndReason::Broken,
            EndReason::Unfetched,
        ];
        let ended = [EndReason::SessionExpired, EndReason::SessionClosed];
        ShardMetrics {
            leader_changes: counter!("wardlock_leader_changes_total", "shard" => group.to_string()),
            committed: counter!("wardlock_raft_proposals_committed_total", "shard" => group.to_string()),
            failed: counter!("wardlock_raft_proposals_failed_total", "shard" => group.to_string()),
            pending: gauge!("wardlock_raft_proposals_pending", "shard" => group.to_string()),
            margins: histogram!("wardlock_session_keepalive_margin_ratio"),
            fences: [true, false]
                .map(|held| (held, counter!("wardlock_fence_checks_total", "result" => verdict(held)))),
            commands: histogram!("wardlock_proposal_commands_entries"),
            grants: counter!("wardlock_lock_grants_total"),
            waits: histogram!("wardlock_lock_wait_seconds"),
            lost: lost.map(|why| (why, counter!("wardlock_lock_lost_total", "reason" => why.name()))),
            ended: ended.map(|why| (why, counter!("wardlock_session_expired_total", "reason" => why.name()))),
        }
    }

    /// A leadership began here or ended.
    pub fn leader_changed(&self) {
        self.leader_changes.increment(1);
    }

    /// An entry of so many commands was proposed; so many entries are under way.
    pub fn proposed(&self, commands: usize, pending: usize) {
        self.pending.set(pending as f64);
        self.commands.record(commands as f64);
    }

    /// An entry proposed here has an unknown outcome; so many are still under way.
    pub fn failed(&self, pending: usize) {
        self.pending.set(pending as f64);
        self.failed.increment(1);
    }

    /// A keep-alive came with so much of its session's TTL left.
    pub fn kept_alive(&self, margin: f64) {
        self.margins.record(margin);
    }

    /// These fencing tokens were looked at.
    pub fn fenced(&self, verdicts: &[bool]) {
        for (held, counter) in &self.fences {
            counter.increment(verdicts.iter().filter(|verdict| *verdict == held).count() as u64);
        }
    }

    /// An entry proposed here was applied; so many are still under way.
    pub fn outcomes(&self, outcomes: &[Outcome], pending: usize) {
        self.pending.set(pending as f64);
        self.committed.increment(1);
        let granted = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Granted(_))).count();
        self.grants.increment(granted as u64);
    }

    /// What an apply did besides answering.
    pub fn effects(&self, effects: &Effects) {
        for settled in &effects.settled {
            if let Outcome::Granted(grant) = &settled.outcome {
                self.grants.increment(1);
                self.waits.record(Duration::from_millis(grant.waited.0));
            }
        }
        for (why, counter) in &self.lost {
            counter.increment(effects.lost.iter().filter(|lost| *lost == why).count() as u64);
        }
        for (why, counter) in &self.ended {
            counter.increment(effects.closing.iter().filter(|(_, closing)| closing == why).count() as u64);
        }
    }
}

/// What a node's stale reads come to.
pub struct StaleMetrics {
    known: Counter,
    unknown: Counter,
    too_stale: Counter,
    overloaded: Counter,
    ages: Histogram,
}

impl Default for StaleMetrics {
    fn default() -> StaleMetrics {
        let reads = |result: &'static str| counter!("wardlock_stale_reads_total", "result" => result);
        StaleMetrics {
            known: reads("known"),
            unknown: reads("unknown"),
            too_stale: reads("too-stale"),
            overloaded: reads("overloaded"),
            ages: histogram!("wardlock_stale_read_age_seconds"),
        }
    }
}

impl StaleMetrics {
    /// One was answered, with its age where that is known, or could not be.
    pub fn settled(&self, settled: Settled) {
        match settled {
            Ok(Some(age_ms)) => {
                self.known.increment(1);
                self.ages.record(age_ms as f64 / 1_000.0);
            }
            Ok(None) => self.unknown.increment(1),
            Err(TooStale) => self.too_stale.increment(1),
        }
    }

    /// One found no place to wait.
    pub fn overloaded(&self) {
        self.overloaded.increment(1);
    }
}

fn verdict(held: bool) -> &'static str {
    if held { "held" } else { "stale" }
}

/// One replica's gauges, set every second or so.
pub struct ShardGauges {
    has_leader: Gauge,
    lag: Gauge,
    applied: Counter,
}

impl ShardGauges {
    /// Of the replica of `group`.
    pub fn new(group: GroupId) -> ShardGauges {
        ShardGauges {
            has_leader: gauge!("wardlock_server_has_leader", "shard" => group.to_string()),
            lag: gauge!("wardlock_raft_apply_lag_entries", "shard" => group.to_string()),
            applied: counter!("wardlock_raft_proposals_applied_total", "shard" => group.to_string()),
        }
    }

    /// Sets them. `applied` is the index of the last applied entry.
    pub fn set(&self, has_leader: bool, lag: u64, applied: u64) {
        self.applied.absolute(applied);
        self.has_leader.set(f64::from(u8::from(has_leader)));
        self.lag.set(lag as f64);
    }
}

/// A node's gauges, over the shards that it leads.
pub struct NodeGauges {
    without_leader: Gauge,
    held: [Gauge; 3],
    waiters: Gauge,
    sessions: Gauge,
    configs: Gauge,
    config_bytes: [Gauge; 2],
    services: Gauge,
    instances: [(Health, Gauge); 3],
}

impl Default for NodeGauges {
    fn default() -> NodeGauges {
        let held = |mode: &'static str| gauge!("wardlock_locks_held", "mode" => mode);
        NodeGauges {
            without_leader: gauge!("wardlock_shards_without_leader"),
            held: [held("exclusive"), held("shared"), held("semaphore")],
            waiters: gauge!("wardlock_lock_waiters"),
            sessions: gauge!("wardlock_sessions"),
            configs: gauge!("wardlock_configurations"),
            config_bytes: ["current", "earlier"]
                .map(|which| gauge!("wardlock_configuration_bytes", "versions" => which)),
            services: gauge!("wardlock_services"),
            instances: Health::ALL
                .map(|health| (health, gauge!("wardlock_service_instances", "health" => health.name()))),
        }
    }
}

impl NodeGauges {
    /// Sets them.
    pub fn set(&self, without_leader: u32, totals: &Counts) {
        self.without_leader.set(f64::from(without_leader));
        for (gauge, count) in self.held.iter().zip([totals.exclusive, totals.shared, totals.semaphore]) {
            gauge.set(count as f64);
        }
        self.waiters.set(totals.waiters as f64);
        self.sessions.set(totals.sessions as f64);
        self.configs.set(totals.configs as f64);
        for (gauge, bytes) in self.config_bytes.iter().zip([totals.config_bytes, totals.config_old_bytes]) {
            gauge.set(bytes as f64);
        }
        self.services.set(totals.services as f64);
        for (health, gauge) in &self.instances {
            gauge.set(totals.instances.of(*health) as f64);
        }
    }
}

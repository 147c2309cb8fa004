//! What a run came to: one document for people, programs, plots and comparisons.
//!
//! A [`Report`] is what `run` writes with `--json`, what `compare` and `plan` read, and what the page of plots
//! is made from. Everything in it is data: nothing here measures.
//!
//! # Promises
//! 1. Latencies are in milliseconds; `latency_ms` counts from the moment at which an operation was *meant* to
//!    start, `service_ms` from when it was sent. In a closed loop the two are equal.
//! 2. A field that could not be measured is `null`, never zero.
//! 3. A document of another [`SCHEMA`] is refused with both numbers, not misread.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

/// The version of this document's form.
pub(crate) const SCHEMA: u32 = 2;

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// [`SCHEMA`].
    pub(crate) schema: u32,
    /// Where and when.
    pub(crate) env: Env,
    /// What was asked for.
    pub(crate) workload: Workload,
    /// Seconds of measurement, the warm-up not counted.
    pub(crate) seconds: f64,
    /// Operations answered, per second.
    pub(crate) throughput_ops_per_s: f64,
    /// Operations that were due, per second; `null` in a closed loop.
    pub(crate) offered_ops_per_s: Option<f64>,
    /// From the intended start.
    pub(crate) latency_ms: Latencies,
    /// From the send.
    pub(crate) service_ms: Latencies,
    /// CPU of all server processes, microseconds per operation.
    pub(crate) server_cpu_us_per_op: Option<f64>,
    /// CPU of all server processes, in cores.
    pub(crate) server_cpu_cores: Option<f64>,
    /// CPU of the generator itself, microseconds per operation.
    pub(crate) generator_cpu_us_per_op: Option<f64>,
    /// The largest resident memory of a server process, bytes.
    pub(crate) server_memory_bytes: Option<u64>,
    /// Whether the generator kept up.
    pub(crate) generator: Generator,
    /// Operations without an answer.
    pub(crate) errors: u64,
    /// The same by kind, with the text of the error.
    pub(crate) errors_by_kind: BTreeMap<String, u64>,
    /// Acquires that found the lock held by another.
    pub(crate) contended: u64,
    /// Acquires whose wait in the queue ended without a grant.
    pub(crate) timed_out: u64,
    /// Grants that ended before they were released: their session or lease was lost.
    pub(crate) lost_locks: u64,
    /// Broken promises of mutual exclusion, token order or lease length. A run with any is a failed run.
    pub(crate) safety_violations: u64,
    /// The first few of them, in words.
    pub(crate) safety_examples: Vec<String>,
    /// One element a second.
    pub(crate) series: Vec<Second>,
    /// Whole histograms, by the names of [`Latencies`], for merging and plotting.
    pub(crate) histograms: BTreeMap<String, Buckets>,
    /// Load by shard, where the target tells which shard a name is in.
    pub(crate) shards: Vec<Shard>,
}

impl Report {
    /// As it is written to a file.
    pub(crate) fn json(&self) -> String {
        // Numbers, texts and lists: nothing in it can fail.
        let mut text = serde_json::to_string_pretty(self).expect("a report is plain data");
        text.push('\n');
        text
    }

    /// Reads such a file's text: promise 3.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Report> {
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        let Version { schema } = serde_json::from_str(text).context("this is no report of a run")?;
        ensure!(schema == SCHEMA, "this report has schema {schema}, and this program reads schema {SCHEMA}");
        serde_json::from_str(text).context("this is no report of a run")
    }
}

/// The machine and the cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Env {
    /// RFC 3339, UTC.
    pub(crate) started_at: String,
    /// Version of this program.
    pub(crate) version: String,
    /// The processor's name, the number of cores, kernel, memory.
    pub(crate) cpu: String,
    pub(crate) cores: u32,
    pub(crate) kernel: String,
    pub(crate) memory_bytes: u64,
    /// `wardlock`, `etcd`, `zookeeper`, `redis`.
    pub(crate) system: String,
    /// `quic`, `http` or the peer's own protocol.
    pub(crate) protocol: String,
    /// As given on the command line.
    pub(crate) target: String,
    pub(crate) nodes: u32,
    pub(crate) shards: u32,
}

/// What was asked for: enough to run it again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Workload {
    /// `mix`, `locks`, `keepalive` or `handoff`.
    #[serde(default)]
    pub(crate) kind: String,
    /// `closed`, `fixed` or `poisson`.
    pub(crate) schedule: String,
    /// Intended operations per second; `null` in a closed loop.
    pub(crate) rate: Option<f64>,
    pub(crate) clients: u32,
    pub(crate) connections: u32,
    pub(crate) sessions: u32,
    pub(crate) names: u64,
    /// `uniform` or `zipf`, and its exponent.
    pub(crate) distribution: String,
    /// Percent of operations that read.
    pub(crate) reads: f64,
    /// Percent of acquires in shared mode.
    pub(crate) shared: f64,
    /// How long a lock is held: `next` (until the client's next write), or a mean in milliseconds.
    pub(crate) hold: String,
    /// Seconds in the queue; 0 tries once.
    pub(crate) wait_s: f64,
    /// Seconds of a lock's own lease; `null` where locks live as long as their sessions.
    pub(crate) lease_s: Option<f64>,
    /// Seconds of a session's life.
    pub(crate) session_ttl_s: f64,
    /// `linearizable` or `stale`.
    pub(crate) consistency: String,
}

/// Latencies by what was done. A kind that did not occur has count 0 and `null` figures.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Latencies {
    /// Reads and writes.
    pub(crate) all: Figures,
    /// A lock's state.
    pub(crate) read: Figures,
    /// Acquires, those too that were refused or queued, renewals, releases.
    pub(crate) write: Figures,
    /// An acquire that was granted at once.
    pub(crate) acquire: Figures,
    /// An acquire that found the lock held and did not wait.
    pub(crate) refused: Figures,
    /// An acquire that waited in the queue until it was granted.
    pub(crate) queue_wait: Figures,
    /// From the send of a release to the grant of the next in the queue, as the clients saw both.
    pub(crate) handoff: Figures,
    pub(crate) renew: Figures,
    pub(crate) release: Figures,
    pub(crate) keep_alive: Figures,
}

/// One distribution, in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) count: u64,
    pub(crate) mean: Option<f64>,
    pub(crate) p50: Option<f64>,
    pub(crate) p90: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) p999: Option<f64>,
    pub(crate) p9999: Option<f64>,
    pub(crate) max: Option<f64>,
}

/// The generator's own account.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Generator {
    /// Sends that left more than a millisecond after they were due.
    pub(crate) late: u64,
    /// Operations that were due and never sent: too many were under way.
    pub(crate) dropped: u64,
    /// The worst delay of a send, milliseconds.
    pub(crate) worst_lag_ms: f64,
    /// Its CPU, in cores.
    pub(crate) cpu_cores: Option<f64>,
    /// Why the figures say more about the generator than about the server; `null` where they do not.
    pub(crate) limited: Option<String>,
}

/// One second of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Second {
    /// Seconds since the measurement began.
    pub(crate) at: f64,
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    pub(crate) errors: u64,
    /// Of all operations that ended in this second, milliseconds.
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) max: Option<f64>,
}

/// A histogram: how many values fell up to each bound. Values in microseconds, in rising order, empty
/// buckets left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Buckets {
    /// Upper bounds, microseconds.
    pub(crate) us: Vec<u64>,
    /// Counts of these buckets.
    pub(crate) count: Vec<u64>,
}

/// One shard's share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Shard {
    pub(crate) id: u32,
    /// The node believed to lead it, at the end.
    pub(crate) leader: Option<u32>,
    pub(crate) ops: u64,
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
}

//! What an operation costs, in counts that do not depend on the machine or its load: allocations, messages
//! between nodes, commits of the log, bytes to the disk.
//!
//! A cluster of three on one thread, its clock paused, bears a fixed workload: 200 clients, each with one
//! operation under way, four of five operations reads. The counts are compared with those recorded in
//! `costs.json`; what has become dearer by more than the tolerance fails, and so does what has become so much
//! cheaper that the record is out of date. `WARDLOCK_WRITE_COSTS=1` writes the record anew, to be looked at
//! and committed with the change that explains it.

mod log_support;
mod thread_support;

use std::{collections::BTreeMap, sync::atomic::Ordering};

use futures_util::future::join_all;
use thread_support::{Cluster, PATIENCE, key, open};
use wardlock_machine::{Acquire, Command, Outcome, Query, RequestId, SessionId};
use wardlock_router::Client;

const CLIENTS: u64 = 200;
const SESSIONS: usize = 20;
const NAMES: u64 = 1_000;
const OPERATIONS: u64 = 100;
/// Random are the session ids, the hash key and the order of hash maps.
const TOLERANCE: f64 = 0.10;

/// One client's operations: as many as are asked for, every fifth a write.
async fn work(client: &Client, session: SessionId, number: u64, operations: u64) -> u64 {
    let mut random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut held = None;
    let mut writes = 0;
    for at in 0..operations {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        if !(at + number).is_multiple_of(5) {
            let query = Query::Object { key: key(&format!("n/{}", random % NAMES)) };
            client.read(query, PATIENCE).await.expect("a read");
            continue;
        }
        writes += 1;
        let request = RequestId::Keyed { key: u128::from(random) << 64 | u128::from(number) };
        let command = match held.take() {
            Some((key, lock_id)) => Command::Release { request, key, lock_id },
            None => Command::Acquire(Acquire::new(session, request, key(&format!("n/{}", random % NAMES)))),
        };
        let name = command.key().cloned();
        if let Outcome::Granted(grant) = client.write(command, PATIENCE).await.expect("a write") {
            held = name.map(|key| (key, grant.lock_id));
        }
    }
    writes
}

async fn all(client: &Client, sessions: &[SessionId], operations: u64) -> f64 {
    let clients = (0..CLIENTS).map(|n| work(client, sessions[n as usize % SESSIONS], n + 1, operations));
    join_all(clients).await.into_iter().sum::<u64>() as f64
}

/// Counts of one run, by name.
fn measure() -> BTreeMap<&'static str, f64> {
    let runtime = thread_support::runtime();
    let (cluster, client, sessions) = runtime.block_on(async {
        let cluster = Cluster::start().await;
        let client = cluster.client().await;
        let mut sessions = Vec::new();
        for _ in 0..SESSIONS {
            sessions.push(open(&client, 3_600_000).await);
        }
        // Sessions come to their shards by their first locks there.
        all(&client, &sessions, 40).await;
        (cluster, client, sessions)
    });
    let logs = || {
        cluster.hosts.values().fold((0, 0, 0), |sum, (_, log)| {
            let stats = log.stats();
            (sum.0 + stats.commits, sum.1 + stats.entries, sum.2 + stats.bytes_written)
        })
    };
    let said = || {
        let said = &cluster.said;
        [&said.appends, &said.empty_appends, &said.confirms].map(|count| count.load(Ordering::Relaxed) as f64)
    };
    let (logs_before, said_before) = (logs(), said());
    let mut writes = 0.0;
    let allocated = allocation_counter::measure(|| writes = runtime.block_on(all(&client, &sessions, OPERATIONS)));
    let (logs, said) = (logs(), said());
    let operations = (CLIENTS * OPERATIONS) as f64;
    let reads = operations - writes;
    let [appends, empty_appends, confirms] = std::array::from_fn(|n| said[n] - said_before[n]);
    let commits = (logs.0 - logs_before.0) as f64;
    BTreeMap::from([
        ("allocations per operation, client's and three nodes'", allocated.count_total as f64 / operations),
        ("allocated bytes per operation", allocated.bytes_total as f64 / operations),
        ("appends between nodes per write, with entries or without", (appends + empty_appends) / writes),
        ("barrier questions per read", confirms / reads),
        ("commits of all logs per write", commits / writes),
        ("entries per commit", (logs.1 - logs_before.1) as f64 / commits),
        ("bytes to all disks per write", (logs.2 - logs_before.2) as f64 / writes),
    ])
}

#[test]
fn an_operation_costs_what_is_recorded() {
    let record = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/costs.json");
    let found = measure();
    if std::env::var_os("WARDLOCK_WRITE_COSTS").is_some() {
        let text = serde_json::to_string_pretty(&found).unwrap() + "\n";
        std::fs::write(record, text).unwrap();
        return;
    }
    let recorded: BTreeMap<String, f64> = serde_json::from_str(&std::fs::read_to_string(record).unwrap()).unwrap();
    assert!(recorded.keys().eq(found.keys()), "costs.json records other counts: {:?}", recorded.keys());
    let mut off = Vec::new();
    for (what, now) in found {
        let then = recorded[what];
        println!("{what}: {now:.3} (recorded {then:.3})");
        if (now - then).abs() > TOLERANCE * then {
            off.push(format!("{what}: {now:.3}, recorded {then:.3}"));
        }
    }
    assert!(off.is_empty(), "off by more than {TOLERANCE}: {off:#?}; see the head of this file");
}

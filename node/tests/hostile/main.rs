//! Bad manners at the ports of a live cluster: floods, handshakes that nobody finishes, requests that drip,
//! whatever is too large, and frames that break every rule, from those without a certificate and from those with
//! one. Nobody falls, memory stays under a cap, and others are served as before.
//!
//! # What is compared
//! Two well-behaved clients work all the time, one over QUIC, one over HTTP with a connection for each request.
//! Quiet phases and each kind of attack take turns, up to [`ROUNDS`] times. An attack passes if in one of its
//! phases nothing failed and the clients' 99th percentile was at most three times the quiet one. A percentile below
//! [`ENOUGH`] counts as [`ENOUGH`]: attackers, nodes and clients share the processors of a machine that may be
//! busy with something else, and one slice of its scheduler is more than a quiet exchange takes.

#[path = "../support/mod.rs"]
mod support;

mod attacks;
mod bystanders;
mod frames;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bystanders::Bystanders;
use serde_json::json;
use support::{Dev, alone, runs};
use wardlock_router::Client;

/// How long each phase is.
const PHASE: Duration = Duration::from_millis(2_500);
/// How often an attack is made that others suffered from: the machine's own troubles do not come each time.
const ROUNDS: usize = 4;
/// A percentile that is below this is as good as this.
const ENOUGH: Duration = Duration::from_millis(50);
/// The most that a node or the gateway may ever have had in memory. What they need at rest is some 60 MiB, and
/// their queues are bounded by much less than what is sent to them here.
const RSS_MIB: u64 = 384;

/// The most that a process ever had in memory.
fn peak_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// Everybody is there, nobody has panicked, and nobody took more memory than it may.
fn check(dev: &mut Dev, dir: &Path, what: &str) {
    for (node, (pid, _)) in &dev.nodes {
        assert!(runs(*pid), "{what}: node {node} has ended");
        let log = std::fs::read_to_string(dir.join(format!("node-{node}.log"))).unwrap();
        assert!(!log.contains("panicked"), "{what}: node {node} panicked:\n{log}");
        let peak = peak_mib(*pid);
        assert!(peak <= RSS_MIB, "{what}: node {node} had {peak} MiB in memory");
    }
    assert!(!dev.wait_for("panicked", Duration::from_millis(10)), "{what}: {:?}", dev.said);
    let gateway = dev.child.id();
    assert!(runs(gateway), "{what}: the gateway has ended");
    let peak = peak_mib(gateway);
    assert!(peak <= RSS_MIB, "{what}: the gateway had {peak} MiB in memory");
    let all: Vec<u64> = dev.nodes.values().map(|(pid, _)| peak_mib(*pid)).collect();
    println!("after {what}: the nodes had at most {all:?} MiB, the gateway {peak}");
}

#[test]
fn whatever_comes_in_nobody_falls_and_others_are_served() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(dir.path(), &["--processes", "--shards", "4"]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let certs = dir.path().join("certs");
    let client = runtime.block_on(Client::builder().cluster("dev").certs(&certs).connect(dev.seeds())).unwrap();
    let bystanders = Bystanders::start(&runtime, client.clone(), dev.port);
    bystanders.phase("warming up", PHASE);

    let flood = attacks::Flood::prepare(&runtime, &dev.seeds());
    type Attack<'a> = (&'static str, Box<dyn Fn(&AtomicBool) -> u64 + Sync + 'a>);
    let (port, seeds) = (dev.port, dev.seeds());
    let places = runtime.block_on(frames::places(&dev, &client));
    let contents = frames::contents(&places);
    let all: [Attack<'_>; 3] = [
        ("floods and half-open handshakes", Box::new(|stop| flood.run(stop))),
        ("slow, idle and oversized HTTP", Box::new(|stop| attacks::http(port, stop))),
        ("bad frames", Box::new(|stop| frames::attack(&runtime, &certs, (&places, &contents), stop))),
    ];
    let mut passed = [false; 3];
    for round in 0..ROUNDS {
        if passed == [true; 3] {
            break;
        }
        let quiet = bystanders.phase("quiet", PHASE);
        assert!(quiet.failures.is_empty(), "without any attack: {:?}", quiet.failures);
        for (at, (what, attack)) in all.iter().enumerate() {
            if passed[at] {
                continue;
            }
            let stop = Arc::new(AtomicBool::new(false));
            let (during, made) = std::thread::scope(|scope| {
                let attacking = scope.spawn(|| attack(&stop));
                let during = bystanders.phase(what, PHASE);
                stop.store(true, Ordering::Relaxed);
                (during, attacking.join().unwrap())
            });
            assert!(made >= 20, "{what}: only {made} attacks were made");
            let worse = during.worse_than(&quiet, ENOUGH);
            println!("round {round}, {what}: {made} attacks; {during}, quiet {quiet}");
            passed[at] |= during.failures.is_empty() && worse.is_none();
            assert!(round + 1 < ROUNDS || passed[at], "{what}: {worse:?}, failures: {:?}", during.failures);
            check(&mut dev, dir.path(), what);
        }
    }
    // Who comes anew is let in while handshakes are left hanging.
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let attacking = scope.spawn(|| flood.run(&stop));
        let anew = async {
            let connecting = Client::builder().cluster("dev").certs(&certs).connect(&seeds);
            tokio::time::timeout(Duration::from_secs(10), connecting).await.map(|connected| connected.map(drop))
        };
        let anew = runtime.block_on(anew);
        stop.store(true, Ordering::Relaxed);
        attacking.join().unwrap();
        anew.expect("in time").expect("a new client is let in");
    });
    bystanders.stop();

    // And all works as ever, on every shard.
    let session = dev.open("after", 60.0);
    for n in 0..16 {
        let granted = dev.post(&format!("/locks/after/{n}/acquire"), &json!({"sessionId": session}));
        assert_eq!(granted.status, 200, "{granted:?}");
    }
    check(&mut dev, dir.path(), "all");
    assert!(dev.stop().success());
}

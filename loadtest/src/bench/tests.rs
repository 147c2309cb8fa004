//! The whole engine against a lock service in memory.

use std::sync::Mutex;

use super::*;
use crate::{
    run::tests::options,
    target::fake::{Bug, Fake},
};

/// Measures a fake for 300 ms, as the arguments say. Returns the report, and what was left at the end of the
/// measurement: locks, and then sessions after the close.
async fn measure(fake: Fake, arguments: &str) -> (Report, usize, usize) {
    let arguments: Vec<&str> =
        "--warmup 50ms --duration 300ms --clients 20".split(' ').chain(arguments.split_whitespace()).collect();
    let bench = Bench::over(Target::Fake(fake), &options(&arguments)).await.expect("sessions open");
    let plan = bench.plan();
    let report = bench.measure(plan.rate, plan.clients, plan.reads, plan.duration).await.expect("measured");
    let load = bench.load.clone();
    let Target::Fake(fake) = &load.target else { panic!("it was a fake") };
    let locks = fake.left().0;
    bench.close().await;
    (report, locks, fake.left().1)
}

#[tokio::test]
async fn a_correct_service_is_measured_and_found_correct() {
    for arguments in [
        "--closed-loop --names 30",
        "--rate 5000 --names 30 --schedule poisson",
        "--rate 5000 --names 30 --shared 50 --hold exp:5ms",
        "--rate 2000 --names 10 --hold 20ms --wait 50ms --shared 30",
        "--workload locks --closed-loop --names 1000 --sessions 5",
        "--workload handoff",
    ] {
        let fake = Fake::slow(1);
        let (report, locks, sessions) = measure(fake, arguments).await;
        assert_eq!(report.safety_violations, 0, "{arguments}: {:?}", report.safety_examples);
        assert_eq!((report.errors, report.lost_locks), (0, 0), "{arguments}: {:?}", report.errors_by_kind);
        assert_eq!((locks, sessions), (0, 0), "promise 3: {arguments}");
        let latency = &report.latency_ms;
        assert!(latency.all.count > 50, "{arguments}: {latency:?}");
        assert_eq!(latency.all.count, latency.read.count + latency.write.count, "{arguments}");
        assert_eq!(report.series.len(), 1);
        let sum: u64 = report.shards.iter().map(|shard| shard.ops).sum();
        assert_eq!(sum, latency.all.count, "{arguments}: every operation has its shard");
        if arguments.contains("handoff") {
            assert!(latency.handoff.count > 10 && latency.queue_wait.count > 10, "{latency:?}");
        }
    }
}

#[tokio::test]
async fn every_planted_bug_is_seen() {
    for (bug, arguments) in [
        (Bug::GrantsTwice, "--closed-loop --names 5"),
        (Bug::TokensFall, "--closed-loop --names 5"),
        (Bug::ForgetsLocks, "--closed-loop --names 5"),
        (Bug::StaleReads, "--closed-loop --names 5"),
        (Bug::ForgetsSessions, "--workload keepalive --rate 1000"),
    ] {
        let (report, ..) = measure(Fake::slow(1).with(bug), arguments).await;
        assert!(report.safety_violations > 0, "{bug:?}");
        assert!(!report.safety_examples.is_empty(), "{bug:?}");
    }
}

#[tokio::test]
async fn promise_1_a_stall_counts_for_all_that_were_due_in_it() {
    let start = Instant::now();
    let fake = Fake::slow(1).stalled_until(start + Duration::from_millis(200));
    let (report, ..) = measure(fake, "--clients 1 --rate 200 --warmup 0").await;
    let (latency, service) = (&report.latency_ms.all, &report.service_ms.all);
    // One operation was stalled, and forty were due meanwhile.
    assert!(latency.p50.is_some_and(|p50| p50 > 30.0), "{latency:?}");
    assert!(service.p50 < latency.p50, "{service:?}");
    assert!(report.generator.late > 20, "{:?}", report.generator);
}

#[tokio::test]
async fn what_cannot_be_taken_is_counted_as_dropped() {
    let fake = Fake::slow(50);
    let (report, locks, _) = measure(fake, "--clients 2 --rate 10000").await;
    let offered = report.offered_ops_per_s.expect("an open loop") * report.seconds;
    assert!((2_900.0..3_100.0).contains(&offered), "{offered}");
    assert!(report.generator.dropped as f64 > offered / 2.0, "{:?}", report.generator);
    assert_eq!(locks, 0);
}

#[tokio::test]
async fn leases_are_renewed_while_locks_are_held() {
    let fake = Fake::slow(1);
    let (report, ..) = measure(fake, "--rate 500 --reads 0 --hold 800ms --lease 600ms --duration 900ms").await;
    assert!(report.latency_ms.renew.count > 50, "{:?}", report.latency_ms);
    assert_eq!((report.lost_locks, report.safety_violations), (0, 0), "{:?}", report.safety_examples);
}

#[tokio::test]
async fn an_observer_is_told_of_every_operation() {
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let told = seen.clone();
    let observer: Observer = Arc::new(move |one| told.lock().expect("not poisoned").push(one));
    let fake = Fake::slow(1);
    let options = options(&["--closed-loop", "--clients", "5", "--warmup", "0"]);
    let bench = Bench::over(Target::Fake(fake), &options).await.expect("sessions open");
    let report = bench.measure_observed(None, 5, 80.0, Duration::from_millis(200), Some(observer)).await;
    bench.close().await;
    let seen = seen.lock().expect("not poisoned");
    assert!(seen.len() as u64 >= report.expect("measured").latency_ms.all.count);
    assert!(seen.iter().all(|one| one.ok && (10..14).contains(&one.shard) && one.due < one.done));
}

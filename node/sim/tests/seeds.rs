//! A few seeds of the simulated cluster, in every test run. Many more are a command:
//! `cargo run --release -p wardlock-sim -- --seeds 1000`.

use std::time::Duration;

use wardlock_sim::run::{Settings, run};

const SETTINGS: Settings = Settings { nodes: None, faults_for: Duration::from_secs(20), traced: false };

#[test]
fn clients_of_a_troubled_cluster_are_never_lied_to() {
    let (mut granted, mut faults) = (0, 0);
    for seed in 1..=6 {
        let (record, _) = run(seed, &SETTINGS);
        assert_eq!(record.violations, Vec::<String>::new(), "seed {seed}");
        granted += record.counts.get("granted").copied().unwrap_or_default();
        faults += record.counts.get("faults").copied().unwrap_or_default();
    }
    assert!(granted > 100 && faults > 20, "{granted} grants and {faults} faults prove little");
}

#[test]
fn one_seed_gives_one_run() {
    for seed in 7..=9 {
        let settings = Settings { traced: true, ..SETTINGS };
        let (first, second) = (run(seed, &settings), run(seed, &settings));
        let differs = first.0.trace.iter().zip(&second.0.trace).find(|(a, b)| a != b);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(first, second, "seed {seed}");
    }
}

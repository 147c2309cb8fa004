//! The commands that start clusters, with real processes: what they measure is written, and nothing of them stays.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// One cluster at a time: several starve each other.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The server's program, which cargo builds as an example of this package.
fn server() -> PathBuf {
    let test = std::env::current_exe().expect("this test is a program");
    let built = test.parent().and_then(Path::parent).expect("in target/PROFILE/deps");
    let server = built.join("examples/wardlock-for-tests");
    assert!(server.is_file(), "build it: cargo test -p wardlock-loadtest, or cargo build --examples");
    server
}

/// The command, with its clusters' data and what it writes in `dir`.
fn loadtest(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wardlock-loadtest"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WARDLOCK_")) {
        command.env_remove(name);
    }
    command.args(arguments).arg("--wardlock").arg(server()).arg("--data-dir").arg(dir.join("data"));
    command.arg("--json").arg(dir.join("out.json"));
    command
}

fn written(dir: &Path) -> Option<Value> {
    serde_json::from_str(&fs::read_to_string(dir.join("out.json")).ok()?).ok()
}

fn said(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The processes that were started with this directory on their command line.
fn processes(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir("/proc").expect("procfs").flatten();
    let lines = entries.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
    let data = dir.join("data").display().to_string();
    lines.filter(|line| line.contains(&data) && !line.contains("wardlock-loadtest\0")).collect()
}

/// The logs of a cluster that failed are kept.
fn nothing_stays_but_logs(dir: &Path) {
    let until = Instant::now() + Duration::from_secs(10);
    while !processes(dir).is_empty() {
        assert!(Instant::now() < until, "still there: {:?}", processes(dir));
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn nothing_stays(dir: &Path) {
    nothing_stays_but_logs(dir);
    let left: Vec<_> = fs::read_dir(dir.join("data")).expect("it was made").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_killed_node_is_an_outage_of_what_it_led_and_is_started_again() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let load = ["--shards", "2", "--rate", "100", "--names", "100", "--warmup", "500ms"];
    let mut command = loadtest(dir.path(), &["faults", "--kills", "1", "--every", "4s"]);
    let output = command.args(load).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    nothing_stays(dir.path());

    let outcome = written(dir.path()).expect("JSON");
    assert_eq!((&outcome["asked"], &outcome["injected"]), (&1.into(), &1.into()), "{}", said(&output));
    let fault = &outcome["faults"][0];
    assert_eq!(fault["kind"], "kill");
    let led = fault["outage_s"]["count"].as_u64().expect("a number");
    assert!((1..=2).contains(&led), "{fault}");
    let out = fault["outage_s"]["max"].as_f64().expect("the shards that it led were asked");
    // Not before an election, which takes longer than a heartbeat.
    assert!((0.2..=7.0).contains(&out), "{fault}");
    assert!(fault["well_after_s"].as_f64() > Some(3.0), "it was down for so long: {fault}");
    assert_eq!(outcome["report"]["safety_violations"], 0);
    assert!(String::from_utf8_lossy(&output.stdout).contains("99.9 % allows"), "{}", said(&output));
}

#[test]
fn a_cluster_under_chaos_answers_as_one_lock_would_and_recovers() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let mut command = loadtest(dir.path(), &["chaos", "--faults", "kill,pause,one-way,mute,loss", "--seed", "5"]);
    let load = ["--shards", "4", "--clients", "40", "--rate", "300", "--floor", "20", "--names", "8"];
    let output = command.args(load).args(["--duration", "25s", "--heal", "40s"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    nothing_stays(dir.path());

    let outcome = written(dir.path()).expect("JSON");
    assert_eq!(outcome["failures"], serde_json::json!([]), "{}", said(&output));
    let checked = &outcome["checked"];
    assert_eq!((&checked["violations"], &checked["undecided"]), (&0.into(), &0.into()));
    assert!(checked["operations"].as_u64() > Some(1_000) && checked["histories"].as_u64() > Some(8), "{checked}");
    assert!(outcome["operations"]["grants"].as_u64() > Some(200), "{}", outcome["operations"]);
    assert!(outcome["operations"]["repeated"].as_u64() > Some(0), "{}", outcome["operations"]);
    assert!(outcome["network"]["dropped"].as_u64() > Some(0), "{}", outcome["network"]);
    let (paths, watched) = (&outcome["checked_paths"], &outcome["watched"]);
    assert_eq!((&paths["violations"], &paths["undecided"], &watched["broken"]), (&0.into(), &0.into(), &0.into()));
    assert!(paths["histories"].as_u64() > Some(8) && outcome["operations"]["elected"].as_u64() > Some(5), "{paths}");
    assert!(watched["whole"].as_u64() > Some(40) && watched["resumed"].as_u64() > Some(3), "{watched}");
    let kill = outcome["sums"].as_array().unwrap().iter().find(|sum| sum["kind"] == "all").expect("all");
    assert!(kill["faults"].as_u64() >= Some(4) && kill["outage_s"]["max"].as_f64() > Some(0.2), "{kill}");
    assert!(said(&output).contains("all histories are linearizable"), "{}", said(&output));
}

#[test]
fn a_run_that_shows_too_little_is_a_failed_one() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let load = ["--shards", "1", "--clients", "2", "--rate", "10", "--names", "1", "--floor", "100000"];
    let mut command = loadtest(dir.path(), &["chaos", "--faults", "reorder", "--least", "9", "--duration", "1s"]);
    let output = command.args(load).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let text = said(&output);
    assert!(text.contains("of 9 reorder faults") && text.contains("operations/s while nothing was wrong"), "{text}");
    nothing_stays_but_logs(dir.path());
}

#[test]
fn a_watch_is_told_everything_through_a_failover_and_a_reconnect() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let asked = ["watch-through", "--changes", "1500", "--failovers", "1", "--reconnects", "1", "--paths", "40"];
    let output = loadtest(dir.path(), &asked).args(["--shards", "3"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    nothing_stays(dir.path());
    let outcome = written(dir.path()).expect("JSON");
    assert_eq!((&outcome["told"], &outcome["reconnects"]), (&1_500.into(), &1.into()), "{outcome}");
    assert_eq!(
        (outcome["shards"].as_object().unwrap().len(), &outcome["wellAfterS"]["count"]),
        (3, &1.into()),
        "{outcome}"
    );
}

#[test]
fn much_configuration_comes_back_with_its_history() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let asked = ["config", "--clients", "4", "--paths", "20", "--duration", "500ms", "--shards", "2", "--fill", "40"];
    let output = loadtest(dir.path(), &asked).args(["--versions", "3"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    nothing_stays(dir.path());
    let outcome = written(dir.path()).expect("JSON");
    assert!(outcome["reads"]["per_second"].as_f64() > Some(0.0) && outcome["writes"]["failed"] == 0, "{outcome}");
    let filled = &outcome["filled"];
    assert_eq!((&filled["kept_versions_least"], filled["nodes"].as_array().unwrap().len()), (&3.into(), 3), "{filled}");
    assert!(filled["restart"]["well_after_s"].as_f64() > Some(0.0), "{filled}");
}

#[test]
fn the_next_candidate_takes_over_from_who_is_killed_or_resigns() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let asked =
        ["elections", "--elections", "6", "--clients", "3", "--candidates", "2", "--shards", "2", "--ttl", "4s"];
    let output = loadtest(dir.path(), &asked).output().unwrap();
    let outcome = written(dir.path()).unwrap_or_else(|| panic!("{}", said(&output)));
    nothing_stays(dir.path());
    assert!(outcome["afterKillS"]["count"].as_u64() >= Some(3), "{outcome}");
    assert!(outcome["afterResignationS"]["count"].as_u64() >= Some(6), "{outcome}");
    // How soon is a matter of the machine.
    let failures = outcome["failures"].as_array().expect("a list");
    assert!(
        failures.iter().all(|failure| failure.as_str().is_some_and(|why| why.contains("which is more"))),
        "{outcome}"
    );
}

#[test]
fn an_interrupted_sweep_is_resumed_where_it_was_and_leaves_no_process() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let sweep = ["sweep", "--shards", "1,2", "--clients", "4", "--reads", "50", "--warmup", "0"];
    let cells = |dir: &Path| written(dir).and_then(|sweep| Some(sweep["cells"].as_array()?.len())).unwrap_or(0);

    // It would take a minute.
    let mut command = loadtest(dir.path(), &sweep);
    command.args(["--duration", "1s", "--repeat", "30"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while processes(dir.path()).len() < 4 {
        assert!(Instant::now() < until, "no cluster was started");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(500));
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("terminated"), "{}", said(&output));
    nothing_stays(dir.path());

    let short = ["--duration", "300ms"];
    let whole = loadtest(dir.path(), &["sweep", "--shards", "1", "--clients", "4", "--reads", "50", "--warmup", "0"])
        .args(short)
        .output()
        .unwrap();
    assert!(whole.status.success(), "{}", said(&whole));
    assert_eq!(cells(dir.path()), 1);
    let again = loadtest(dir.path(), &sweep).args(short).output().unwrap();
    assert!(!again.status.success() && said(&again).contains("--resume"), "{}", said(&again));
    let resumed = loadtest(dir.path(), &sweep).args(short).arg("--resume").output().unwrap();
    assert!(resumed.status.success(), "{}", said(&resumed));
    assert_eq!(cells(dir.path()), 2);
    let sweep = written(dir.path()).expect("JSON");
    assert_eq!((&sweep["cells"][1]["shards"], &sweep["cells"][1]["report"]["env"]["shards"]), (&2.into(), &2.into()));
    assert!(sweep["cells"][1]["report"]["throughput_ops_per_s"].as_f64() > Some(0.0));
    nothing_stays(dir.path());
}

#[test]
fn a_ramp_ends_at_its_highest_rate_and_soaks() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let mut command = loadtest(dir.path(), &["ramp", "--cluster", "--shards", "1", "--clients", "50"]);
    // So few that a busy machine answers them.
    command.args(["--slo", "p50<10s,errors<50%", "--rate", "5", "--most", "10"]);
    let output = command.args(["--step", "1s", "--settle", "100ms", "--soak", "1s"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    nothing_stays(dir.path());
    let ramp = written(dir.path()).expect("JSON");
    assert_eq!((&ramp["found_ops_per_s"], &ramp["limit"]), (&10.0.into(), &"most".into()), "{}", said(&output));
    assert_eq!(ramp["soak"]["rate_ops_per_s"], 7.0);
    assert!(ramp["soak"]["report"]["throughput_ops_per_s"].as_f64() > Some(0.0));
}

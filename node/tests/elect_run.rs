//! `wardlock elect run` against a real cluster: the office passes to a higher priority by handover, and the command has
//! ended before the office is lost.

mod support;

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use support::{Dev, Signal, alone, runs, send, wait_until, wardlock};

/// `wardlock elect …` for this cluster.
fn elect(dev: &Dev, arguments: &[&str]) -> Command {
    let mut command = wardlock();
    command.env("WARDLOCK_SERVER", dev.server()).arg("elect").args(arguments).stdin(Stdio::null());
    command
}

/// A candidate, and the file in which its command leaves its process id whenever it starts.
struct Candidate {
    child: Child,
    file: PathBuf,
}

impl Candidate {
    fn stands(dev: &Dev, dir: &Path, name: &str, options: &[&str], script: &str) -> Candidate {
        let file = dir.join(format!("{name}.pid"));
        let script = format!("echo $$ > {0}.new; mv {0}.new {0}; {script}", file.display());
        let command = ["chief", "--", "sh", "-c", &script];
        let arguments = [&["run", "--candidate", name][..], options, &command].concat();
        let mut command = elect(dev, &arguments);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Candidate { child, file }
    }

    /// Waits until its command has started anew.
    fn leads(&self) -> u32 {
        wait_until("the command runs", Duration::from_secs(60), || self.file.exists());
        let process = std::fs::read_to_string(&self.file).unwrap().trim().parse().unwrap();
        std::fs::remove_file(&self.file).unwrap();
        process
    }

    fn ends(mut self, patience: Duration) -> Option<i32> {
        wait_until("elect run ends", patience, || self.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap().code()
    }
}

const ON_AND_ON: &str = "while :; do sleep 0.05; done";

#[test]
fn the_office_passes_to_a_higher_priority_by_handover_and_back_again() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(&dir.path().join("data"), &["--shards", "4"]);
    let leader = || dev.get("/leader/chief");
    let run = |arguments: &[&str]| {
        let output = elect(&dev, arguments).output().unwrap();
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    };

    // What the command finds is enough to proclaim; its end is passed on, and the office given back.
    let script = format!(
        r#"[ "$WARDLOCK_NAME" = chief ] && [ -n "$WARDLOCK_TOKEN$WARDLOCK_EXPIRES_AT" ] || exit 8
        "{0}" elect proclaim chief --session "$WARDLOCK_SESSION" 'up and ready' && exec "{0}" elect leader chief -o json"#,
        wardlock().get_program().to_str().unwrap()
    );
    let (code, said) = run(&["run", "chief", "--candidate", "first", "--", "sh", "-c", &script]);
    assert!(code == Some(0) && said.contains(r#""leaderId":"up and ready""#), "{code:?} {said}");
    assert_eq!(run(&["run", "chief", "--", "sh", "-c", "exit 7"]).0, Some(7));
    assert_eq!(leader().status, 404);

    // One leads; an equal waits behind it, a higher one is made room for, and leads next.
    let common = Candidate::stands(&dev, dir.path(), "common", &["--again"], ON_AND_ON);
    let process = common.leads();
    let token = leader().number("fencingToken");
    assert_eq!(run(&["run", "-n", "chief", "--", "true"]).0, Some(75));
    let equal = Candidate::stands(&dev, dir.path(), "equal", &[], ON_AND_ON);
    dev.until("/leader/chief", Duration::from_secs(20), |shown| shown.number("candidateCount") == 1);
    let began = Instant::now();
    let preferred = Candidate::stands(&dev, dir.path(), "preferred", &["--priority", "5"], ON_AND_ON);
    let own = preferred.leads();
    println!("the handover took {:?}, with the start of two processes", began.elapsed());
    assert!(!runs(process), "the command of who made room has ended before");
    assert_eq!(leader().text("leaderId"), "preferred");
    assert!(leader().number("fencingToken") > token, "each term of office has a number of its own");
    // The one that made room stands again, behind its equal.
    let shown = dev.until("/leader/chief", Duration::from_secs(20), |shown| shown.number("candidateCount") == 2);
    let waiting: Vec<_> =
        shown.json()["candidates"].as_array().unwrap().iter().map(|c| c["candidateId"].clone()).collect();
    assert_eq!(waiting, ["equal", "common"]);

    // By its lock id anybody may proclaim for the leader.
    let lock_id = leader().text("lockId");
    assert_eq!(run(&["proclaim", "chief", "--lock-id", &lock_id, "half done"]).0, Some(0));
    assert_eq!(leader().text("leaderId"), "half done");

    // A signal is for the command; the office goes on to those who wait, in their order.
    send(preferred.child.id(), Signal::TERM);
    assert_eq!(preferred.ends(Duration::from_secs(20)), Some(128 + 15));
    assert!(!runs(own));
    let (code, said) = run(&["proclaim", "chief", "--lock-id", &lock_id, "done"]);
    assert_eq!(code, Some(76), "{said}");
    equal.leads();
    send(equal.child.id(), Signal::TERM);
    assert_eq!(equal.ends(Duration::from_secs(20)), Some(128 + 15));
    common.leads();

    // Without a handover the higher one waits.
    send(common.child.id(), Signal::TERM);
    assert_eq!(common.ends(Duration::from_secs(20)), Some(128 + 15), "it was told to, so it does not stand again");
    let stays = Candidate::stands(&dev, dir.path(), "stays", &["--no-handoff"], "sleep 4; exit 3");
    stays.leads();
    let waits = Candidate::stands(&dev, dir.path(), "waits", &["--priority", "5"], "exit 4");
    assert_eq!(stays.ends(Duration::from_secs(30)), Some(3));
    assert_eq!(waits.ends(Duration::from_secs(30)), Some(4));

    // A command that does not make room in its time is killed.
    let deaf = Candidate::stands(&dev, dir.path(), "deaf", &["--grace", "1"], &format!("trap '' TERM; {ON_AND_ON}"));
    let process = deaf.leads();
    let next = Candidate::stands(&dev, dir.path(), "next", &["--priority", "5"], "exit 6");
    assert_eq!(deaf.ends(Duration::from_secs(30)), Some(128 + 9));
    assert!(!runs(process));
    assert_eq!(next.ends(Duration::from_secs(30)), Some(6));

    // An operator takes the office away: who would lead again does so.
    let again = Candidate::stands(&dev, dir.path(), "again", &["--again"], ON_AND_ON);
    let process = again.leads();
    let once = Candidate::stands(&dev, dir.path(), "once", &[], ON_AND_ON);
    dev.until("/leader/chief", Duration::from_secs(20), |shown| shown.number("candidateCount") == 1);
    let gone = leader().text("lockId");
    assert_eq!(run(&["resign", "chief", &gone]).0, Some(0));
    once.leads();
    wait_until("the command ends", Duration::from_secs(20), || !runs(process));
    dev.until("/leader/chief", Duration::from_secs(20), |shown| shown.number("candidateCount") == 1);
    assert_eq!(run(&["resign", "chief", &leader().text("lockId")]).0, Some(0));
    assert_eq!(once.ends(Duration::from_secs(30)), Some(76));
    again.leads();
    // Not INT: a shell that starts this in the background has it ignored.
    send(again.child.id(), Signal::TERM);
    assert_eq!(again.ends(Duration::from_secs(20)), Some(128 + 15));
    assert!(dev.stop().success());
}

#[test]
fn when_the_cluster_falls_silent_the_command_ends_before_the_office_is_lost() {
    const TTL: Duration = Duration::from_secs(8);
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(&dir.path().join("data"), &["--shards", "2", "--processes"]);
    let stubborn = format!("trap '' TERM; {ON_AND_ON}");
    let leader = Candidate::stands(&dev, dir.path(), "leader", &["--ttl", "8"], &stubborn);
    let process = leader.leads();
    // Beyond the first keep-alives.
    std::thread::sleep(TTL / 2);
    assert!(runs(process));
    dev.freeze();
    let began = Instant::now();
    wait_until("the command ends", TTL, || !runs(process));
    println!("the command had ended {:?} after the silence began; the TTL is {TTL:?}", began.elapsed());
    assert_eq!(leader.ends(Duration::from_secs(30)), Some(76));
}

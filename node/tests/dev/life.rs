//! From start to end and to the next start: what is printed works, what was granted stays granted, and
//! nothing is taken that belongs to another.

use std::{
    net::{TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{Dev, Signal, alone, free_port, runs, wait_until, wardlock};

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn shell(lines: &[&str]) -> Output {
    Command::new("sh").arg("-c").arg(lines.join("\n")).output().unwrap()
}

/// Where a cluster without `--data-dir` said that its data is.
fn temporary(dev: &Dev) -> PathBuf {
    let place = dev.said.iter().find_map(|line| line.strip_prefix("data in ")?.strip_suffix(", removed at the end"));
    PathBuf::from(place.unwrap_or_else(|| panic!("{:?}", dev.said)))
}

#[test]
fn the_greeting_works_as_it_stands_and_ctrl_c_leaves_nothing() {
    let _alone = alone();
    let dev = Dev::anywhere(&["--shards", "2"]);
    let data = temporary(&dev);
    assert!(data.is_dir());
    let said: Vec<&str> = dev.said.iter().map(String::as_str).collect();
    let curls: Vec<&str> = said.iter().copied().filter(|line| line.contains("curl ")).collect();
    assert_eq!(curls.len(), 3, "{said:#?}");
    let pasted = shell(&curls);
    let documents: Vec<Value> = serde_json::Deserializer::from_slice(&pasted.stdout)
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap_or_else(|e| panic!("{e}: {}", text(&pasted)));
    let [granted, shown] = &documents[..] else { panic!("{}", text(&pasted)) };
    assert_eq!(granted["success"], json!(true), "{granted}");
    assert_eq!(shown["lockId"], granted["lockId"], "{shown}");
    assert_eq!(shown["holder"], json!("me"), "{shown}");
    let commands: Vec<&str> =
        said.iter().copied().filter(|line| line.starts_with("export ") || line.contains(" lock run demo ")).collect();
    let pasted = shell(&commands);
    assert!(text(&pasted).starts_with("token ") && pasted.status.success(), "{commands:?}: {}", text(&pasted));

    assert!(dev.stop_by(Signal::INT).success());
    assert!(!data.exists(), "{} is still there", data.display());
}

#[test]
fn term_drains_processes_and_leaves_nothing() {
    let _alone = alone();
    let dev = Dev::anywhere(&["--shards", "2", "--processes"]);
    let data = temporary(&dev);
    let pids: Vec<u32> = dev.nodes.values().map(|(pid, _)| *pid).collect();
    assert_eq!(pids.len(), 3);
    assert!(pids.iter().all(|pid| runs(*pid)));
    assert!(dev.stop_by(Signal::TERM).success());
    assert!(!data.exists(), "{} is still there", data.display());
    assert!(!pids.iter().any(|pid| runs(*pid)), "a node outlived an orderly end");
}

#[test]
fn nodes_end_when_dev_is_killed() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path(), &["--shards", "2", "--processes"]);
    let pids: Vec<u32> = dev.nodes.values().map(|(pid, _)| *pid).collect();
    assert!(!dev.stop_by(Signal::KILL).success());
    wait_until("the nodes end", Duration::from_secs(30), || !pids.iter().any(|pid| runs(*pid)));
}

#[test]
fn what_was_granted_stays_granted_over_a_restart() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path(), &["--shards", "4"]);
    let port = dev.port;
    let (mine, other) = (dev.open("mine", 86_400.0), dev.open("other", 86_400.0));
    let held = dev.acquire("held", &mine);
    let leased = dev.post("/locks/leased/acquire", &json!({"timeout": 86_400, "sessionId": mine}));
    let led = dev.post("/leader/election/led", &json!({"candidateId": "c", "sessionId": mine}));
    let released = dev.acquire("released", &mine);
    assert_eq!(dev.release("released", &released.text("lockId")).status, 200);

    // A second cluster on the same directory would be the end of both.
    let files = |dir: &Path| -> Vec<String> {
        (1..=3).map(|node| std::fs::read_to_string(dir.join(format!("node-{node}.toml"))).unwrap()).collect()
    };
    let before = files(dir.path());
    let directory = dir.path().to_str().unwrap();
    for more in [&[][..], &["--processes"]] {
        let arguments = [&["--data-dir", directory, "--shards", "4"], more].concat();
        let Err((status, said)) = Dev::at(free_port(), &arguments) else { panic!("two clusters in one directory") };
        assert!(!status.success() && status.code().is_some(), "{status}: {said}");
        assert!(said.contains(directory), "the directory is named: {said}");
        assert_eq!(files(dir.path()), before, "a refused start rewrote the files of the running cluster: {said}");
    }
    assert_eq!(dev.get("/locks/held").text("lockId"), held.text("lockId"));
    assert!(dev.stop().success());

    let dev = Dev::at(port, &["--data-dir", directory, "--shards", "4"]).unwrap_or_else(|e| panic!("{e:?}"));
    let shown = dev.get("/locks/held");
    assert_eq!(shown.status, 200, "{shown:?}");
    assert_eq!(shown.text("lockId"), held.text("lockId"));
    assert_eq!(shown.number("fencingToken"), held.number("fencingToken"));
    assert_eq!(dev.get("/locks/leased").text("lockId"), leased.text("lockId"));
    assert_eq!(dev.get("/leader/led").text("lockId"), led.text("lockId"));
    assert_eq!(dev.get("/locks/released").status, 404);
    assert_eq!(dev.acquire("held", &other).problem(), "held");
    assert_eq!(dev.post(&format!("/sessions/{mine}/keepalive"), &json!({})).status, 200);
    assert_eq!(dev.release("held", &held.text("lockId")).status, 200);
    for (name, before) in [("held", &held), ("released", &released)] {
        let next = dev.acquire(name, &other);
        assert!(next.number("fencingToken") > before.number("fencingToken"), "tokens rise: {before:?}, {next:?}");
    }
    assert!(dev.stop().success());
    foreign_directories_are_refused(dir.path());
}

/// On a stopped cluster's directory: another cluster's configuration, and another node's data.
fn foreign_directories_are_refused(dir: &Path) {
    let directory = dir.to_str().unwrap();
    let Err((_, said)) = Dev::at(free_port(), &["--data-dir", directory, "--shards", "8"]) else {
        panic!("it was founded with 4 shards")
    };
    assert!(said.contains("4 shards, not 8"), "{said}");

    let fields = std::fs::read_to_string(dir.join("node-1.toml")).unwrap();
    assert!(fields.contains("\"dev\""), "{fields}");
    let file = dir.join("other.toml");
    std::fs::write(&file, fields.replace("\"dev\"", "\"other\"")).unwrap();
    let refused = wardlock().arg("node").arg("--config").arg(&file).output().unwrap();
    assert!(!refused.status.success() && refused.status.code().is_some(), "{}", text(&refused));
    assert!(text(&refused).contains("node-1"), "{}", text(&refused));

    let swap = |a: &str, b: &str| std::fs::rename(dir.join(a), dir.join(b)).unwrap();
    swap("node-1", "aside");
    swap("node-2", "node-1");
    swap("aside", "node-2");
    let Err((status, said)) = Dev::at(free_port(), &["--data-dir", directory, "--shards", "4"]) else {
        panic!("a node started with the data of another")
    };
    assert!(!status.success(), "{said}");
    assert!(said.contains("node-1") || said.contains("node-2"), "{said}");
}

#[test]
fn a_port_in_use_is_named() {
    let _alone = alone();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = tcp.local_addr().unwrap().port();
    let Err((status, said)) = Dev::at(taken, &[]) else { panic!("port {taken} was taken") };
    assert!(!status.success() && said.contains(&taken.to_string()), "{status}: {said}");
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = udp.local_addr().unwrap().port();
    let Err((status, said)) = Dev::at(taken - 2, &[]) else { panic!("port {taken} was taken") };
    assert!(!status.success() && said.contains(&taken.to_string()), "{status}: {said}");
}

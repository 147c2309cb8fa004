//! `wardlock node` as a process: which source of a setting wins, and what is refused by which name.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

const FILE: &str = "node = 1\ndata_dir = \"from-file\"\nshards = 8\ncerts = \"c\"\n[peers]\n1 = \"127.0.0.1:7401\"\n";

struct Node {
    dir: tempfile::TempDir,
}

impl Node {
    fn new(file: &str) -> Node {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("node.toml"), file).unwrap();
        Node { dir }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("node.toml")
    }

    fn run(&self, flags: &[&str], environment: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wardlock"));
        command.env_clear().envs(environment.iter().copied());
        command.args(["node", "--print-config", "--config"]).arg(self.file()).args(flags);
        command.output().unwrap()
    }

    #[track_caller]
    fn says(&self, flags: &[&str], environment: &[(&str, &str)], expected: &str) {
        let out = self.run(flags, environment);
        let stdout = String::from_utf8_lossy(&out.stdout);
        assert!(stdout.contains(expected), "{stdout}\n{}", String::from_utf8_lossy(&out.stderr));
    }

    #[track_caller]
    fn refuses(&self, flags: &[&str], environment: &[(&str, &str)], expected: &str) {
        let out = self.run(flags, environment);
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
    }
}

#[test]
fn a_flag_wins_over_the_environment_that_over_the_file_that_over_the_default() {
    let node = Node::new(FILE);
    node.says(&[], &[], "heartbeat_ms = 150\n");
    node.says(&[], &[], "shards = 8\n");
    node.says(&[], &[("WARDLOCK_SHARDS", "9")], "shards = 9\n");
    node.says(&["--shards", "10"], &[("WARDLOCK_SHARDS", "9")], "shards = 10\n");
    node.says(&["--peers", "1=h:1,2=h:2"], &[("WARDLOCK_PEERS", "1=g:1")], "advertise_quic = \"h:1\"\n");
    // A list replaces another: of the file's two only the flag's one is left.
    Node::new(&format!("{FILE}2 = \"127.0.0.1:7402\"\n")).says(&["--peers", "1=h:1"], &[], "replicas = 1\n");
}

#[test]
fn what_is_printed_is_a_file_that_says_the_same() {
    let first = Node::new(FILE).run(&["--domain", "rack \"a\""], &[]);
    let printed = String::from_utf8(first.stdout).unwrap();
    let second = Node::new(&printed).run(&[], &[]);
    assert_eq!(printed, String::from_utf8(second.stdout).unwrap());
}

#[test]
fn what_does_not_exist_is_refused_by_its_name() {
    Node::new(&format!("shard = 8\n{FILE}")).refuses(&[], &[], "shard");
    Node::new(FILE).refuses(&["--shard", "8"], &[], "--shard");
    Node::new(FILE).refuses(&[], &[("WARDLOCK_SHARD", "8")], "WARDLOCK_SHARD");
}

#[test]
fn what_is_wrong_is_refused_by_its_name() {
    Node::new(&FILE.replace("shards = 8", "shards = \"many\"")).refuses(&[], &[], "shards");
    Node::new(FILE).refuses(&["--shards", "many"], &[], "--shards");
    Node::new(FILE).refuses(&[], &[("WARDLOCK_HEARTBEAT_MS", "soon")], "--heartbeat-ms");
    Node::new(FILE).refuses(&["--replicas", "2"], &[], "replicas: 2 replicas need as many peers");
    Node::new(FILE).refuses(&["--heartbeat-ms", "1000"], &[], "heartbeat_ms: 1000 must be less");
    Node::new(FILE).refuses(&["--node", "2"], &[], "peers: this node, 2,");
}

#[test]
fn a_file_that_is_not_there_is_no_empty_file() {
    let node = Node::new(FILE);
    std::fs::remove_file(node.file()).unwrap();
    node.refuses(&[], &[], "node.toml");
}

#[test]
fn no_listener_leaves_loopback_without_certificates() {
    let flags = ["--listen-http", "0.0.0.0:7400", "--advertise-http", "h:7400"];
    Node::new(FILE).refuses(&flags, &[], "certs: cannot read c/ca.pem");
}

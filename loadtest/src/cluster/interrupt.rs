//! Signals that stop work in an orderly way.

use anyhow::bail;
use tokio::signal::unix::{SignalKind, signal};

/// Does the work, or fails on the first INT, TERM or HUP: whoever owns a cluster then ends it. The work is
/// dropped where it waits.
pub(crate) async fn interruptible<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::select! {
        done = work => done,
        how = signalled() => bail!(how?),
    }
}

/// Resolves with the next such signal, and says which.
pub(super) async fn signalled() -> std::io::Result<&'static str> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(tokio::select! {
        _ = interrupt.recv() => "interrupted",
        _ = terminate.recv() => "terminated",
        _ = hangup.recv() => "ended with its terminal",
    })
}

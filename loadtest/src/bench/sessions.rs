//! Opens and closes all sessions, some hundreds at a time.

use std::io::IsTerminal;

use anyhow::anyhow;
use futures_util::{StreamExt, stream};

use super::client::Load;

/// How many at once.
const AT_ONCE: usize = 500;

/// Opens sessions from 0 to below `count`.
pub(crate) async fn open(load: &Load, count: u32) -> anyhow::Result<()> {
    let mut opening = stream::iter(0..count).map(|session| load.open(session)).buffer_unordered(AT_ONCE);
    let mut opened = 0_u32;
    let shown = count >= 5_000 && std::io::stderr().is_terminal();
    while let Some(result) = opening.next().await {
        result.map_err(|failure| anyhow!("a session cannot be opened: {failure}"))?;
        opened += 1;
        if shown && opened.is_multiple_of(1_000) {
            eprint!("\ropening sessions: {opened} of {count}");
        }
    }
    if shown {
        eprintln!();
    }
    Ok(())
}

/// Closes them. What fails ends by its TTL.
pub(crate) async fn close(load: &Load, count: u32) {
    let mut closing = stream::iter(0..count).map(|session| load.target.close(session)).buffer_unordered(AT_ONCE);
    while closing.next().await.is_some() {}
}

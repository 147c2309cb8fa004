//! What a long wait tells a person who watches: one line on the terminal, gone when the wait is over.

use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

use tokio::time::sleep;

/// A wait as short as this needs no words.
const QUIET: Duration = Duration::from_secs(1);
/// How often the line is written anew.
const AGAIN: Duration = Duration::from_secs(2);

/// Waits for `work`; where stderr is a terminal, `line` says what for.
pub(super) async fn telling<T>(line: impl AsyncFn() -> Option<String>, work: impl Future<Output = T>) -> T {
    if !std::io::stderr().is_terminal() {
        return work.await;
    }
    let mut shown = Shown(false);
    let tell = async {
        sleep(QUIET).await;
        loop {
            if let Some(line) = line().await {
                shown.write(&format!("\rwardlock: {line}"));
                shown.0 = true;
            }
            sleep(AGAIN).await;
        }
    };
    tokio::select! {
        done = work => done,
        never = tell => never,
    }
}

/// Whether there is a line to be wiped away.
struct Shown(bool);

impl Shown {
    fn write(&self, text: &str) {
        crate::cli::output::complain(&format!("{text}\x1b[K"));
        // A terminal that cannot be written has nobody to tell.
        let _ = std::io::stderr().flush();
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if self.0 {
            self.write("\r");
        }
    }
}

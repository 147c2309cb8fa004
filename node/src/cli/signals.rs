//! Signals that end a server: the first drains, the second forces.

use std::{io, process};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// INT and TERM, caught from the moment this is made.
#[derive(Debug)]
pub struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    /// Starts to catch. Must be called within a runtime.
    ///
    /// # Errors
    /// Where the system refuses the handler.
    pub fn catch() -> io::Result<Stop> {
        Ok(Stop { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for either, and answers its number.
    pub async fn wait(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
        }
    }

    /// Runs `drain` to its end. Another signal ends the process at once, after `forced`, with the exit
    /// code that a shell expects of it.
    pub async fn drain<T>(&mut self, drain: impl Future<Output = T>, forced: impl FnOnce()) -> T {
        tokio::select! {
            done = drain => done,
            signal = self.wait() => {
                crate::cli::output::complain("wardlock: stopped without draining\n");
                forced();
                process::exit(128 + i32::from(signal));
            }
        }
    }
}

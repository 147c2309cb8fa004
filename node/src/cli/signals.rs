//! What ends a server: signals, of which the first drains and the second forces, or the end of whoever started
//! it.

use std::{
    io::{self, Read},
    process,
};

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

/// Resolves when stdin has ended, which it does with whoever holds its other end, even when that is killed.
/// Unless `watched`, it never does. The watch begins with the call.
pub fn orphaned(watched: bool) -> impl Future<Output = ()> {
    let told = watched.then(stdin_ended);
    async move {
        match told {
            // A sender that is gone means the same.
            Some(told) => drop(told.await),
            None => std::future::pending().await,
        }
    }
}

/// The read blocks a thread of its own, which the process's end takes along.
fn stdin_ended() -> tokio::sync::oneshot::Receiver<()> {
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut buffer = [0; 256];
        while matches!(stdin.read(&mut buffer), Ok(1..)) {}
        let _ = tell.send(());
    });
    told
}

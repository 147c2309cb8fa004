//! A line on a terminal that tells how far something is.

use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

/// How wide the bar is, and how often it is drawn.
const WIDTH: usize = 30;
const EVERY: Duration = Duration::from_millis(200);

/// See the [module](self). Where stderr is no terminal nothing is drawn.
#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    all: u64,
    drawn: Option<Instant>,
    is_seen: bool,
}

impl Progress {
    /// Towards so many.
    pub(crate) fn new(what: &'static str, all: u64) -> Progress {
        Progress { what, all, drawn: None, is_seen: std::io::stderr().is_terminal() }
    }

    /// So many are done.
    pub(crate) fn at(&mut self, done: u64) {
        let is_due = self.drawn.is_none_or(|drawn| drawn.elapsed() >= EVERY) || done >= self.all;
        if self.is_seen && is_due {
            self.drawn = Some(Instant::now());
            eprint!("\r\x1b[K{}", bar(self.what, done, self.all));
            // Progress is worth no failure.
            let _ = std::io::stderr().flush();
        }
    }

    /// Says a line of its own, above the bar.
    pub(crate) fn say(&mut self, line: &str) {
        let clear = if self.is_seen { "\r\x1b[K" } else { "" };
        eprintln!("{clear}{line}");
        self.drawn = None;
    }

    /// The line is left as it is.
    pub(crate) fn end(&mut self) {
        if self.is_seen && self.drawn.take().is_some() {
            eprintln!();
        }
    }
}

fn bar(what: &str, done: u64, all: u64) -> String {
    let full = (WIDTH as u64 * done.min(all) / all.max(1)) as usize;
    format!("{what} [{}{}] {done} of {all}", "#".repeat(full), ".".repeat(WIDTH - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fills_up_and_no_further() {
        assert_eq!(bar("a", 0, 10), format!("a [{}] 0 of 10", ".".repeat(WIDTH)));
        assert_eq!(bar("a", 5, 10), format!("a [{}{}] 5 of 10", "#".repeat(15), ".".repeat(15)));
        assert!(bar("a", 11, 10).contains(&"#".repeat(WIDTH)));
        assert!(bar("a", 0, 0).contains("0 of 0"));
    }
}

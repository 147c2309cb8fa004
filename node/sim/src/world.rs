//! Where all that happens is told: it goes into the trace, is counted, and every check hears it.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    checks::{self, Check, End},
    event::{Event, Op},
};

/// One run's record.
pub struct World {
    begun: Instant,
    inner: Mutex<Inner>,
}

struct Inner {
    checks: Vec<Box<dyn Check>>,
    counts: BTreeMap<&'static str, u64>,
    violations: Vec<String>,
    /// A running checksum of the trace's lines.
    hash: u32,
    lines: Option<Vec<String>>,
    ops: Op,
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// How often each kind of event happened.
    pub counts: BTreeMap<&'static str, u64>,
    /// Which promises were broken, and how.
    pub violations: Vec<String>,
    /// Of the whole trace: equal traces, equal hashes.
    pub hash: u32,
    /// The trace, where it was asked for.
    pub trace: Vec<String>,
}

impl World {
    /// Begins now, with every check; `traced` keeps the lines.
    pub fn new(traced: bool) -> World {
        let inner = Inner {
            checks: checks::all(),
            counts: BTreeMap::new(),
            violations: Vec::new(),
            hash: 0,
            lines: traced.then(Vec::new),
            ops: 0,
        };
        World { begun: Instant::now(), inner: Mutex::new(inner) }
    }

    /// Since the beginning.
    pub fn at(&self) -> Duration {
        self.begun.elapsed()
    }

    /// A number for a request.
    pub fn op(&self) -> Op {
        let mut inner = self.lock();
        inner.ops += 1;
        inner.ops
    }

    /// Something happened.
    pub fn tell(&self, event: Event) {
        let at = self.at();
        let mut inner = self.lock();
        *inner.counts.entry(event.kind()).or_default() += 1;
        inner.note(at, &format!("{event:?}"));
        let Inner { checks, violations, .. } = &mut *inner;
        for check in checks {
            if let Err(wrong) = check.event(at, &event) {
                violations.push(format!("{}: at {at:?}: {wrong}", check.name()));
            }
        }
    }

    /// Something that only the trace is told, such as a state's hash.
    pub fn note(&self, what: &str) {
        let at = self.at();
        self.lock().note(at, what);
    }

    /// A promise outside the checks is broken.
    pub fn wrong(&self, what: String) {
        let at = self.at();
        let mut inner = self.lock();
        inner.note(at, &what);
        inner.violations.push(format!("at {at:?}: {what}"));
    }

    /// Counts what is no event.
    pub fn count(&self, what: &'static str, by: u64) {
        *self.lock().counts.entry(what).or_default() += by;
    }

    /// Whether something is wrong already.
    pub fn is_wrong(&self) -> bool {
        !self.lock().violations.is_empty()
    }

    /// The end: every check looks at it.
    pub fn finish(&self, end: &End) -> Record {
        let at = self.at();
        let mut inner = self.lock();
        inner.note(at, &format!("{end:?}"));
        let Inner { checks, violations, counts, .. } = &mut *inner;
        for check in checks {
            if let Err(wrong) = check.end(end) {
                violations.push(format!("{}: at the end: {wrong}", check.name()));
            }
            counts.extend(check.count());
        }
        Record {
            counts: inner.counts.clone(),
            violations: inner.violations.clone(),
            hash: inner.hash,
            trace: inner.lines.take().unwrap_or_default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn note(&mut self, at: Duration, what: &str) {
        let mut line = String::with_capacity(what.len() + 16);
        // Writing to a string fails never.
        let _ = write!(line, "{:>10.3} {what}", at.as_secs_f64() * 1e3);
        self.hash = crc32c::crc32c_append(self.hash, line.as_bytes());
        if let Some(lines) = &mut self.lines {
            lines.push(line);
        }
    }
}

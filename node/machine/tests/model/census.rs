//! What the histories came to: how often each outcome occurred, each effect, and each situation that the
//! generator is there to bring about. A kind that is no longer reached is a hole in the test.

use std::{collections::BTreeMap, fmt};

use wardlock_machine::*;

use crate::{model::Model, ops::History};

/// Counts by name.
#[derive(Debug, Default)]
pub(crate) struct Census {
    counts: BTreeMap<String, u64>,
    /// Of the command that runs: whether its key had a queue, and a lock-delay.
    queued: bool,
    closed: bool,
    /// Which grants had run out.
    overdue: usize,
}

/// The name of a variant.
fn kind(of: &impl fmt::Debug) -> String {
    let text = format!("{of:?}");
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

/// Each with the least number of times that it must occur in the histories of the fixed seed.
const LEAST: &[(&str, u64)] = &[
    ("Acquire → AlreadyHeld", 450),
    ("Acquire → Cancelled", 10),
    ("Acquire → Expired", 90),
    ("Acquire → Granted", 900),
    ("Acquire → Held", 250),
    ("Acquire → Limit", 100),
    ("Acquire → Mismatch", 50),
    ("Acquire → NotAttached", 17),
    ("Acquire → Queued", 650),
    ("Acquire → StaleEpoch", 90),
    ("Acquire → TooOld", 100),
    ("Acquire → WaitTimeout", 1),
    ("Attach → Attached", 30),
    ("Attach → Closing", 5),
    ("Attach → Ended", 9),
    ("Attach → UnknownSession", 20),
    ("Break → Broken", 90),
    ("Break → Limit", 6),
    ("Break → StaleEpoch", 4),
    ("Cancel → Done", 200),
    ("Cancel → StaleEpoch", 5),
    ("Checkpoint → Done", 20),
    ("CloseSession → Closing", 3),
    ("CloseSession → Ended", 12),
    ("CloseSession → UnknownSession", 14),
    ("Confirm → Done", 60),
    ("Confirm → Limit", 1),
    ("Confirm → NotAttached", 17),
    ("Detached → Done", 50),
    ("Drop → Dropped", 40),
    ("ExpireSessions → Done", 18),
    ("ExpireSessions → StaleTerm", 12),
    ("OpenSession → Closing", 5),
    ("OpenSession → Ended", 7),
    ("OpenSession → IdTaken", 3),
    ("OpenSession → Limit", 3),
    ("OpenSession → Opened", 30),
    ("OpenSession → StaleEpoch", 1),
    ("Pend → Done", 100),
    ("Pend → Pending", 50),
    ("Release → Expired", 90),
    ("Release → Foreign", 200),
    ("Release → Released", 1100),
    ("Release → StaleEpoch", 40),
    ("Release → TooOld", 30),
    ("Renew → Expired", 50),
    ("Renew → Foreign", 60),
    ("Renew → Limit", 4),
    ("Renew → Renewed", 200),
    ("Renew → StaleEpoch", 12),
    ("Renew → TooOld", 30),
    ("SetRange → Done", 20),
    ("SetRange → Limit", 6),
    ("SetRange → StaleEpoch", 19),
    ("Tick → Done", 700),
    ("Unpend → Done", 20),
    ("broken, in its delay", 5),
    ("broken, many", 4),
    ("cancel → handed over", 3),
    ("closing SessionClosed", 7),
    ("closing SessionExpired", 20),
    ("drop → handed over", 3),
    ("elected at once", 300),
    ("freedoms taken", 90),
    ("full of keyed answers", 200),
    ("full of releases", 500),
    ("granted as the delay was over", 17),
    ("granted past a queue, by priority", 19),
    ("granted, not exclusive", 300),
    ("histories about Crowd", 4),
    ("histories about Everything", 6),
    ("histories about Memory", 2),
    ("histories about Retries", 2),
    ("histories about Sessions", 1),
    ("histories about Time", 3),
    ("kept out by a delay", 90),
    ("limit Field", 150),
    ("lost Broken", 60),
    ("lost LeaseExpired", 150),
    ("lost SessionClosed", 8),
    ("lost SessionExpired", 7),
    ("lost Unfetched", 7),
    ("queued behind others", 200),
    ("release → handed over", 150),
    ("renewed while others are overdue", 30),
    ("restored", 150),
    ("restored with a delay", 40),
    ("restored with a queue of many", 50),
    ("restored with an outbox", 16),
    ("restored with answers", 150),
    ("restored with attempts", 16),
    ("restored with holders", 150),
    ("retried Acquire → AlreadyHeld", 11),
    ("retried Acquire → Cancelled", 8),
    ("retried Acquire → Expired", 80),
    ("retried Acquire → Granted", 50),
    ("retried Acquire → Held", 19),
    ("retried Acquire → Queued", 14),
    ("retried Acquire → TooOld", 70),
    ("retried Acquire → WaitTimeout", 1),
    ("retried Release → Expired", 8),
    ("retried Release → Foreign", 20),
    ("retried Release → Released", 100),
    ("retried Release → TooOld", 9),
    ("retried Renew → Expired", 13),
    ("retried Renew → Foreign", 4),
    ("retried Renew → Renewed", 7),
    ("retried Renew → TooOld", 20),
    ("session ended", 20),
    ("settled Cancelled", 200),
    ("settled Ended", 4),
    ("settled Granted", 250),
    ("settled WaitTimeout", 90),
    ("tick → handed over", 30),
    ("tick → many lost", 20),
    ("commands", 15_000),
];

impl Census {
    fn count(&mut self, what: impl Into<String>) {
        *self.counts.entry(what.into()).or_default() += 1;
    }

    pub(crate) fn history(&mut self, history: &History) {
        self.count("histories");
        self.count(format!("histories about {:?}", history.theme));
    }

    pub(crate) fn before(&mut self, model: &Model, command: &Command) {
        let key = command.key();
        self.queued = key.is_some_and(|key| !model.queue(key).is_empty());
        self.closed = key.is_some_and(|key| model.delay(key).is_some());
        self.overdue = model.held.iter().filter(|held| held.until().is_some_and(|until| until < model.now)).count();
    }

    pub(crate) fn after(&mut self, model: &Model, command: &Command, outcome: &Outcome, effects: &Effects) {
        self.count("commands");
        self.count(format!("{} → {}", kind(command), kind(outcome)));
        if let Outcome::Limit(limit) = outcome {
            self.count(format!("limit {limit:?}"));
        }
        for settled in &effects.settled {
            self.count(format!("settled {}", kind(&settled.outcome)));
        }
        for reason in &effects.lost {
            self.count(format!("lost {reason:?}"));
        }
        for (_, reason) in &effects.closing {
            self.count(format!("closing {reason:?}"));
        }
        for _ in &effects.ended {
            self.count("session ended");
        }
        for guest in &model.guests {
            if guest.given_back.len() == limits::RELEASED_PER_SESSION {
                self.count("full of releases");
            }
            let keyed = guest.answers.iter().filter(|answer| matches!(answer.request, RequestId::Keyed { .. }));
            if keyed.count() == limits::KEYS_PER_SESSION {
                self.count("full of keyed answers");
            }
        }
        let granted = effects.settled.iter().filter(|settled| matches!(settled.outcome, Outcome::Granted(_))).count();
        match (command, outcome) {
            (Command::Acquire(ask), Outcome::Granted(grant)) => {
                if ask.mode != Mode::Exclusive {
                    self.count("granted, not exclusive");
                }
                if self.queued && grant.waited == Millis(0) && model.queue(&ask.key).iter().any(|_| true) {
                    self.count("granted past a queue, by priority");
                }
                if self.closed {
                    self.count("granted as the delay was over");
                }
                if ask.key.kind == Kind::Election {
                    self.count("elected at once");
                }
            }
            (Command::Acquire(_), Outcome::Queued { position: 2.. }) => self.count("queued behind others"),
            (Command::Acquire(_), Outcome::Queued { .. } | Outcome::Held(_)) if self.closed => {
                self.count("kept out by a delay");
            }
            (Command::Release { .. }, Outcome::Released) if granted > 0 => self.count("release → handed over"),
            (Command::Release { .. }, Outcome::Released) if granted > 1 => self.count("release → handed over to many"),
            (Command::Break { .. }, Outcome::Broken(grants)) if grants.len() > 1 => self.count("broken, many"),
            (Command::Break { .. }, Outcome::Broken(grants)) if grants.is_empty() && self.closed => {
                self.count("broken, in its delay");
            }
            (Command::Renew { .. }, Outcome::Renewed(_)) if self.overdue > 0 => {
                self.count("renewed while others are overdue")
            }
            (Command::Tick, _) if granted > 0 => self.count("tick → handed over"),
            (Command::Tick, _) if effects.lost.len() > 1 => self.count("tick → many lost"),
            (Command::Drop { .. }, _) if granted > 0 => self.count("drop → handed over"),
            (Command::Cancel { .. }, _) if granted > 0 => self.count("cancel → handed over"),
            _ => {}
        }
    }

    /// The same request once more.
    pub(crate) fn retried(&mut self, command: &Command, outcome: &Outcome) {
        if matches!(command, Command::Acquire(_) | Command::Release { .. } | Command::Renew { .. }) {
            self.count(format!("retried {} → {}", kind(command), kind(outcome)));
        }
    }

    pub(crate) fn restored(&mut self, model: &Model) {
        self.count("restored");
        for (what, there) in [
            ("restored with holders", !model.held.is_empty()),
            ("restored with a queue of many", model.waiting.len() > 1),
            ("restored with a delay", !model.delays.is_empty()),
            ("restored with answers", model.guests.iter().any(|guest| !guest.answers.is_empty())),
            ("restored with attempts", !model.asking.is_empty()),
            ("restored with an outbox", model.home.iter().any(|open| open.closing.is_some())),
        ] {
            if there {
                self.count(what);
            }
        }
    }

    pub(crate) fn freedoms(&mut self, taken: u64) {
        *self.counts.entry("freedoms taken".to_owned()).or_default() += taken;
    }

    /// What occurred too seldom.
    pub(crate) fn missing(&self) -> Vec<String> {
        let count = |what: &str| self.counts.get(what).copied().unwrap_or_default();
        let seldom = LEAST.iter().filter(|(what, least)| count(what) < *least);
        seldom.map(|(what, least)| format!("{what}: {} of {least}", count(what))).collect()
    }
}

impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.counts.iter().try_for_each(|(what, count)| writeln!(f, "{count:>9}  {what}"))
    }
}

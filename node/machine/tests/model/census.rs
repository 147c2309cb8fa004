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
    ("Advance → HookChanged", 200),
    ("Advance → Limit", 5),
    ("Advance → NoHook", 20),
    ("Advance → StaleEpoch", 5),
    ("Advance → StaleHook", 20),
    ("DropHook → HookChanged", 5),
    ("DropHook → NoHook", 5),
    ("SetHook → HookChanged", 60),
    ("SetHook → Limit", 5),
    ("SettleDead → HookChanged", 20),
    ("SettleDead → NoHook", 5),
    ("histories about Hooks", 3),
    ("restored with dead letters", 10),
    ("retried SetHook → HookChanged", 5),
    ("Acquire → AlreadyHeld", 550),
    ("Acquire → Cancelled", 13),
    ("Acquire → Deadlock", 3),
    ("Acquire → Expired", 100),
    ("Acquire → Granted", 900),
    ("Acquire → Held", 250),
    ("Acquire → Limit", 150),
    ("Acquire → Mismatch", 60),
    ("Acquire → NotAttached", 15),
    ("Acquire → Queued", 700),
    ("Acquire → StaleEpoch", 100),
    ("Acquire → TooOld", 150),
    ("Acquire → WaitTimeout", 5),
    ("Attach → Attached", 18),
    ("Attach → Closing", 2),
    ("Attach → Ended", 16),
    ("Attach → UnknownSession", 15),
    ("Break → Broken", 80),
    ("Break → Limit", 3),
    ("Break → StaleEpoch", 3),
    ("BreakDeadlock → Done", 150),
    ("BreakDeadlock → StaleEpoch", 8),
    ("Cancel → Done", 250),
    ("Cancel → StaleEpoch", 14),
    ("Checkpoint → Done", 20),
    ("CloseSession → Closing", 4),
    ("CloseSession → Ended", 17),
    ("CloseSession → UnknownSession", 7),
    ("Configure → Configured", 500),
    ("Configure → Limit", 9),
    ("Configure → NoConfig", 40),
    ("Configure → StaleEpoch", 9),
    ("Configure → VersionMismatch", 50),
    ("Confirm → Done", 50),
    ("Confirm → Limit", 2),
    ("Confirm → NotAttached", 15),
    ("Detached → Done", 50),
    ("Deregister → Deregistered", 60),
    ("Deregister → ForeignInstance", 4),
    ("Deregister → Limit", 30),
    ("Deregister → NoInstance", 50),
    ("Deregister → StaleEpoch", 3),
    ("Drop → Dropped", 40),
    ("ExpireSessions → Done", 17),
    ("ExpireSessions → StaleTerm", 11),
    ("OpenSession → Closing", 4),
    ("OpenSession → Ended", 14),
    ("OpenSession → IdTaken", 2),
    ("OpenSession → Limit", 2),
    ("OpenSession → Opened", 30),
    ("OpenSession → StaleEpoch", 1),
    ("Pend → Done", 100),
    ("Pend → Pending", 50),
    ("Proclaim → Expired", 10),
    ("Proclaim → Foreign", 20),
    ("Proclaim → Limit", 5),
    ("Proclaim → Renewed", 50),
    ("Proclaim → StaleEpoch", 3),
    ("Proclaim → TooOld", 5),
    ("Register → Limit", 30),
    ("Register → NotAttached", 100),
    ("Register → Registered", 350),
    ("Register → StaleEpoch", 20),
    ("Release → Expired", 100),
    ("Release → Foreign", 200),
    ("Release → Released", 1050),
    ("Release → StaleEpoch", 50),
    ("Release → TooOld", 40),
    ("Renew → Expired", 60),
    ("Renew → Foreign", 60),
    ("Renew → Limit", 9),
    ("Renew → Renewed", 200),
    ("Renew → StaleEpoch", 14),
    ("Renew → TooOld", 40),
    ("ReportHealth → ForeignInstance", 8),
    ("ReportHealth → HealthReported", 80),
    ("ReportHealth → NoInstance", 100),
    ("SetRange → Done", 20),
    ("SetRange → Limit", 4),
    ("SetRange → StaleEpoch", 16),
    ("Tick → Done", 700),
    ("Unpend → Done", 20),
    ("broken, in its delay", 3),
    ("broken, many", 9),
    ("cancel → handed over", 8),
    ("closing SessionClosed", 10),
    ("closing SessionExpired", 18),
    ("drop → handed over", 3),
    ("elected at once", 250),
    ("freedoms taken", 90),
    ("full of keyed answers", 50),
    ("full of releases", 600),
    ("granted as the delay was over", 20),
    ("granted from the queue, Exclusive", 150),
    ("granted from the queue, Semaphore", 80),
    ("granted from the queue, Shared", 40),
    ("granted past a queue, by priority", 16),
    ("granted, not exclusive", 350),
    ("histories about Configs", 3),
    ("histories about Crowd", 3),
    ("histories about Everything", 3),
    ("histories about Memory", 2),
    ("histories about Pool", 3),
    ("histories about Retries", 3),
    ("histories about Services", 3),
    ("histories about Sessions", 1),
    ("histories about Time", 3),
    ("kept out by a delay", 90),
    ("limit Field", 150),
    ("lost Broken", 50),
    ("lost LeaseExpired", 150),
    ("lost SessionClosed", 6),
    ("lost SessionExpired", 11),
    ("lost Unfetched", 12),
    ("proclaimed before others", 15),
    ("queued behind others", 200),
    ("queued for a permit", 90),
    ("release → handed over", 200),
    ("renewed while others are overdue", 30),
    ("restored", 150),
    ("restored with a deleted path", 20),
    ("restored with a delay", 40),
    ("restored with a queue of many", 50),
    ("restored with an outbox", 4),
    ("restored with answers", 150),
    ("restored with attempts", 20),
    ("restored with holders", 150),
    ("restored with instances", 200),
    ("retried Acquire → AlreadyHeld", 12),
    ("retried Acquire → Cancelled", 12),
    ("retried Acquire → Expired", 90),
    ("retried Acquire → Granted", 50),
    ("retried Acquire → Held", 30),
    ("retried Acquire → Queued", 20),
    ("retried Acquire → TooOld", 80),
    ("retried Acquire → WaitTimeout", 5),
    ("retried Configure → Configured", 30),
    ("retried Proclaim → Expired", 2),
    ("retried Proclaim → Renewed", 4),
    ("retried Deregister → Deregistered", 5),
    ("retried Register → NotAttached", 8),
    ("retried Register → Registered", 30),
    ("retried Release → Expired", 14),
    ("retried Release → Foreign", 16),
    ("retried Release → Released", 100),
    ("retried Release → TooOld", 14),
    ("retried Renew → Expired", 19),
    ("retried Renew → Foreign", 10),
    ("retried Renew → Renewed", 18),
    ("retried ReportHealth → HealthReported", 5),
    ("retried Renew → TooOld", 30),
    ("session ended", 20),
    ("settled Cancelled", 250),
    ("settled Deadlock", 40),
    ("settled Ended", 5),
    ("settled Granted", 300),
    ("settled WaitTimeout", 100),
    ("tick → handed over", 30),
    ("tick → many lost", 30),
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
        let mode = |settled: &Settled| match &settled.outcome {
            Outcome::Granted(grant) => Some(grant.mode),
            _ => None,
        };
        for mode in effects.settled.iter().filter_map(mode) {
            self.count(format!("granted from the queue, {}", kind(&mode)));
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
            (
                Command::Acquire(Acquire { mode: Mode::Semaphore { permits }, key, .. }),
                Outcome::Queued { position: 1 },
            ) if model.holders(key).count() == *permits as usize => {
                self.count("queued for a permit");
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
            (Command::Proclaim { .. }, Outcome::Renewed(_)) if self.queued => self.count("proclaimed before others"),
            (Command::Tick, _) if granted > 0 => self.count("tick → handed over"),
            (Command::Tick, _) if effects.lost.len() > 1 => self.count("tick → many lost"),
            (Command::Drop { .. }, _) if granted > 0 => self.count("drop → handed over"),
            (Command::Cancel { .. }, _) if granted > 0 => self.count("cancel → handed over"),
            _ => {}
        }
    }

    /// The same request once more.
    pub(crate) fn retried(&mut self, command: &Command, outcome: &Outcome) {
        if matches!(
            command,
            Command::Acquire(_)
                | Command::Release { .. }
                | Command::Renew { .. }
                | Command::Configure(_)
                | Command::Proclaim { .. }
                | Command::Register(_)
                | Command::Deregister { .. }
                | Command::ReportHealth { .. }
                | Command::SetHook(_)
                | Command::SettleDead(_)
        ) {
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
            ("restored with a deleted path", model.past.has_deletions()),
            ("restored with instances", !model.registry.listed.is_empty()),
            ("restored with attempts", !model.asking.is_empty()),
            ("restored with dead letters", model.hooks.has_letters()),
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

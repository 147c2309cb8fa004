//! What the load is made of: a lock workload, resolved from the command line.
//!
//! A [`Plan`] is what was asked for, with every default filled in: an explicit flag stands before the
//! [profile], the profile before the workload's own defaults.

mod dice;
mod names;
pub(crate) mod profile;

use std::{fmt, str::FromStr, time::Duration};

pub(crate) use self::{
    dice::Dice,
    names::{Distribution, Names},
};
use crate::{
    run::{Options, length},
    target::How,
};

/// What the clients do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Reads of locks' states, and acquires and releases.
    #[default]
    Mix,
    /// Acquires and releases only.
    Locks,
    /// Signs of life of the sessions, one after the other.
    Keepalive,
    /// All clients queue for the same few locks, and pass them on.
    Handoff,
}

/// When operations begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Schedule {
    /// At equal distances.
    #[default]
    Fixed,
    /// At random, as independent users' would: exponential gaps.
    Poisson,
}

/// How long a lock is held.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Hold {
    /// Until the client's next write, which releases it.
    Next,
    /// For so long, and then until the next write.
    Fixed(Duration),
    /// The same, with this mean, exponentially distributed.
    Exponential(Duration),
}

impl FromStr for Hold {
    type Err = String;

    fn from_str(text: &str) -> Result<Hold, String> {
        match text.split_once(':') {
            None if text == "next" => Ok(Hold::Next),
            None => length(text).map(Hold::Fixed),
            Some(("exp", mean)) => length(mean).map(Hold::Exponential),
            Some(_) => Err(format!("{text:?} is neither next nor a length of time nor exp:LENGTH")),
        }
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hold::Next => f.write_str("next"),
            Hold::Fixed(length) => write!(f, "{}", length.as_secs_f64() * 1e3),
            Hold::Exponential(mean) => write!(f, "exp {}", mean.as_secs_f64() * 1e3),
        }
    }
}

/// The workload, complete.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    pub(crate) schedule: Schedule,
    /// Operations per second; `None` in a closed loop.
    pub(crate) rate: Option<f64>,
    pub(crate) clients: u32,
    pub(crate) sessions: u32,
    pub(crate) ttl: Duration,
    pub(crate) names: u64,
    pub(crate) distribution: Distribution,
    /// Percent.
    pub(crate) reads: f64,
    /// Percent of acquires.
    pub(crate) shared: f64,
    pub(crate) hold: Hold,
    pub(crate) wait: Duration,
    pub(crate) lease: Option<Duration>,
    pub(crate) warmup: Duration,
    pub(crate) duration: Duration,
}

/// Without a rate and without `--closed-loop`.
pub(crate) const RATE: f64 = 10_000.0;

impl Plan {
    /// What the options ask for.
    pub(crate) fn of(options: &Options) -> Plan {
        let profile = options.profile.map(profile::Profile::options).unwrap_or_default();
        let kind = options.workload.unwrap_or_default();
        let handoff = kind == Kind::Handoff;
        // Whoever queues for one lock cannot keep to a schedule.
        let closed = options.closed_loop || (handoff && options.rate.is_none());
        let rate = options.rate.or(profile.rate).unwrap_or(RATE);
        let clients = options.clients.unwrap_or(if handoff { 50 } else { 1_000 });
        let reads = options.reads.or(profile.reads).unwrap_or(80.0);
        Plan {
            kind,
            schedule: options.schedule,
            rate: (!closed).then_some(rate),
            clients,
            sessions: options.sessions.or(profile.sessions).unwrap_or(clients),
            ttl: options.session_ttl.or(profile.ttl).unwrap_or(Duration::from_secs(30)),
            names: options.names.or(profile.names).unwrap_or(if handoff { 1 } else { 1_000 }),
            distribution: options.distribution,
            reads: if kind == Kind::Mix { reads } else { 0.0 },
            shared: options.shared,
            hold: options.hold.or(profile.hold).unwrap_or(Hold::Next),
            wait: options.wait.unwrap_or(Duration::from_secs(if handoff { 60 } else { 0 })),
            lease: options.lease,
            warmup: options.warmup,
            duration: options.duration,
        }
    }

    /// How an acquire asks.
    pub(crate) fn how(&self, dice: &mut Dice) -> How {
        How { shared: self.shared > 0.0 && dice.percent(self.shared), wait: self.wait, lease: self.lease }
    }

    /// How long this lock is held; `None` until the client's next write.
    pub(crate) fn hold(&self, dice: &mut Dice) -> Option<Duration> {
        match self.hold {
            Hold::Next => None,
            Hold::Fixed(length) => Some(length),
            Hold::Exponential(mean) => Some(dice.exponential(mean)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::options;

    #[test]
    fn a_flag_stands_before_the_profile_and_the_profile_before_the_default() {
        let plain = Plan::of(&options(&[]));
        assert_eq!((plain.rate, plain.sessions, plain.names), (Some(RATE), 1_000, 1_000));
        let seed = Plan::of(&options(&["--profile", "seed", "--clients", "500"]));
        assert_eq!((seed.clients, seed.sessions, seed.reads), (500, 10_000, 80.0));
        assert_eq!(seed.rate, Some(100_000.0));
        let less = Plan::of(&options(&["--profile", "seed", "--rate", "5000", "--sessions", "10", "--hold", "next"]));
        assert_eq!((less.rate, less.sessions, less.hold), (Some(5_000.0), 10, Hold::Next));
        assert_eq!(Plan::of(&options(&["--profile", "seed", "--closed-loop"])).rate, None);
    }

    #[test]
    fn queueing_for_one_lock_is_a_closed_loop_unless_a_rate_is_asked_for() {
        let handoff = Plan::of(&options(&["--workload", "handoff"]));
        assert_eq!((handoff.rate, handoff.clients, handoff.names, handoff.reads), (None, 50, 1, 0.0));
        assert!(handoff.wait > Duration::ZERO);
        assert_eq!(Plan::of(&options(&["--workload", "handoff", "--rate", "100"])).rate, Some(100.0));
    }

    #[test]
    fn holds_are_written_as_words_and_lengths() {
        assert_eq!("next".parse(), Ok(Hold::Next));
        assert_eq!("20ms".parse(), Ok(Hold::Fixed(Duration::from_millis(20))));
        assert_eq!("exp:1.5".parse(), Ok(Hold::Exponential(Duration::from_millis(1_500))));
        for wrong in ["", "exp", "exp:", "exp:-1", "later", "norm:1"] {
            assert!(wrong.parse::<Hold>().is_err(), "{wrong}");
        }
    }
}

//! Workloads with a name.

use std::time::Duration;

use super::{Hold, Plan};

/// Which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Profile {
    /// 10,000 sessions, 1,000 locks, 80 % reads, 100,000 operations/s.
    Seed,
}

/// What a profile says; the rest has the usual defaults.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Preset {
    pub(crate) rate: Option<f64>,
    pub(crate) sessions: Option<u32>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) names: Option<u64>,
    pub(crate) reads: Option<f64>,
    pub(crate) hold: Option<Hold>,
}

impl Profile {
    /// Its settings.
    pub(crate) fn options(self) -> Preset {
        match self {
            Profile::Seed => Preset {
                rate: Some(100_000.0),
                sessions: Some(10_000),
                ttl: Some(Duration::from_secs(30)),
                names: Some(1_000),
                reads: Some(80.0),
                hold: Some(Hold::Exponential(Duration::from_millis(20))),
            },
        }
    }

    /// Why it is as it is, for the one who reads the figures.
    pub(crate) fn explanation(self, plan: &Plan) -> String {
        match self {
            Profile::Seed => seed(plan),
        }
    }
}

fn seed(plan: &Plan) -> String {
    let rate = plan.rate.unwrap_or(100_000.0);
    let writes = rate * (100.0 - plan.reads) / 100.0;
    let grants = writes / 2.0;
    let names = plan.names as f64;
    let hold = match plan.hold {
        Hold::Next => "until the client's next write".to_owned(),
        Hold::Fixed(length) => format!("for {length:?}"),
        Hold::Exponential(mean) => format!("for {mean:?} on average (exponentially distributed)"),
    };
    format!(
        "profile seed: {sessions} sessions, {names} locks, {reads:.0}:{rest:.0} reads to writes, {rate:.0} operations/s.\n\
         \x20 These do not go together at just any hold time: {names} locks held for 10 s each allow {slow:.0} grants/s,\n\
         \x20 while {rate:.0} operations/s with {rest:.0} % writes are {writes:.0} writes/s, that is {grants:.0} grants/s and as many\n\
         \x20 releases. That takes holds of at most {longest:.0} ms on {names} locks (all of them always held), or, at 10 s,\n\
         \x20 {wanted:.0} locks. Chosen here: locks are held {hold}.\n\
         \x20 An acquire that finds its lock held counts as refused. --hold, --names and --rate say otherwise.\n",
        sessions = plan.sessions,
        names = plan.names,
        reads = plan.reads,
        rest = 100.0 - plan.reads,
        slow = names / 10.0,
        longest = 1_000.0 * names / grants.max(1.0),
        wanted = grants * 10.0,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::options;

    #[test]
    fn the_seeds_conflict_is_reckoned_from_the_mix() {
        let plan = Plan::of(&options(&["--profile", "seed"]));
        let text = Profile::Seed.explanation(&plan);
        for part in [
            "10000 sessions",
            "allow 100 grants/s",
            "20000 writes/s",
            "10000 grants/s",
            "at most 100 ms",
            "100000 locks",
            "20ms",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}

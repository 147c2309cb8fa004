//! What can be said on the command line about a load.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use crate::{
    target::Place,
    workload::{Distribution, Hold, Kind, Schedule, profile::Profile},
};

/// Loads a cluster for a while and says how it bore it.
///
/// By default an open loop: operations begin on a schedule whether earlier ones have been answered or not, and
/// latency counts from when an operation was meant to begin. With --closed-loop each client sends its next
/// operation when the last one is answered. What the clients are told is checked: two holders of one lock,
/// a token that does not rise, a lock or session that ends too early, a stale read.
///
/// Exit status: 0, or 1 where the run failed or a promise was broken.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) place: Place,

    /// A workload with a name; what else is said here overrides it.
    #[arg(long, value_enum, help_heading = "Load")]
    pub(crate) profile: Option<Profile>,
    /// What the clients do.
    #[arg(long, value_enum, help_heading = "Load")]
    pub(crate) workload: Option<Kind>,
    /// Operations per second, answered or not. [default: 10000]
    #[arg(long, value_name = "OPS", value_parser = positive, help_heading = "Load")]
    pub(crate) rate: Option<f64>,
    /// When they begin.
    #[arg(long, value_enum, default_value_t, help_heading = "Load")]
    pub(crate) schedule: Schedule,
    /// Each client sends its next operation when its last one is answered.
    #[arg(long, conflicts_with = "rate", help_heading = "Load")]
    pub(crate) closed_loop: bool,
    /// The most operations under way at once: clients, of one operation each. [default: 1000; handoff: 50]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100_000), help_heading = "Load")]
    pub(crate) clients: Option<u32>,
    /// How long to measure: 20s, 500ms, 2m, or seconds.
    #[arg(long, value_name = "LENGTH", default_value = "10s", value_parser = some_length, help_heading = "Load")]
    pub(crate) duration: Duration,
    /// How long to run before that.
    #[arg(long, value_name = "LENGTH", default_value = "2s", value_parser = length, help_heading = "Load")]
    pub(crate) warmup: Duration,

    /// How many lock names. [default: 1000; handoff: 1]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=10_000_000), help_heading = "Locks")]
    pub(crate) names: Option<u64>,
    /// How requests spread over them: uniform, or zipf:EXPONENT.
    #[arg(long, value_name = "LAW", default_value = "uniform", help_heading = "Locks")]
    pub(crate) distribution: Distribution,
    /// The share of reads. [default: 80]
    #[arg(long, value_name = "PERCENT", value_parser = percent, help_heading = "Locks")]
    pub(crate) reads: Option<f64>,
    /// The share of acquires in shared mode.
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = percent, help_heading = "Locks")]
    pub(crate) shared: f64,
    /// How long a lock is held: next (until the client's next write), a length, or exp:MEAN.
    #[arg(long, value_name = "HOLD", help_heading = "Locks")]
    pub(crate) hold: Option<Hold>,
    /// How long an acquire queues; 0 tries once. [default: 0; handoff: 60s]
    #[arg(long, value_name = "LENGTH", value_parser = length, help_heading = "Locks")]
    pub(crate) wait: Option<Duration>,
    /// The locks' own lease, renewed at its half while they are held. [default: none, as long as the session]
    #[arg(long, value_name = "LENGTH", value_parser = some_length, help_heading = "Locks")]
    pub(crate) lease: Option<Duration>,

    /// How many sessions the clients use. [default: as many as clients]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000), help_heading = "Sessions")]
    pub(crate) sessions: Option<u32>,
    /// Their TTL; signs of life are sent at a third of it. [default: 30s]
    #[arg(long, value_name = "LENGTH", value_parser = some_length, help_heading = "Sessions")]
    pub(crate) session_ttl: Option<Duration>,

    /// Write the figures to this file, too.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) json: Option<PathBuf>,
    /// Write a page of plots to this file.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) html: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  wardlock-loadtest run --rate 20000 --schedule poisson --duration 20s
  wardlock-loadtest run --closed-loop --clients 256 --reads 50 --json figures.json
  wardlock-loadtest run --workload handoff --clients 50
  wardlock-loadtest run --workload keepalive --closed-loop --sessions 10000
  wardlock-loadtest run --rate 5000 --names 1000000 --distribution zipf:1.1 --hold exp:200ms --wait 2s
  wardlock-loadtest run --target http://127.0.0.1:7400 --protocol http --connections 64 --rate 2000";

/// A length of time: `20s`, `500ms`, `2m`, or bare seconds; up to a day.
pub(crate) fn length(text: &str) -> Result<Duration, String> {
    const MOST: Duration = Duration::from_secs(86_400);
    let length = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| format!("{text}: {error}"))?,
        Err(_) => humantime::parse_duration(text).map_err(|error| format!("{text:?}: {error}"))?,
    };
    if length <= MOST { Ok(length) } else { Err(format!("{text} is more than a day")) }
}

/// The same, but not nothing.
pub(crate) fn some_length(text: &str) -> Result<Duration, String> {
    length(text).and_then(|length| if length.is_zero() { Err("must be more than 0".to_owned()) } else { Ok(length) })
}

/// A share.
pub(crate) fn percent(text: &str) -> Result<f64, String> {
    let percent: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if (0.0..=100.0).contains(&percent) { Ok(percent) } else { Err(format!("{text} is not from 0 to 100")) }
}

/// A rate per second.
pub(crate) fn positive(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if (0.001..=10_000_000.0).contains(&rate) { Ok(rate) } else { Err(format!("{text} is not from 0.001 to 10000000")) }
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    #[command(args_override_self = true)]
    struct Wrapped {
        #[command(flatten)]
        options: Options,
    }

    /// Options as the command line would give them.
    pub(crate) fn options(arguments: &[&str]) -> Options {
        parse(arguments).expect("options")
    }

    fn parse(arguments: &[&str]) -> Result<Options, clap::Error> {
        let arguments = std::iter::once("run").chain(arguments.iter().copied());
        Wrapped::try_parse_from(arguments).map(|wrapped| wrapped.options)
    }

    #[test]
    fn lengths_have_units_or_are_seconds() {
        assert_eq!(length("20s"), Ok(Duration::from_secs(20)));
        assert_eq!(length("1.5"), Ok(Duration::from_millis(1_500)));
        assert_eq!(length("2m 500ms"), Ok(Duration::from_millis(120_500)));
        assert_eq!(length("0"), Ok(Duration::ZERO));
        for wrong in ["", "-1", "25h", "NaN", "inf", "soon"] {
            assert!(length(wrong).is_err(), "{wrong}");
        }
        assert!(some_length("0s").is_err());
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for wrong in [
            ["--rate", "0"],
            ["--reads", "101"],
            ["--clients", "0"],
            ["--names", "0"],
            ["--hold", "later"],
            ["--duration", "0"],
            ["--distribution", "normal"],
            ["--protocol", "tcp"],
        ] {
            assert!(parse(&wrong).is_err(), "{wrong:?}");
        }
        assert!(parse(&["--rate", "5", "--closed-loop"]).is_err());
        assert!(parse(&["--profile", "seed", "--clients", "1000", "--duration", "20s", "--json", "f"]).is_ok());
    }
}

//! `--stale`: reading from whichever replica answers.

use std::time::Duration;

use clap::Args;
use wardlock_machine::{Answer, Query};
use wardlock_router::Client;

use super::{args, connect::PATIENCE, failure::Failure, output};

/// How fresh an answer must be.
#[derive(Args, Clone, Debug)]
pub(super) struct Freshness {
    /// Read from any replica, also where the shard has no leader. How old the answer may be is told on stderr.
    #[arg(long)]
    stale: bool,

    /// How old it may be at the most, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = args::seconds, requires = "stale")]
    max_age: Option<Duration>,
}

impl Freshness {
    /// Reads as fresh as was asked for.
    ///
    /// # Errors
    /// Where the cluster does not answer.
    pub(super) async fn read(&self, client: &Client, query: Query) -> Result<Answer, Failure> {
        if !self.stale {
            return client.read(query, PATIENCE).await.map_err(Failure::error);
        }
        let (answer, age) = client.read_stale(query, self.max_age, PATIENCE).await.map_err(Failure::error)?;
        output::complain(&match age {
            Some(age) => format!("wardlock: at most {:.3} s old\n", age.as_secs_f64()),
            None => "wardlock: nobody knows how old it is\n".to_owned(),
        });
        Ok(answer)
    }
}

/// The cluster answered another question.
pub(super) fn other() -> Failure {
    Failure::error("the cluster answered something else")
}

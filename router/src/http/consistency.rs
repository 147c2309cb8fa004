//! How fresh a read must be, and how fresh it was.
//!
//! A read is linearizable unless it says `consistency=stale`: then any replica answers, also where the shard has no
//! leader, and the answer says in `Wardlock-Age` how many seconds old it may be, counted back from when it was asked
//! for, or `unknown`. `maxAge` bounds that, in seconds; where no replica can meet it in time, the answer is 503
//! `too-stale`.

use std::time::Duration;

use http::HeaderValue;
use wardlock_machine::{Answer, Key, Millis, Object, Query};

use super::{Gateway, backend::Backend, call::Params, problem::Problem, render::Text, reply::Reply};
use crate::client::WatchToken;

/// The largest bound.
pub(super) const MAX_AGE: Millis = Millis(3_600_000);

/// How a read is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Consistency {
    /// It sees all that was acknowledged before it.
    Linearizable,
    /// It may be old, by so much at the most.
    Stale { max_age: Option<Duration> },
}

/// How old an answer may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Age {
    /// It is linearizable.
    #[default]
    Current,
    /// By this at the most.
    AtMost(Duration),
    /// Nobody knows.
    Unknown,
}

impl Age {
    /// Says so with an answer, whichever it is.
    pub(super) fn on(self, answer: Result<Reply, Problem>) -> Result<Reply, Problem> {
        answer.map(|reply| reply.aged(self)).map_err(|problem| problem.aged(self))
    }

    /// The header's value.
    pub(super) fn header(self) -> Option<HeaderValue> {
        match self {
            Age::Current => None,
            Age::Unknown => Some(HeaderValue::from_static("unknown")),
            Age::AtMost(age) => HeaderValue::try_from(format!("{:.3}", age.as_secs_f64())).ok(),
        }
    }

    /// As JSON has it; `None` where there is nothing to say.
    pub(super) fn json(self) -> Option<String> {
        match self {
            Age::Current => None,
            Age::Unknown => Some("null".to_owned()),
            Age::AtMost(age) => Some(age.as_millis().to_string()),
        }
    }
}

impl Params {
    /// `consistency` and `maxAge`.
    pub(super) fn consistency(&mut self) -> Result<Consistency, Problem> {
        let max_age = self.seconds("maxAge", MAX_AGE)?;
        match (self.take("consistency")?.as_deref(), max_age) {
            (Some("stale"), max_age) => Ok(Consistency::Stale { max_age }),
            (None | Some("linearizable"), None) => Ok(Consistency::Linearizable),
            (None | Some("linearizable"), Some(_)) => {
                Err(Problem::field("maxAge", "maxAge belongs to consistency=stale: a linearizable read has no age"))
            }
            (Some(_), _) => Err(Problem::field("consistency", "consistency must be linearizable or stale")),
        }
    }
}

impl<B: Backend> Gateway<B> {
    /// Reads as it is asked for.
    pub(super) async fn ask(
        &self,
        query: Query,
        consistency: Consistency,
        patience: Duration,
    ) -> Result<(Answer, Age), Problem> {
        match consistency {
            Consistency::Stale { max_age } => {
                let (answer, age) = self.backend().read_stale(query, max_age, patience).await?;
                Ok((answer, age.map_or(Age::Unknown, Age::AtMost)))
            }
            Consistency::Linearizable => Ok((self.backend().read(query, patience).await?, Age::Current)),
        }
    }

    /// The same for a list, with the token from which to watch what happens behind it. A stale page has none: what it
    /// lacks may have happened before.
    pub(super) async fn ask_list(
        &self,
        query: Query,
        consistency: Consistency,
        patience: Duration,
    ) -> Result<(Answer, Age, Option<Text<WatchToken>>), Problem> {
        if let Consistency::Stale { .. } = consistency {
            let (answer, age) = self.ask(query, consistency, patience).await?;
            return Ok((answer, age, None));
        }
        let (answer, token) = self.backend().list(query, patience).await?;
        Ok((answer, Age::Current, Some(Text(token))))
    }

    /// One lock or election, if there is anything to it.
    pub(super) async fn object_as(
        &self,
        key: Key,
        consistency: Consistency,
        patience: Duration,
    ) -> Result<(Option<Object>, Age), Problem> {
        match self.ask(Query::Object { key }, consistency, patience).await? {
            (Answer::Object(object), age) => Ok((object, age)),
            _ => Err(Problem::internal("the cluster answered another question")),
        }
    }
}

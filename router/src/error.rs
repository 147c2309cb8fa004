//! What a call through the client can fail with. Each variant says what its caller may do next.

use std::time::Duration;

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing happened: the shard had no leader that could take the call. Repeat it later.
    #[error("unavailable: {why}")]
    Unavailable {
        /// When a repeat has a chance.
        retry_after: Duration,
        /// What the last replica said.
        why: String,
    },
    /// Nothing happened: no node could be reached at all.
    #[error("no node answers: {why}")]
    Unreachable {
        /// What the last attempt failed with.
        why: String,
    },
    /// The write was proposed, and its answer is lost: it may or may not have happened. Repeat the *same*
    /// command, with the same request id, to learn which.
    #[error("the outcome is unknown: repeat with the same request id")]
    OutcomeUnknown,
    /// Nothing happened: the disk is nearly full, and this would make the state larger.
    #[error("the disk is nearly full")]
    DiskFull,
    /// Nothing happened: the shard's queue stayed full for all of the caller's patience. Slow down.
    #[error("overloaded")]
    Overloaded,
    /// Nothing happened: the certificate does not allow it. A repeat will not help.
    #[error("not allowed: {0}")]
    NotAllowed(String),
    /// Nothing happened: the call makes no sense, or its answer did not. A repeat will not help.
    #[error("malformed: {0}")]
    Malformed(String),
    /// No replica could show in time that its state is as young as was asked for. Repeat it later, or allow a greater
    /// age.
    #[error("no replica's state is known to be as young as that")]
    TooStale,
}

impl Error {
    /// How long a shard usually needs to find a new leader.
    pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

    /// Nothing happened, because of this; repeat it in a second.
    pub(crate) fn unavailable(why: impl Into<String>) -> Error {
        Error::Unavailable { retry_after: Error::RETRY_AFTER, why: why.into() }
    }
}

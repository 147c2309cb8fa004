//! The bounds of single fields, checked again when a command is applied: what a leader let through by
//! mistake is answered [`Limit::Field`](crate::Limit::Field) on every replica alike.

use crate::{command::*, ids::*, limits, query::Query};

impl Command {
    /// Whether every field is within its bounds. What is not is answered [`Limit::Field`] when it is applied;
    /// whoever asks before spares the queue and the log.
    pub fn is_within_bounds(&self) -> bool {
        match self {
            Command::OpenSession { holder: who, .. } | Command::Confirm { holder: who, .. } => holder(who),
            Command::Acquire(asked) => acquire(asked),
            Command::Renew { lease: length, .. } => lease(*length),
            Command::Break { reason, .. } => label(reason),
            Command::Configure(ask) => configure(ask),
            _ => true,
        }
    }
}

impl Query {
    /// Whether it asks for no more than one question may.
    pub fn is_within_bounds(&self) -> bool {
        match self {
            Query::List { prefix, after, .. } | Query::Configs { prefix, after, .. } => {
                prefix.len() <= limits::NAME_BYTES
                    && after.as_ref().is_none_or(|after| after.len() <= limits::NAME_BYTES)
            }
            Query::Fence { checks } => checks.len() <= limits::FENCE_CHECKS,
            Query::Events { patterns, .. } => {
                patterns.len() <= limits::PATTERNS
                    && patterns.iter().all(|pattern| pattern.name.len() <= limits::NAME_BYTES)
            }
            Query::Config { .. }
            | Query::Versions { .. }
            | Query::Object { .. }
            | Query::Session { .. }
            | Query::Sessions { .. } => true,
        }
    }
}

impl Query {
    /// Whether it asks for a page of objects of which a watch can tell what becomes of them.
    pub fn is_list(&self) -> bool {
        matches!(self, Query::List { .. } | Query::Configs { .. })
    }
}

/// A text for people: client id, candidate id, reason.
pub(crate) fn label(text: &str) -> bool {
    text.len() <= limits::LABEL_BYTES
}

/// Metadata of a session or a grant.
pub(crate) fn metadata(metadata: &Metadata) -> bool {
    metadata.len() <= limits::METADATA_ENTRIES
        && metadata.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() <= limits::METADATA_BYTES
}

/// Who a session is.
pub(crate) fn holder(holder: &Holder) -> bool {
    label(&holder.client_id)
        && (limits::SESSION_TTL_MIN..=limits::SESSION_TTL_MAX).contains(&holder.ttl)
        && metadata(&holder.metadata)
}

/// A lease of a lock, where there is one.
pub(crate) fn lease(lease: Option<Millis>) -> bool {
    lease.is_none_or(|lease| (limits::LEASE_MIN..=limits::LEASE_MAX).contains(&lease))
}

/// How a lock is asked for. Elections have one leader at a time.
pub(crate) fn mode(kind: Kind, mode: Mode) -> bool {
    match (kind, mode) {
        (Kind::Lock | Kind::Election, Mode::Exclusive) => true,
        (Kind::Election | Kind::Config, _) => false,
        (Kind::Lock, Mode::Shared) => true,
        (Kind::Lock, Mode::Semaphore { permits }) => (1..=limits::HOLDERS).contains(&(permits as usize)),
    }
}

/// All fields of an acquire. A candidate must have a name.
pub(crate) fn acquire(acquire: &Acquire) -> bool {
    let candidate = match acquire.key.kind {
        Kind::Lock => true,
        Kind::Election => acquire.value.is_some(),
        Kind::Config => false,
    };
    candidate
        && mode(acquire.key.kind, acquire.mode)
        && (lease(acquire.lease) || crate::planted!("lease-length-unchecked"))
        && acquire.wait <= limits::LEASE_MAX
        && acquire.lock_delay <= limits::LEASE_MAX
        && metadata(&acquire.metadata)
        && acquire.value.as_deref().is_none_or(label)
}

/// What a path is given.
pub(crate) fn content(content: &Content) -> bool {
    label(&content.content_type) && content.value.len() <= limits::CONFIG_VALUE_BYTES
}

/// A change of the configuration.
pub(crate) fn configure(ask: &Configure) -> bool {
    let change = match &ask.change {
        Change::Put(new) => content(new),
        Change::Delete | Change::Rollback { .. } => true,
    };
    change && ask.key.kind == Kind::Config
}

//! The bounds of single fields, checked again when a command is applied: what a leader let through by
//! mistake is answered [`Limit::Field`](crate::Limit::Field) on every replica alike.

use crate::{
    command::*,
    ids::*,
    instance::*,
    limits,
    query::{Pattern, Query, What},
    secret::Secret,
};

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
            Command::Proclaim { key, value, .. } => proclaim(key, value),
            Command::Register(ask) => register(ask),
            Command::Deregister { key, instance, .. } | Command::ReportHealth { key, instance, .. } => {
                id(key, instance)
            }
            Command::SetHook(ask) => set_hook(ask),
            Command::DropHook { key, .. } => key.kind == Kind::Hook,
            Command::SettleDead(ask) => ask.key.kind == Kind::Hook,
            Command::Advance(ask) => advance(ask),
            Command::BreakDeadlock(ask) => {
                matches!(ask.key.kind, Kind::Lock | Kind::Election)
                    && ask.circle.steps.len() <= limits::CIRCLE
                    && ask.circle.steps.iter().all(|step| label(&step.holder))
            }
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
            Query::Service { tag, after, .. } => {
                tag.as_deref().is_none_or(label) && after.as_ref().is_none_or(|after| after.len() <= limits::NAME_BYTES)
            }
            Query::Services { prefix, after, .. } => {
                prefix.len() <= limits::NAME_BYTES
                    && after.as_ref().is_none_or(|after| after.len() <= limits::NAME_BYTES)
            }
            Query::Sample { count, .. } => *count as usize <= limits::SAMPLE,
            Query::Instance { .. }
            | Query::Config { .. }
            | Query::Versions { .. }
            | Query::Object { .. }
            | Query::Session { .. }
            | Query::Sessions { .. }
            | Query::Hook { .. }
            | Query::DeadLetters { .. }
            | Query::Waits { .. } => true,
            Query::Hooks { after, .. } => after.as_ref().is_none_or(|after| after.len() <= limits::NAME_BYTES),
        }
    }
}

impl Query {
    /// Whether it asks for a page of objects of which a watch can tell what becomes of them.
    pub fn is_list(&self) -> bool {
        matches!(self, Query::List { .. } | Query::Configs { .. } | Query::Services { .. } | Query::Service { .. })
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
        (Kind::Election | Kind::Config | Kind::Service | Kind::Hook, _) => false,
        (Kind::Lock, Mode::Shared) => true,
        (Kind::Lock, Mode::Semaphore { permits }) => (1..=limits::HOLDERS).contains(&(permits as usize)),
    }
}

/// All fields of an acquire. A candidate must have a name.
pub(crate) fn acquire(acquire: &Acquire) -> bool {
    let candidate = match acquire.key.kind {
        Kind::Lock => true,
        Kind::Election => acquire.value.is_some(),
        Kind::Config | Kind::Service | Kind::Hook => false,
    };
    candidate
        && mode(acquire.key.kind, acquire.mode)
        && (lease(acquire.lease) || crate::planted!("lease-length-unchecked"))
        && acquire.wait <= limits::LEASE_MAX
        && acquire.lock_delay <= limits::LEASE_MAX
        && metadata(&acquire.metadata)
        && acquire.value.as_deref().is_none_or(label)
}

/// What a leader proclaims. Locks have no value.
pub(crate) fn proclaim(key: &Key, value: &str) -> bool {
    key.kind == Kind::Election && label(value)
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

/// An instance's id in its service.
pub(crate) fn id(key: &Key, id: &Name) -> bool {
    key.kind == Kind::Service && label(id.as_str())
}

/// An instance as it is registered.
pub(crate) fn register(ask: &Register) -> bool {
    id(&ask.key, &ask.instance) && instance(&ask.instance, &ask.spec)
}

/// What an instance says of itself.
pub(crate) fn instance(id: &Name, spec: &InstanceSpec) -> bool {
    told(id, &spec.address, spec.port, &spec.tags) && metadata(&spec.metadata)
}

/// What those who watch are told of an instance.
pub(crate) fn told(id: &Name, at: &str, port: u16, tags: &[String]) -> bool {
    label(id.as_str())
        && address(at)
        && port != 0
        && tags.len() <= limits::TAGS
        && tags.iter().all(|tag| !tag.is_empty() && label(tag))
        && tags.is_sorted_by(|a, b| a < b)
}

/// An IP address, or a host name: letters, digits, hyphens and underscores, between dots.
pub(crate) fn address(text: &str) -> bool {
    let part = |part: &str| {
        (1..=63).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    text.len() <= limits::ADDRESS_BYTES && (text.parse::<std::net::IpAddr>().is_ok() || name.split('.').all(part))
}

/// What a webhook is made of.
pub(crate) fn hook(url: &str, patterns: &[Pattern], secret: &Secret, cursor: &Cursor) -> bool {
    let fits = |pattern: &Pattern| {
        pattern.kind != Kind::Hook
            && pattern.name.len() <= limits::NAME_BYTES
            && (pattern.prefix || !pattern.name.is_empty())
    };
    (1..=limits::HOOK_URL_BYTES).contains(&url.len())
        && url.bytes().all(|byte| byte.is_ascii_graphic())
        && (1..=limits::PATTERNS).contains(&patterns.len())
        && patterns.iter().all(fits)
        && (limits::HOOK_SECRET_BYTES_MIN..=limits::HOOK_SECRET_BYTES).contains(&secret.expose().len())
        && cursor.positions.len() <= limits::HOOK_SHARDS
}

/// A webhook that is to be made.
pub(crate) fn set_hook(ask: &SetHook) -> bool {
    ask.key.kind == Kind::Hook && hook(&ask.url, &ask.patterns, &ask.secret, &ask.cursor)
}

/// A webhook's progress.
pub(crate) fn advance(ask: &Advance) -> bool {
    ask.key.kind == Kind::Hook
        && ask.cursor.positions.len() <= limits::HOOK_SHARDS
        && ask.dead.len() <= limits::DEAD_LETTERS
        && ask.settled.len() <= limits::DEAD_LETTERS
        && ask.dead.iter().all(dead_letter)
        && ask.error.as_deref().is_none_or(label)
}

/// An event that was given up. It may carry a value as events are told with it.
pub(crate) fn dead_letter(letter: &DeadLetter) -> bool {
    let event = letter.event.as_ref().is_none_or(|event| {
        let mut stored = event.clone();
        let value = match &mut stored.what {
            What::Configured { value, .. } => value.take(),
            _ => None,
        };
        stored.revision == letter.revision
            && stored.is_sound()
            && value.is_none_or(|value| value.len() <= limits::EVENT_VALUE_BYTES)
    });
    event && label(&letter.error)
}

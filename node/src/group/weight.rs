//! What requests count for where queues are bounded in bytes: roughly what they take, and never much too little.

use wardlock_machine::{Change, CircleStep, Command, Metadata, Query};
use wardlock_wire::Op;

/// What any request takes beside its texts.
const FIXED: usize = 64;

/// An operation's.
pub fn op(op: &Op) -> usize {
    match op {
        Op::Write(write) => command(write),
        Op::Read(read) | Op::Marked(read) | Op::Watch { query: read, .. } | Op::Stale { query: read, .. } => {
            query(read)
        }
        Op::KeepAlive { .. } => FIXED,
        Op::ReadIndex => FIXED,
    }
}

/// A command's, which is about its size in an entry, too.
pub fn command(command: &Command) -> usize {
    FIXED
        + match command {
            Command::OpenSession { holder, .. } | Command::Confirm { holder, .. } => {
                holder.client_id.len() + metadata(&holder.metadata)
            }
            Command::Acquire(acquire) => {
                let value = acquire.value.as_ref().map_or(0, String::len);
                let value = if wardlock_machine::planted!("requests-unbounded") { 0 } else { value };
                acquire.key.name.as_str().len() + metadata(&acquire.metadata) + value
            }
            Command::ExpireSessions { sessions, .. } => sessions.len() * 20,
            Command::Checkpoint { sessions } => sessions.len() * 24,
            Command::Release { key, .. } | Command::Renew { key, .. } | Command::Cancel { key, .. } => {
                key.name.as_str().len()
            }
            Command::Configure(ask) => {
                let content = match &ask.change {
                    Change::Put(content) => content.content_type.len() + content.value.len(),
                    Change::Delete | Change::Rollback { .. } => 0,
                };
                ask.key.name.as_str().len() + content
            }
            Command::Register(ask) => {
                let tags: usize = ask.spec.tags.iter().map(|tag| tag.len() + 4).sum();
                let texts = ask.spec.address.len() + tags + metadata(&ask.spec.metadata);
                ask.key.name.as_str().len() + ask.instance.as_str().len() + texts
            }
            Command::Deregister { key, instance, .. } | Command::ReportHealth { key, instance, .. } => {
                key.name.as_str().len() + instance.as_str().len()
            }
            Command::Break { key, reason } => key.name.as_str().len() + reason.len(),
            Command::SetHook(ask) => {
                let patterns: usize = ask.patterns.iter().map(|pattern| FIXED + pattern.name.len()).sum();
                let texts = ask.key.name.as_str().len() + ask.url.len() + ask.secret.expose().len();
                texts + patterns + 16 * ask.cursor.positions.len()
            }
            Command::DropHook { key, .. } => key.name.as_str().len(),
            Command::SettleDead(ask) => ask.key.name.as_str().len(),
            Command::Advance(ask) => {
                let dead: usize = ask.dead.iter().map(|letter| letter.weight()).sum();
                ask.key.name.as_str().len() + 16 * (ask.cursor.positions.len() + ask.settled.len()) + dead
            }
            Command::BreakDeadlock(ask) => {
                let step = |step: &CircleStep| FIXED + step.holder.len() + step.key.name.as_str().len();
                ask.key.name.as_str().len() + ask.circle.steps.iter().map(step).sum::<usize>()
            }
            Command::Proclaim { key, value, .. } => key.name.as_str().len() + value.len(),
            _ => 0,
        }
}

/// A query's.
pub fn query(query: &Query) -> usize {
    FIXED + texts(query)
}

fn texts(query: &Query) -> usize {
    match query {
        Query::Object { key }
        | Query::Config { key, .. }
        | Query::Versions { key }
        | Query::Sample { key, .. }
        | Query::Hook { key }
        | Query::DeadLetters { key } => key.name.as_str().len(),
        Query::Hooks { after, .. } => after.as_ref().map_or(0, String::len),
        Query::Service { key, tag, after, .. } => {
            let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
            key.name.as_str().len() + text(tag) + text(after)
        }
        Query::Instance { key, instance } => key.name.as_str().len() + instance.as_str().len(),
        Query::List { prefix, after, .. }
        | Query::Configs { prefix, after, .. }
        | Query::Services { prefix, after, .. } => prefix.len() + after.as_ref().map_or(0, String::len),
        Query::Events { patterns, .. } => patterns.iter().map(|pattern| FIXED + pattern.name.len()).sum(),
        Query::Fence { checks } => checks.iter().map(|(key, _)| FIXED + key.name.as_str().len()).sum(),
        Query::Waits { after } => after.as_ref().map_or(0, |after| after.name.as_str().len()),
        Query::Session { .. } | Query::Sessions { .. } => 0,
    }
}

fn metadata(metadata: &Metadata) -> usize {
    metadata.iter().map(|(key, value)| key.len() + value.len() + 4).sum()
}

#[cfg(test)]
mod tests {
    use wardlock_machine::{
        Acquire, Blob, Configure, Content, Health, Incarnation, InstanceSpec, Key, Millis, Name, Pattern, Register,
        RequestId, SessionId, Version,
    };

    use super::*;

    /// A text that is not counted lets an entry grow beyond what a frame carries, and then no follower gets it.
    #[test]
    fn no_text_of_a_request_goes_uncounted() {
        let text = "x".repeat(900);
        let session = SessionId::new(Incarnation(1), 1);
        let key = Key::election(Name::new(&text).expect("a name"));
        let request = RequestId::Native { seq: 1, low: 1 };
        let acquire = Acquire {
            lease: Some(Millis(1)),
            metadata: Metadata::from([(text.clone(), text.clone())]),
            value: Some(text.clone()),
            ..Acquire::new(session, request, key.clone())
        };
        let list = Query::List {
            kind: key.kind,
            prefix: text.clone(),
            held: None,
            session: None,
            after: Some(text.clone()),
            limit: 1,
        };
        let (instance, health) = (key.name.clone(), Health::Critical);
        let spec = InstanceSpec {
            address: text.clone(),
            port: u16::MAX,
            tags: vec![text.clone(); 32],
            weight: u16::MAX,
            metadata: Metadata::from([(text.clone(), text.clone())]),
        };
        let ops = [
            Op::Write(Command::Register(Register {
                request: u128::MAX,
                key: key.clone(),
                instance: instance.clone(),
                session: SessionId(u128::MAX),
                private: true,
                spec,
                health,
            })),
            Op::Write(Command::Deregister {
                request: u128::MAX,
                key: key.clone(),
                instance: instance.clone(),
                session: Some(SessionId(u128::MAX)),
            }),
            Op::Write(Command::ReportHealth {
                request: u128::MAX,
                key: key.clone(),
                instance: instance.clone(),
                session: SessionId(u128::MAX),
                health,
            }),
            Op::Read(Query::Service {
                key: key.clone(),
                healthy: true,
                tag: Some(text.clone()),
                after: Some(text.clone()),
                limit: u32::MAX,
            }),
            Op::Read(Query::Instance { key: key.clone(), instance }),
            Op::Read(Query::Services { prefix: text.clone(), after: Some(text.clone()), limit: 1 }),
            Op::Read(Query::Sample { key: key.clone(), count: u32::MAX, seed: u64::MAX }),
            Op::Write(Command::Acquire(acquire)),
            Op::Write(Command::Configure(Configure {
                request: u128::MAX,
                key: key.clone(),
                change: Change::Put(Content { content_type: text.clone(), value: Blob::new(text.as_bytes()) }),
                expected: Some(Version(u64::MAX)),
            })),
            Op::Read(Query::Configs { prefix: text.clone(), after: Some(text.clone()), limit: 1 }),
            Op::Write(Command::Proclaim {
                request,
                key: key.clone(),
                lock_id: wardlock_machine::LockId::new(session, wardlock_machine::Token(u64::MAX), &key),
                value: text.clone(),
            }),
            Op::Write(Command::Break { key: key.clone(), reason: text.clone() }),
            Op::Read(list),
            Op::Marked(Query::Configs { prefix: text.clone(), after: Some(text.clone()), limit: 1 }),
            Op::Read(Query::Fence { checks: vec![(key.clone(), wardlock_machine::Token(1)); 9] }),
            Op::Watch {
                query: Query::Events {
                    after: wardlock_machine::Revision(u64::MAX),
                    patterns: vec![Pattern { kind: key.kind, name: "x".repeat(900), prefix: true }; 3],
                    limit: u32::MAX,
                },
                wait_ms: u32::MAX,
            },
            Op::Read(Query::Object { key: key.clone() }),
            Op::Stale { query: Query::Versions { key }, max_age_ms: Some(u32::MAX) },
            Op::ReadIndex,
        ];
        for op in ops {
            let encoded = postcard::to_allocvec(&op).expect("plain data encodes").len();
            assert!(super::op(&op) >= encoded, "{} for {encoded} bytes: {op:?}", super::op(&op));
        }
    }
}

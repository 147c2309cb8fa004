//! What requests count for where queues are bounded in bytes: roughly what they take, and never much too little.

use wardlock_machine::{Change, Command, Metadata, Query};
use wardlock_wire::Op;

/// What any request takes beside its texts.
const FIXED: usize = 64;

/// An operation's.
pub fn op(op: &Op) -> usize {
    match op {
        Op::Write(write) => command(write),
        Op::Read(read) | Op::Marked(read) | Op::Watch { query: read, .. } => FIXED + query(read),
        Op::KeepAlive { .. } => FIXED,
        Op::Observe { key, .. } => FIXED + key.name.as_str().len(),
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
            Command::Break { key, reason } => key.name.as_str().len() + reason.len(),
            _ => 0,
        }
}

fn query(query: &Query) -> usize {
    match query {
        Query::Object { key } | Query::Config { key, .. } | Query::Versions { key } => key.name.as_str().len(),
        Query::List { prefix, after, .. } | Query::Configs { prefix, after, .. } => {
            prefix.len() + after.as_ref().map_or(0, String::len)
        }
        Query::Events { patterns, .. } => patterns.iter().map(|pattern| FIXED + pattern.name.len()).sum(),
        Query::Fence { checks } => checks.iter().map(|(key, _)| FIXED + key.name.as_str().len()).sum(),
        Query::Session { .. } | Query::Sessions { .. } => 0,
    }
}

fn metadata(metadata: &Metadata) -> usize {
    metadata.iter().map(|(key, value)| key.len() + value.len() + 4).sum()
}

#[cfg(test)]
mod tests {
    use wardlock_machine::{
        Acquire, Blob, Configure, Content, Incarnation, Key, Millis, Name, Pattern, RequestId, SessionId, Version,
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
        let ops = [
            Op::Write(Command::Acquire(acquire)),
            Op::Write(Command::Configure(Configure {
                request: u128::MAX,
                key: key.clone(),
                change: Change::Put(Content { content_type: text.clone(), value: Blob::new(text.as_bytes()) }),
                expected: Some(Version(u64::MAX)),
            })),
            Op::Read(Query::Configs { prefix: text.clone(), after: Some(text.clone()), limit: 1 }),
            Op::Write(Command::Break { key: key.clone(), reason: text }),
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
            Op::Read(Query::Object { key }),
        ];
        for op in ops {
            let encoded = postcard::to_allocvec(&op).expect("plain data encodes").len();
            assert!(super::op(&op) >= encoded, "{} for {encoded} bytes: {op:?}", super::op(&op));
        }
    }
}

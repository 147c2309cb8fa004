//! The snapshots of a shard that its machine comes from.

use wardlock_machine::*;

use crate::{
    machine::{Pair, objects},
    within,
};

/// The bytes by which the second version of a snapshot is longer than the first where there is no configuration.
const EMPTY_CONFIGURATION: usize = 4;
/// The bytes by which the third is longer than the second where no event is known: two rings, each without events and
/// with the last revision that is gone.
const NO_EVENTS: usize = 2 * (1 + 10);
/// The bytes by which the fourth is longer than the third where there are no services and no webhooks.
const NO_SERVICES_NO_WEBHOOKS: usize = 3 + 4;

/// A snapshot of a shard as bytes.
///
/// It is refused; or the machine that it makes gives a snapshot that restores to the same, answers what it is
/// asked, and serves on to its end: ticks, releases, breaks, new grants, the end of every session.
pub fn snapshots(data: &[u8]) {
    let restored = within(crate::wire::ample(data.len()), "restoring a machine", || Machine::restore(data));
    let Ok(machine) = restored else { return };
    let bytes = machine.snapshot();
    let version = postcard::from_bytes::<u16>(data).expect("what was restored says its version");
    let added = match version {
        1 => EMPTY_CONFIGURATION + NO_EVENTS + NO_SERVICES_NO_WEBHOOKS,
        2 => NO_EVENTS + NO_SERVICES_NO_WEBHOOKS,
        3 => NO_SERVICES_NO_WEBHOOKS,
        _ => 0,
    };
    assert!(bytes.len() <= data.len() + added, "a state grew by being restored");
    assert!(Machine::restore(&bytes).as_ref() == Ok(&machine), "a snapshot's snapshot differs");

    let mut pair = Pair::new(machine);
    let epoch = pair.asked.epoch();
    let objects = objects(&pair.asked);
    let mut sessions: Vec<SessionId> = pair.asked.open_sessions().map(|open| open.0).collect();
    sessions.extend(pair.asked.closing().map(|closing| closing.0));
    sessions.extend(pair.asked.pendings().map(|pending| pending.0));
    sessions.extend(pair.asked.waiting().map(|waiting| waiting.0));
    sessions.extend(objects.iter().flat_map(|object| object.holders.iter().map(|grant| grant.lock_id.session)));
    sessions.sort_unstable();
    sessions.dedup();
    let mut steps = Vec::new();
    for (at, object) in objects.iter().take(12).enumerate() {
        let key = object.key.clone();
        let request = |more: u64| RequestId::Native { seq: (1 << 40) + 4 * at as u64 + more, low: 0 };
        if let Some(held) = object.holders.first() {
            let lock_id = held.lock_id;
            steps.push(Command::Renew { request: request(0), key: key.clone(), lock_id, lease: Some(Millis(60_000)) });
            steps.push(Command::Release { request: request(1), key: key.clone(), lock_id });
        }
        for session in sessions.iter().take(3) {
            let acquire = Acquire {
                value: Some(String::new()),
                wait: Millis(1_000),
                ..Acquire::new(*session, request(2), key.clone())
            };
            steps.push(Command::Acquire(acquire));
        }
        if at % 2 == 0 {
            steps.push(Command::Break { key, reason: String::new() });
        }
    }
    steps.push(Command::Tick);
    let now = pair.asked.now().0;
    for (at, commands) in
        [(now, steps), (now.saturating_add(5_000), vec![Command::Tick]), (u64::MAX, vec![Command::Tick])]
    {
        pair.apply(Term(1), Batch { at: Stamp(at), wall: WallMs(at), epoch, commands });
    }
    pair.check();
    let ends = sessions.iter().take(40).flat_map(|session| {
        [
            Command::CloseSession { session: *session },
            Command::Drop { session: *session, reason: EndReason::SessionClosed },
        ]
    });
    let range = pair.asked.range().unwrap_or((0, u64::MAX));
    let next = Command::SetRange {
        first: range.0,
        last: range.1,
        epoch: RangeEpoch(epoch.0.saturating_add(1)),
        incarnation: Incarnation(u16::MAX),
    };
    let commands = ends.chain([next, Command::Tick]).collect();
    pair.apply(Term(1), Batch { at: Stamp(u64::MAX), wall: WallMs(0), epoch, commands });
    pair.check();
}

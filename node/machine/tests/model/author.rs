//! Makes commands of acts: it knows from the model what there is to speak of.

use wardlock_machine::*;

use crate::{
    model::{Header, Model},
    ops::{self, Asks, Entry, Op, Passes, Picks, SESSIONS, Terms},
};

/// What the clients of a history remember.
#[derive(Debug, Default)]
pub(crate) struct Author {
    /// The last number of each session.
    last: [u64; SESSIONS as usize + 1],
    last_key: u128,
    /// All that was sent, for retries.
    sent: Vec<Command>,
    term: u64,
}

/// Which session this is, of whatever incarnation.
fn number(session: SessionId) -> u8 {
    (session.0 & 0xff) as u8 - 100
}

fn holder(number: u8) -> Holder {
    let mut metadata = Metadata::from([("host".to_owned(), format!("h{number}"))]);
    if number.is_multiple_of(2) {
        metadata.insert(SERIAL.to_owned(), "true".to_owned());
    }
    Holder { client_id: format!("c{number}"), ttl: Millis(10_000), metadata }
}

/// What happens before every history: the shard gets its range, and most sessions come in.
pub(crate) fn prologue(model: &Model) -> Vec<Command> {
    let Some((_, _)) = model.range else {
        let (epoch, incarnation) = (RangeEpoch(1), Incarnation(1));
        return vec![Command::SetRange { first: 0, last: u64::MAX, epoch, incarnation }];
    };
    let session = |number| ops::session(Incarnation(1), number);
    if model.asking.is_empty() {
        let pends = (0..SESSIONS - 1).map(|number| Command::Pend { session: session(number) });
        let opens =
            (0..SESSIONS - 1).map(|number| Command::OpenSession { session: session(number), holder: holder(number) });
        return pends.chain(opens).collect();
    }
    let confirm = |(session, nonce): &(SessionId, Nonce)| Command::Confirm {
        session: *session,
        nonce: *nonce,
        holder: holder(number(*session)),
    };
    model.asking.iter().map(confirm).collect()
}

impl Author {
    pub(crate) fn header(&mut self, entry: &Entry, model: &Model) -> Header {
        let at = match entry.passes {
            Passes::By(length) => model.now.after(Millis(length)),
            Passes::Back(length) => Stamp(model.now.0.saturating_sub(length)),
            Passes::ToTheNextEnd(beside) => {
                let end = model.next_end().unwrap_or(model.now);
                Stamp(end.0.saturating_add_signed(beside.into()))
            }
        };
        self.term = self.term.max(1) + u64::from(entry.new_term);
        Header {
            at,
            wall: WallMs(1_000_000_000 + at.0 + u64::from(entry.wall)),
            term: Term(self.term),
            epoch: RangeEpoch(model.epoch.0.saturating_add_signed(entry.epoch.into())),
        }
    }

    pub(crate) fn command(&mut self, op: &Op, model: &Model) -> Command {
        let command = self.make(op, model);
        self.sent.push(command.clone());
        command
    }

    fn request(&mut self, who: u8, asks: &Asks) -> RequestId {
        match *asks {
            Asks::Next(lag) => {
                let last = &mut self.last[usize::from(who)];
                *last += 1;
                RequestId::Native { seq: *last, low: last.saturating_sub(lag.into()).max(1) }
            }
            Asks::NextKeyed => {
                self.last_key += 1;
                RequestId::Keyed { key: 100 + self.last_key }
            }
            Asks::Native(seq, low) => RequestId::Native { seq: seq.into(), low: low.into() },
            Asks::Keyed(key) => RequestId::Keyed { key: key.into() },
        }
    }

    fn make(&mut self, op: &Op, model: &Model) -> Command {
        let session = |number: u8| ops::session(model.incarnation, number);
        let key = |number: u8| ops::keys()[usize::from(number)].clone();
        match op {
            // Who is not in mostly comes in first.
            Op::Acquire { who, terms, .. } if terms.mode > 0 && model.guest(session(*who)).is_none() => {
                self.make(&Op::Join { who: *who }, model)
            }
            Op::Acquire { who, on, terms, asks } => {
                let request = self.request(*who, asks);
                Command::Acquire(acquire(session(*who), request, key(*on), terms))
            }
            Op::Release { who, on, picks, asks } => {
                let (key, lock_id) = pick(model, session(*who), key(*on), picks);
                Command::Release { request: self.request(number(lock_id.session), asks), key, lock_id }
            }
            Op::Renew { who, on, picks, lease, asks } => {
                let (key, lock_id) = pick(model, session(*who), key(*on), picks);
                Command::Renew { request: self.request(number(lock_id.session), asks), key, lock_id, lease: *lease }
            }
            Op::Proclaim { who, on, picks, value, asks } => {
                let (key, lock_id) = pick(model, session(*who), key(*on), picks);
                let value = if *value == 0 { "v".repeat(limits::LABEL_BYTES + 1) } else { format!("stage {value}") };
                Command::Proclaim { request: self.request(number(lock_id.session), asks), key, lock_id, value }
            }
            Op::Retry { back, low } => {
                let Some(index) = self.sent.len().checked_sub(1 + usize::from(*back)) else { return Command::Tick };
                again(self.sent[index].clone(), *low)
            }
            Op::Break { on, odd } => {
                let reason = if *odd { "x".repeat(limits::LABEL_BYTES + 1) } else { "stuck".to_owned() };
                Command::Break { key: key(*on), reason }
            }
            Op::Cancel { who, on, asks } => {
                let (session, key) = (session(*who), key(*on));
                let waits = model.waiting.iter().find(|waiter| waiter.ask.session == session && waiter.ask.key == key);
                let holds = model.holders(&key).find(|held| held.session() == session);
                let known = waits.map(|waiter| waiter.ask.request).or(holds.map(|held| held.request));
                let request = match asks {
                    Some(asks) => self.request(*who, asks),
                    None => known.unwrap_or(RequestId::Keyed { key: 0 }),
                };
                Command::Cancel { session, request, key }
            }
            Op::BreakDeadlock { who, on, late } => {
                let (mut session, mut key) = (session(*who), key(*on));
                let waits = model.waiting.iter().find(|waiter| waiter.ask.session == session && waiter.ask.key == key);
                let waits = waits.or(model.waiting.first());
                waits.inspect(|waiter| (session, key) = (waiter.ask.session, waiter.ask.key.clone()));
                let arrival = waits.map_or(1, |waiter| waiter.arrival) - u64::from(*late);
                let steps = vec![CircleStep { session, holder: "c".to_owned(), key: key.clone() }];
                Command::BreakDeadlock(BreakDeadlock { key, session, arrival, circle: Circle { steps, length: 1 } })
            }
            Op::Configure(act) => {
                self.last_key += 1;
                act.command(model, 100 + self.last_key)
            }
            Op::Serve(act) => {
                self.last_key += 1;
                act.command(model, 100 + self.last_key)
            }
            Op::Hook(act) => {
                self.last_key += 1;
                act.command(model, 100 + self.last_key)
            }
            Op::Tick => Command::Tick,
            Op::Join { who } => {
                let session = session(*who);
                match model.asking.iter().find(|asking| asking.0 == session) {
                    Some((_, nonce)) => Command::Confirm { session, nonce: *nonce, holder: holder(*who) },
                    None => Command::Pend { session },
                }
            }
            Op::Confirm { who, nonce, odd } => {
                let ttl = if *odd { Millis(limits::SESSION_TTL_MIN.0 - 1) } else { Millis(10_000) };
                let nonce = Nonce(model.last_nonce.0.saturating_sub((*nonce).into()));
                Command::Confirm { session: session(*who), nonce, holder: Holder { ttl, ..holder(*who) } }
            }
            Op::Unpend { who, nonce } => {
                let session = session(*who);
                let known = model.asking.iter().find(|asking| asking.0 == session).map_or(Nonce(1), |asking| asking.1);
                Command::Unpend { session, nonce: Nonce(known.0 - u64::from(*nonce)) }
            }
            Op::Drop { who, expired } => {
                let reason = if *expired { EndReason::SessionExpired } else { EndReason::SessionClosed };
                // Sessions of an older incarnation hold on until their homes tell of their end.
                let old = model.guests.iter().find(|guest| guest.id.incarnation() < model.incarnation);
                let session = old.filter(|_| *expired).map_or(session(*who), |old| old.id);
                Command::Drop { session, reason }
            }
            Op::Open { who, as_other, odd } => {
                let ttl = if *odd { Millis(limits::SESSION_TTL_MAX.0 + 1) } else { Millis(10_000) };
                let holder = Holder { ttl, ..holder(who + u8::from(*as_other)) };
                Command::OpenSession { session: session(*who), holder }
            }
            Op::Close { who } => Command::CloseSession { session: session(*who) },
            Op::Expire { who, also, late } => Command::ExpireSessions {
                sessions: vec![session(*who), session(*also)],
                term: Term(self.term - u64::from(*late && self.term > 1)),
            },
            Op::Checkpoint { who, left } => {
                Command::Checkpoint { sessions: vec![(session(*who), *left), (session(SESSIONS), None)] }
            }
            Op::Attach { who, shard } => Command::Attach { session: session(*who), shard: ShardId((*shard).into()) },
            Op::Detached { who, shard } => {
                Command::Detached { session: session(*who), shard: ShardId((*shard).into()) }
            }
            Op::Range { up, incarnation, whole } => Command::SetRange {
                first: if *whole { 0 } else { 1 << 62 },
                last: if *whole || *up < 2 { u64::MAX } else { 1 << 61 },
                epoch: RangeEpoch(model.epoch.0.saturating_add_signed((*up).into())),
                incarnation: Incarnation(model.incarnation.0 + u16::from(*incarnation)),
            },
        }
    }
}

/// Breaks one bound where `odd` names one.
fn acquire(session: SessionId, request: RequestId, key: Key, terms: &Terms) -> Acquire {
    let election = key.kind == Kind::Election;
    let mut ask = Acquire {
        session,
        request,
        mode: match terms.mode {
            _ if election => Mode::Exclusive,
            0..3 => Mode::Exclusive,
            3..5 => Mode::Shared,
            5..8 => Mode::Semaphore { permits: 2 },
            _ => Mode::Semaphore { permits: 3 },
        },
        key,
        lease: terms.lease,
        wait: terms.wait,
        priority: terms.priority,
        lock_delay: terms.delay,
        metadata: Metadata::new(),
        value: election.then(|| format!("candidate {}", terms.priority)),
    };
    if terms.metadata {
        ask.metadata =
            Metadata::from([("host", "other"), ("why", "because")].map(|(a, b)| (a.to_owned(), b.to_owned())));
    }
    match terms.odd {
        0 => ask.wait = Millis(limits::LEASE_MAX.0 + 1),
        1 => ask.lock_delay = Millis(limits::LEASE_MAX.0 + 1),
        2 => ask.mode = Mode::Semaphore { permits: 0 },
        3 => ask.mode = Mode::Semaphore { permits: limits::HOLDERS as u32 + 1 },
        4 => ask.value = Some("v".repeat(limits::LABEL_BYTES + 1)),
        5 => ask.metadata = Metadata::from([("k".to_owned(), "m".repeat(limits::METADATA_BYTES))]),
        6 => ask.metadata = (0..=limits::METADATA_ENTRIES).map(|n| (n.to_string(), String::new())).collect(),
        7 => ask.value = None,
        8 if election => ask.mode = Mode::Shared,
        _ => {}
    }
    ask
}

/// A key and a lock id to speak of; mostly they belong together.
fn pick(model: &Model, session: SessionId, key: Key, picks: &Picks) -> (Key, LockId) {
    let made_up = LockId::new(session, Token(1), &key);
    match picks {
        Picks::Own => {
            let own = model.holders(&key).find(|held| held.session() == session);
            let any = || model.holders(&key).next().or(model.held.first());
            own.or_else(any).map_or((key.clone(), made_up), |held| (held.key.clone(), held.grant.lock_id))
        }
        Picks::Held(index) if !model.held.is_empty() => (key, index.get(&model.held).grant.lock_id),
        Picks::Given(index) if !model.given.is_empty() => {
            let lock_id = *index.get(&model.given);
            let of = ops::keys().into_iter().find(|key| KeyTag::of(key) == lock_id.tag);
            (of.unwrap_or(key), lock_id)
        }
        Picks::Stolen(index) if !model.held.is_empty() => {
            let held = index.get(&model.held);
            (held.key.clone(), LockId { session, ..held.grant.lock_id })
        }
        Picks::MadeUp(token) => {
            let lock_id = LockId::new(session, Token((*token).into()), &key);
            (key, lock_id)
        }
        Picks::Held(_) | Picks::Given(_) | Picks::Stolen(_) => (key, made_up),
    }
}

/// The same request once more, perhaps with a low that was raised meanwhile.
fn again(mut command: Command, raised: Option<u8>) -> Command {
    let request = match &mut command {
        Command::Acquire(acquire) => Some(&mut acquire.request),
        Command::Release { request, .. }
        | Command::Renew { request, .. }
        | Command::Cancel { request, .. }
        | Command::Proclaim { request, .. } => Some(request),
        _ => None,
    };
    if let (Some(RequestId::Native { seq, low }), Some(by)) = (request, raised) {
        *low = (*low + u64::from(by)).min(*seq);
    }
    command
}

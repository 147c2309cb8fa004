//! Locks and elections in the model: asking, holding, waiting, losing.

use std::cmp::Reverse;

use wardlock_machine::*;

use crate::{
    answers::{Kept, Known},
    model::{Model, is_label, is_metadata},
};

/// A grant that is held.
#[derive(Clone, Debug)]
pub(crate) struct Holding {
    pub(crate) key: Key,
    pub(crate) grant: Grant,
    pub(crate) request: RequestId,
    pub(crate) lock_delay: Millis,
    /// From when its lease counts.
    pub(crate) from: Stamp,
    /// It came out of a queue, and its client has not shown that it knows.
    pub(crate) unfetched: bool,
}

impl Holding {
    pub(crate) fn token(&self) -> Token {
        self.grant.lock_id.token
    }

    pub(crate) fn session(&self) -> SessionId {
        self.grant.lock_id.session
    }

    pub(crate) fn until(&self) -> Option<Stamp> {
        self.grant.lease.map(|lease| self.from.after(lease))
    }
}

/// A request that waits.
#[derive(Clone, Debug)]
pub(crate) struct Waiter {
    pub(crate) ask: Acquire,
    /// Which place this is of all that were ever taken.
    pub(crate) arrival: u64,
    pub(crate) since: Stamp,
    pub(crate) since_wall: WallMs,
    pub(crate) until: Stamp,
}

/// A lock that is closed after a loss.
#[derive(Clone, Debug)]
pub(crate) struct Delay {
    pub(crate) key: Key,
    pub(crate) until: Stamp,
    pub(crate) until_wall: WallMs,
}

/// What a lock id is to the lock that it was sent with.
enum Claim {
    Holds,
    GaveBack,
    Past,
    Foreign,
    /// It was never given out, and the shard need not know: see the model's freedoms.
    MadeUp,
}

impl Model {
    /// Who holds a lock, eldest first.
    pub(crate) fn holders<'a>(&'a self, key: &'a Key) -> impl Iterator<Item = &'a Holding> {
        self.held.iter().filter(move |held| held.key == *key)
    }

    /// Who waits for a lock, next in line first.
    pub(crate) fn queue(&self, key: &Key) -> Vec<&Waiter> {
        let mut queue: Vec<&Waiter> = self.waiting.iter().filter(|waiter| waiter.ask.key == *key).collect();
        queue.sort_by_key(|waiter| Reverse(waiter.ask.priority));
        queue
    }

    pub(crate) fn delay(&self, key: &Key) -> Option<&Delay> {
        self.delays.iter().find(|delay| delay.key == *key)
    }

    pub(crate) fn blocked(&self, key: &Key) -> Blocked {
        Blocked {
            holders: self.holders(key).take(limits::SHOWN).map(|held| held.grant.clone()).collect(),
            holder_count: self.holders(key).count() as u32,
            waiters: self.queue(key).len() as u32,
            lock_delay_until: self.delay(key).map(|delay| delay.until_wall),
        }
    }

    pub(crate) fn metadata(&self, ask: &Acquire) -> Metadata {
        let guest = self.guest(ask.session).expect("who holds or waits is attached");
        let mut metadata = guest.holder.metadata.clone();
        metadata.extend(ask.metadata.clone());
        metadata
    }

    fn position(&self, session: SessionId, key: &Key) -> u32 {
        let index = self.queue(key).iter().position(|waiter| waiter.ask.session == session);
        index.expect("it waits") as u32 + 1
    }

    /// Whether one more may hold a lock in this mode, beside those who do.
    pub(crate) fn goes_with_the_holders(&self, key: &Key, mode: Mode) -> bool {
        let count = self.holders(key).count();
        match mode {
            Mode::Exclusive => count == 0,
            Mode::Shared => self.holders(key).all(|held| held.grant.mode == Mode::Shared),
            Mode::Semaphore { permits } => count < permits as usize,
        }
    }

    fn has_tokens(&self) -> bool {
        self.last_token.0 + 1 < limits::TOKEN_END
    }

    fn change(&mut self, key: &Key, what: What) {
        self.happened(key, what);
        self.changes.push((key.clone(), self.revision));
    }

    /// A candidate that comes to wait is told to whoever watches the election.
    fn enrolled(&mut self, ask: &Acquire) {
        if let (Kind::Election, Some(value)) = (ask.key.kind, ask.value.clone()) {
            let holder = self.guest(ask.session).expect("only who is attached waits").holder.client_id.clone();
            self.happened(&ask.key, What::Enrolled { session: ask.session, holder, value, priority: ask.priority });
        }
    }

    fn settle(&mut self, ask: &Acquire, outcome: Outcome) {
        let settled = Settled { session: ask.session, request: ask.request, key: ask.key.clone(), outcome };
        self.effects.settled.push(settled);
    }

    fn give(&mut self, ask: Acquire, waited: Option<Millis>) -> Grant {
        self.last_token.0 += 1;
        let holder = self.guest(ask.session).expect("only who is attached is granted").holder.clone();
        let lock_id = LockId::new(ask.session, self.last_token, &ask.key);
        let (mode, value) = (ask.mode, ask.value.clone());
        self.change(&ask.key, What::Granted { lock_id, mode, holder: holder.client_id.clone(), value });
        let grant = Grant {
            lock_id,
            holder: holder.client_id,
            mode: ask.mode,
            lease: ask.lease,
            session_ttl: holder.ttl,
            acquired: self.wall,
            expires: ask.lease.map(|lease| self.wall.after(lease)),
            waited: waited.unwrap_or(Millis(0)),
            value: ask.value.clone(),
            metadata: self.metadata(&ask),
            revision: self.revision,
        };
        self.given.push(grant.lock_id);
        self.keep(ask.session, ask.request, Kept::Granted(self.last_token));
        self.held.push(Holding {
            key: ask.key,
            grant: grant.clone(),
            request: ask.request,
            lock_delay: ask.lock_delay,
            from: self.now,
            unfetched: waited.is_some(),
        });
        grant
    }

    /// Takes a grant from its holder. Only a loss closes the lock, for the longest delay that was asked for.
    pub(crate) fn end(&mut self, token: Token, reason: EndReason) {
        let index = self.held.iter().position(|held| held.token() == token).expect("it is held");
        let gone = self.held.remove(index);
        match reason {
            EndReason::Released => self.guest_mut(gone.session()).expect("it is attached").gave_back(token),
            _ => self.effects.lost.push(reason),
        }
        let lost = reason == EndReason::LeaseExpired || reason == EndReason::SessionExpired;
        let until = self.now.after(gone.lock_delay);
        if lost && gone.lock_delay > Millis(0) && self.delay(&gone.key).is_none_or(|delay| delay.until < until) {
            self.delays.retain(|delay| delay.key != gone.key);
            let until_wall = self.wall.after(gone.lock_delay);
            self.delays.push(Delay { key: gone.key.clone(), until, until_wall });
        }
        self.change(&gone.key, What::Ended { lock_id: gone.grant.lock_id, reason });
    }

    /// Takes a request out of its queue and tells it why.
    pub(crate) fn leave(&mut self, waiter: &Waiter, outcome: Outcome) {
        let (session, key) = (waiter.ask.session, &waiter.ask.key);
        self.waiting.retain(|other| other.ask.session != session || other.ask.key != *key);
        self.settle(&waiter.ask, outcome);
    }

    /// Gives a lock to those who are next in line, as far as it goes.
    pub(crate) fn serve(&mut self, key: &Key) {
        let now = self.now;
        self.delays.retain(|delay| delay.key != *key || delay.until > now);
        while let Some(first) = self.queue(key).first().copied().cloned() {
            let open = self.delay(key).is_none() && self.has_tokens();
            if !open || !self.goes_with_the_holders(key, first.ask.mode) {
                break;
            }
            let session = first.ask.session;
            self.waiting.retain(|other| other.ask.session != session || other.ask.key != *key);
            let grant = self.give(first.ask.clone(), Some(now.since(first.since)));
            self.settle(&first.ask, Outcome::Granted(grant));
        }
    }

    pub(crate) fn acquire(&mut self, ask: &Acquire) -> Outcome {
        let (session, request, key) = (ask.session, ask.request, &ask.key);
        if !is_acquire(ask) {
            return Outcome::Limit(Limit::Field);
        }
        if self.guest(session).is_none() {
            return Outcome::NotAttached;
        }
        let too_old = match self.known(session, request) {
            Known::Before(kept) => return self.tell(kept, key),
            Known::TooOld => true,
            Known::New => false,
        };
        let waits = self.waiting.iter().find(|waiter| waiter.ask.session == session && waiter.ask.key == *key).cloned();
        let holds = self.holders(key).find(|held| held.session() == session).cloned();

        // A retry meets its waiter or its grant, however old it is.
        if waits.as_ref().is_some_and(|waiter| waiter.ask.request.is_same(&request)) {
            return Outcome::Queued { position: self.position(session, key) };
        }
        if let Some(held) = holds.as_ref().filter(|held| held.request.is_same(&request)) {
            return Outcome::Granted(held.grant.clone());
        }
        if too_old {
            return Outcome::TooOld;
        }
        if let Some(held) = holds {
            return self.keep_and_tell(session, request, Kept::AlreadyHeld(held.token()), key);
        }
        if let Some(waiter) = waits {
            let same = waiter.ask.mode == ask.mode && waiter.ask.priority == ask.priority;
            self.keep(session, waiter.ask.request, Kept::Cancelled);
            if same && ask.wait > Millis(0) {
                // The session keeps its place under the new request's terms, and the request has waited since now: its
                // client reckons its lease by that.
                self.settle(&waiter.ask, Outcome::Cancelled);
                let until = self.now.after(ask.wait);
                for own in self.waiting.iter_mut().filter(|own| own.ask.session == session && own.ask.key == *key) {
                    (own.ask, own.until, own.since) = (ask.clone(), until, self.now);
                }
                if waiter.ask.value != ask.value {
                    self.enrolled(ask);
                }
                return Outcome::Queued { position: self.position(session, key) };
            }
            self.leave(&waiter, Outcome::Cancelled);
        }
        self.acquire_anew(ask)
    }

    /// The session neither holds the lock nor waits for it.
    fn acquire_anew(&mut self, ask: &Acquire) -> Outcome {
        let (session, request, key) = (ask.session, ask.request, &ask.key);
        self.serve(key);
        let first = self.holders(key).map(|held| held.grant.mode).next();
        let in_use = first.or_else(|| self.queue(key).first().map(|waiter| waiter.ask.mode));
        if let Some(mode) = in_use.filter(|mode| !are_of_one_kind(*mode, ask.mode)) {
            return self.keep_and_tell(session, request, Kept::Mismatch(mode), key);
        }
        let nobody_before = self.queue(key).iter().all(|waiter| waiter.ask.priority < ask.priority);
        if self.delay(key).is_none() && nobody_before && self.goes_with_the_holders(key, ask.mode) {
            if !self.has_tokens() {
                return Outcome::Limit(Limit::Tokens);
            }
            return Outcome::Granted(self.give(ask.clone(), None));
        }
        if ask.wait == Millis(0) {
            return self.keep_and_tell(session, request, Kept::Held, key);
        }
        self.enrolled(ask);
        self.arrivals += 1;
        self.waiting.push(Waiter {
            ask: ask.clone(),
            arrival: self.arrivals,
            since: self.now,
            since_wall: self.wall,
            until: self.now.after(ask.wait),
        });
        Outcome::Queued { position: self.position(session, key) }
    }

    fn claim(&self, key: &Key, lock_id: LockId) -> Claim {
        let own = LockId::new(lock_id.session, lock_id.token, key) == lock_id;
        let held = self.held.iter().find(|held| held.token() == lock_id.token);
        let gave_back = self.guest(lock_id.session).is_some_and(|guest| guest.given_back.contains(&lock_id.token));
        match held {
            Some(held) if held.key == *key && held.grant.lock_id == lock_id => Claim::Holds,
            Some(_) => Claim::Foreign,
            None if !own || lock_id.token == Token(0) || lock_id.token > self.last_token => Claim::Foreign,
            None if !self.given.contains(&lock_id) => Claim::MadeUp,
            None if gave_back => Claim::GaveBack,
            None => Claim::Past,
        }
    }

    /// The machine's word for a lock id that nobody was given, if it is one of those that it may say.
    fn made_up(&mut self, lock_id: LockId, seen: &Outcome, may_say_released: bool) -> Kept {
        self.freedoms += 1;
        let gave_back = self.guest(lock_id.session).is_some_and(|guest| guest.given_back.contains(&lock_id.token));
        match seen {
            Outcome::Released if may_say_released && gave_back => Kept::Released,
            Outcome::Expired => Kept::Expired,
            _ => Kept::Foreign,
        }
    }

    pub(crate) fn release(&mut self, request: RequestId, key: &Key, lock_id: LockId, seen: &Outcome) -> Outcome {
        let session = lock_id.session;
        let too_old = match self.known(session, request) {
            Known::Before(kept) => return self.tell(kept, key),
            Known::TooOld => true,
            Known::New => false,
        };
        let kept = match self.claim(key, lock_id) {
            // The lock id proves what was done, however old the request is.
            Claim::GaveBack => Kept::Released,
            Claim::MadeUp if too_old && *seen == Outcome::Released => self.made_up(lock_id, seen, true),
            _ if too_old => return Outcome::TooOld,
            Claim::Holds => {
                self.end(lock_id.token, EndReason::Released);
                self.serve(key);
                Kept::Released
            }
            Claim::Past => Kept::Expired,
            Claim::Foreign => Kept::Foreign,
            Claim::MadeUp => self.made_up(lock_id, seen, true),
        };
        self.keep_and_tell(session, request, kept, key)
    }

    pub(crate) fn renew(
        &mut self,
        request: RequestId,
        key: &Key,
        lock_id: LockId,
        lease: Option<Millis>,
        seen: &Outcome,
    ) -> Outcome {
        let session = lock_id.session;
        if !is_lease(lease) {
            return Outcome::Limit(Limit::Field);
        }
        match self.known(session, request) {
            Known::Before(kept) => return self.tell(kept, key),
            Known::TooOld => return Outcome::TooOld,
            Known::New => {}
        }
        let kept = match self.claim(key, lock_id) {
            Claim::Holds => {
                let (now, wall) = (self.now, self.wall);
                for held in self.held.iter_mut().filter(|held| held.grant.lock_id == lock_id) {
                    held.grant.lease = lease.or(held.grant.lease);
                    held.grant.expires = held.grant.lease.map(|lease| wall.after(lease));
                    held.from = now;
                    held.unfetched = false;
                }
                Kept::Renewed(lock_id.token)
            }
            Claim::GaveBack | Claim::Past => Kept::Expired,
            Claim::Foreign => Kept::Foreign,
            Claim::MadeUp => self.made_up(lock_id, seen, false),
        };
        self.keep_and_tell(session, request, kept, key)
    }

    /// Only the value changes, and only while the grant is held.
    pub(crate) fn proclaim(
        &mut self,
        request: RequestId,
        key: &Key,
        lock_id: LockId,
        value: &str,
        seen: &Outcome,
    ) -> Outcome {
        let session = lock_id.session;
        if key.kind != Kind::Election || !is_label(value) {
            return Outcome::Limit(Limit::Field);
        }
        match self.known(session, request) {
            Known::Before(kept) => return self.tell(kept, key),
            Known::TooOld => return Outcome::TooOld,
            Known::New => {}
        }
        let kept = match self.claim(key, lock_id) {
            Claim::Holds => {
                let held = self.held.iter_mut().find(|held| held.grant.lock_id == lock_id).expect("it is held");
                held.unfetched = false;
                held.grant.value = Some(value.to_owned());
                let (holder, acquired) = (held.grant.holder.clone(), held.grant.acquired);
                self.change(key, What::Proclaimed { lock_id, holder, value: value.to_owned(), acquired });
                Kept::Renewed(lock_id.token)
            }
            Claim::GaveBack | Claim::Past => Kept::Expired,
            Claim::Foreign => Kept::Foreign,
            Claim::MadeUp => self.made_up(lock_id, seen, false),
        };
        self.keep_and_tell(session, request, kept, key)
    }

    /// The operator's word: nobody holds it, no delay runs, the queue goes on.
    pub(crate) fn break_open(&mut self, key: &Key, reason: &str) -> Outcome {
        if !is_label(reason) {
            return Outcome::Limit(Limit::Field);
        }
        let broken: Vec<Grant> = self.holders(key).map(|held| held.grant.clone()).collect();
        for grant in broken.iter().rev() {
            self.end(grant.lock_id.token, EndReason::Broken);
        }
        self.delays.retain(|delay| delay.key != *key);
        self.serve(key);
        Outcome::Broken(broken)
    }

    /// A request that waits leaves; a grant out of the queue that nobody has fetched goes back.
    pub(crate) fn cancel(&mut self, session: SessionId, request: RequestId, key: &Key) -> Outcome {
        let asks = |ask: &Acquire| ask.session == session && ask.key == *key && ask.request.is_same(&request);
        let waits = self.waiting.iter().find(|waiter| asks(&waiter.ask)).cloned();
        let own = |held: &&Holding| held.session() == session && held.request.is_same(&request) && held.unfetched;
        let unfetched = self.holders(key).find(own).map(Holding::token);
        if let Some(waiter) = waits {
            self.leave(&waiter, Outcome::Cancelled);
        } else if let Some(token) = unfetched {
            self.end(token, EndReason::Unfetched);
        } else {
            return Outcome::Done;
        }
        self.keep(session, request, Kept::Cancelled);
        self.serve(key);
        Outcome::Done
    }

    /// Everything that runs, with its end: of what ends at one moment the first comes first.
    fn ends(&self) -> Vec<(Stamp, End)> {
        let mut ends = Vec::new();
        ends.extend(self.held.iter().filter_map(|held| Some((held.until()?, End::Lease(held.token())))));
        let mut delays = self.delays.clone();
        delays.sort_by(|a, b| a.key.cmp(&b.key));
        ends.extend(delays.into_iter().map(|delay| (delay.until, End::Delay(delay.key))));
        let mut waiting = self.waiting.clone();
        waiting.sort_by_key(|waiter| Reverse(waiter.ask.priority));
        ends.extend(waiting.into_iter().map(|waiter| (waiter.until, End::Wait(Box::new(waiter)))));
        for guest in &self.guests {
            for answer in guest.answers.iter().filter(|answer| matches!(answer.request, RequestId::Keyed { .. })) {
                ends.push((answer.until, End::Answer(guest.id, answer.request)));
            }
        }
        ends.sort_by_key(|end| end.0);
        ends
    }

    pub(crate) fn next_end(&self) -> Option<Stamp> {
        self.ends().first().map(|end| end.0)
    }

    /// Ends what is due, one after the other: what one end brings about comes before the next.
    pub(crate) fn tick(&mut self) -> Outcome {
        for _ in 0..limits::PAGE {
            let Some((_, end)) = self.ends().into_iter().next().filter(|end| end.0 <= self.now) else { break };
            match end {
                End::Lease(token) => {
                    let key = self.held.iter().find(|held| held.token() == token).expect("it is held").key.clone();
                    self.end(token, EndReason::LeaseExpired);
                    self.serve(&key);
                }
                End::Delay(key) => self.serve(&key),
                End::Wait(waiter) => {
                    self.keep(waiter.ask.session, waiter.ask.request, Kept::WaitTimeout);
                    // Who is told is not among those who wait.
                    let blocked = self.blocked(&waiter.ask.key);
                    let blocked = Blocked { waiters: blocked.waiters - 1, ..blocked };
                    self.leave(&waiter, Outcome::WaitTimeout(blocked));
                    self.serve(&waiter.ask.key);
                }
                End::Answer(session, request) => {
                    let guest = self.guest_mut(session).expect("it is attached");
                    guest.answers.retain(|answer| !answer.request.is_same(&request));
                }
            }
        }
        Outcome::Done
    }
}

/// What a tick may end.
enum End {
    Lease(Token),
    Delay(Key),
    Wait(Box<Waiter>),
    Answer(SessionId, RequestId),
}

/// Semaphores go with semaphores of the same size, all else with all else.
fn are_of_one_kind(a: Mode, b: Mode) -> bool {
    let permits = |mode| match mode {
        Mode::Semaphore { permits } => Some(permits),
        Mode::Exclusive | Mode::Shared => None,
    };
    permits(a) == permits(b)
}

fn is_lease(lease: Option<Millis>) -> bool {
    lease.is_none_or(|lease| lease >= limits::LEASE_MIN && lease <= limits::LEASE_MAX)
}

fn is_acquire(ask: &Acquire) -> bool {
    let mode = match (ask.key.kind, ask.mode) {
        (Kind::Election, mode) => mode == Mode::Exclusive && ask.value.is_some(),
        (Kind::Lock, Mode::Semaphore { permits }) => permits >= 1 && permits as usize <= limits::HOLDERS,
        (Kind::Lock, _) => true,
        (Kind::Config | Kind::Service | Kind::Hook, _) => false,
    };
    let lengths = ask.wait <= limits::LEASE_MAX && ask.lock_delay <= limits::LEASE_MAX && is_lease(ask.lease);
    mode && lengths && is_metadata(&ask.metadata) && ask.value.as_deref().is_none_or(is_label)
}

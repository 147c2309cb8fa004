//! One lock or election: who holds it, who waits, whether it is closed after a loss.

use serde::{Deserialize, Serialize};

use crate::{
    command::*,
    holders::Holders,
    ids::*,
    limits, planted,
    queue::{Queue, Waiter},
    seat::SeatAt,
};

/// What a request asked for, kept by its waiter and then by its grant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ask {
    pub(crate) session: SessionId,
    /// Where the session's seat is.
    #[serde(skip)]
    pub(crate) seat: SeatAt,
    pub(crate) request: RequestId,
    pub(crate) mode: Mode,
    pub(crate) lease: Option<Short>,
    pub(crate) lock_delay: Short,
    /// What most requests do not have, out of line.
    pub(crate) extra: Option<Box<Extra>>,
}

/// A length of at most [`limits::LEASE_MAX`], in half the bytes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Short(u32);

const _: () = assert!(limits::LEASE_MAX.0 <= u32::MAX as u64);

impl Short {
    /// Of a length whose bound was checked.
    pub(crate) fn new(length: Millis) -> Short {
        Short(u32::try_from(length.0).expect("a length within its bound is below 2³²"))
    }

    pub(crate) fn millis(self) -> Millis {
        Millis(self.0.into())
    }
}

/// The rarer parts of an [`Ask`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Extra {
    pub(crate) value: Option<String>,
    pub(crate) metadata: Metadata,
}

impl Ask {
    pub(crate) fn new(acquire: Acquire, seat: SeatAt) -> Ask {
        let plain = acquire.value.is_none() && acquire.metadata.is_empty();
        Ask {
            session: acquire.session,
            seat,
            request: acquire.request,
            mode: acquire.mode,
            lease: acquire.lease.map(Short::new),
            lock_delay: Short::new(acquire.lock_delay),
            extra: (!plain).then(|| Box::new(Extra { value: acquire.value, metadata: acquire.metadata })),
        }
    }

    pub(crate) fn value(&self) -> Option<&String> {
        self.extra.as_ref().and_then(|extra| extra.value.as_ref())
    }

    /// The session's metadata, overlaid with the request's.
    pub(crate) fn metadata(&self, holder: &Holder) -> Metadata {
        let mut all = holder.metadata.clone();
        if let Some(extra) = &self.extra {
            all.extend(extra.metadata.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        all
    }
}

/// One holding.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) token: Token,
    pub(crate) tag: KeyTag,
    pub(crate) ask: Ask,
    pub(crate) waited: Millis,
    /// It came out of the queue and was not renewed: its client may not know of it.
    pub(crate) unfetched: bool,
    pub(crate) acquired: WallMs,
    /// From when the lease counts: the grant or the last renewal.
    pub(crate) from: Stamp,
    /// The same moment, for people.
    pub(crate) from_wall: WallMs,
    pub(crate) revision: Revision,
}

impl Held {
    /// When its own lease ends, if it has one.
    pub(crate) fn deadline(&self) -> Option<Stamp> {
        let length = |lease: Short| {
            let early = if planted!("lease-ends-early") { lease.millis().0 / 10 } else { 0 };
            Millis(lease.millis().0 - early)
        };
        self.ask.lease.map(|lease| self.from.after(length(lease)))
    }

    pub(crate) fn lock_id(&self) -> LockId {
        LockId { session: self.ask.session, token: self.token, tag: self.tag }
    }

    /// As it is answered.
    pub(crate) fn grant(&self, holder: &Holder) -> Grant {
        Grant {
            lock_id: self.lock_id(),
            holder: holder.client_id.clone(),
            mode: self.ask.mode,
            lease: self.ask.lease.map(Short::millis),
            session_ttl: holder.ttl,
            acquired: self.acquired,
            expires: self.ask.lease.map(|lease| self.from_wall.after(lease.millis())),
            waited: self.waited,
            value: self.ask.value().cloned(),
            metadata: self.ask.metadata(holder),
            revision: self.revision,
        }
    }
}

/// A lock-delay that runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Closed {
    pub(crate) until: Stamp,
    /// The same moment, for people.
    pub(crate) until_wall: WallMs,
}

/// The state of one key. What is idle is not stored (invariant 8).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Lock {
    pub(crate) holders: Holders,
    pub(crate) queue: Queue,
    pub(crate) closed: Option<Box<Closed>>,
    /// The shard's revision when the holders last changed, or what one of them proclaims.
    pub(crate) revision: Revision,
    /// Its place is in line among those that rest; see `locks`.
    #[serde(skip)]
    pub(crate) queued: bool,
}

impl Lock {
    pub(crate) fn is_idle(&self) -> bool {
        self.holders.is_empty() && self.queue.is_empty() && self.closed.is_none()
    }

    pub(crate) fn holders(&self) -> impl Iterator<Item = &Held> {
        self.holders.iter()
    }

    pub(crate) fn holder_count(&self) -> usize {
        self.holders.len()
    }

    /// The mode by which the lock is used now, where it does not go together with `mode`. All uses of a
    /// lock are one semaphore with one number of permits, or none is a semaphore.
    pub(crate) fn mismatch(&self, mode: Mode) -> Option<Mode> {
        let held = self.holders.first().map(|held| held.ask.mode);
        let in_use = held.or_else(|| self.queue.front().map(|waiter| waiter.ask.mode))?;
        let agree = match (in_use, mode) {
            (Mode::Semaphore { permits: a }, Mode::Semaphore { permits: b }) => a == b,
            (Mode::Semaphore { .. }, _) | (_, Mode::Semaphore { .. }) => false,
            _ => true,
        };
        (!agree).then_some(in_use)
    }

    /// Whether one more may hold it so, beside those who do.
    pub(crate) fn fits(&self, mode: Mode) -> bool {
        match mode {
            Mode::Exclusive => self.holders.is_empty(),
            Mode::Shared => {
                let beside = |held: &Held| held.ask.mode == Mode::Shared || planted!("shared-beside-exclusive");
                !self.is_full() && self.holders.first().is_none_or(beside)
            }
            Mode::Semaphore { permits } => {
                let holders = self.holders.len();
                holders < permits as usize || planted!("one-permit-too-many") && holders == permits as usize
            }
        }
    }

    /// Whether the bound of holders is reached.
    pub(crate) fn is_full(&self) -> bool {
        self.holders.len() >= limits::HOLDERS
    }

    /// Whether a new request may hold it at once: it fits, no delay runs, and nobody of its priority or
    /// a higher one came before.
    pub(crate) fn admits(&self, mode: Mode, priority: i32) -> bool {
        let behind = |first: &Waiter| first.place.priority < priority || planted!("newcomers-overtake");
        self.closed.is_none() && self.fits(mode) && self.queue.front().is_none_or(behind)
    }

    pub(crate) fn holder(&self, token: Token) -> Option<&Held> {
        self.holders.find(token)
    }

    /// The last holder's token.
    pub(crate) fn last_token(&self) -> Option<Token> {
        self.holders.last().map(|held| held.token)
    }

    pub(crate) fn add(&mut self, held: Held) {
        let last = self.last_token().unwrap_or_default();
        assert!(held.token > last, "invariant 2: token {} does not exceed {last}", held.token);
        let fits = self.fits(held.ask.mode) || planted!("two-grants-in-one-batch");
        assert!(fits, "invariant 1: a grant that does not fit beside the holders");
        self.holders.push(held);
    }

    /// Whether the holders could have come about; asked of bytes from outside.
    pub(crate) fn is_sound(&self) -> bool {
        let rising = self.holders.iter().zip(self.holders.iter().skip(1)).all(|(a, b)| a.token < b.token);
        let modes = self.holders.iter().map(|held| held.ask.mode).chain(self.queue.iter().map(|w| w.ask.mode));
        let agree = modes.into_iter().all(|mode| self.mismatch(mode).is_none());
        let together = match self.holders.first().map(|held| held.ask.mode) {
            None => true,
            Some(Mode::Exclusive) => self.holders.len() == 1,
            Some(Mode::Shared) => {
                self.holders.len() <= limits::HOLDERS && self.holders.iter().all(|held| held.ask.mode == Mode::Shared)
            }
            Some(Mode::Semaphore { permits }) => self.holders.len() <= permits as usize,
        };
        rising && agree && together && self.queue.is_ordered() && self.queue.len() <= limits::WAITERS
    }
}

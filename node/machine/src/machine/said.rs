//! What a command comes to, before anybody asks: small, and made into an [`Outcome`] only for an asker.

use crate::{command::*, ids::*, locks::LockAt, machine::Machine, seat::Stored, waits::Circle};

/// See the module. It holds until the next command.
pub(crate) enum Said {
    /// A kept or fresh answer that speaks of a grant which is held.
    Grant(Stored, LockAt, Token),
    /// Who is in the way at the lock, if it is in use; after a wait or without one.
    Blocked { waited: bool, at: Option<LockAt> },
    /// All else.
    Plain(Outcome),
}

impl From<Outcome> for Said {
    fn from(outcome: Outcome) -> Said {
        Said::Plain(outcome)
    }
}

impl Machine {
    /// A kept answer, told again with things as they are now. A grant that is gone is not told as held.
    pub(crate) fn retell(&self, stored: Stored, key: &Key) -> Said {
        if let Some(token) = stored.token() {
            return match self.ledger.grants.get(&token) {
                Some(at) => Said::Grant(stored, *at, token),
                None => Outcome::Expired.into(),
            };
        }
        match stored {
            Stored::Held => Said::Blocked { waited: false, at: self.locks.find(key) },
            Stored::WaitTimeout => Said::Blocked { waited: true, at: self.locks.find(key) },
            Stored::Mismatch(mode) => Outcome::Mismatch { mode }.into(),
            Stored::Cancelled => Outcome::Cancelled.into(),
            Stored::Released => Outcome::Released.into(),
            Stored::Foreign => Outcome::Foreign.into(),
            Stored::Deadlock => Outcome::Deadlock(Circle::default()).into(),
            Stored::Expired | Stored::Granted(_) | Stored::AlreadyHeld(_) | Stored::Renewed(_) => {
                Outcome::Expired.into()
            }
        }
    }

    /// The answer in full.
    pub(crate) fn outcome(&self, said: Said) -> Outcome {
        match said {
            Said::Grant(stored, at, token) => {
                let held = self.locks.entry(at).1.holder(token).expect("invariant 6: an indexed grant is held");
                let grant = self.ledger.show(held);
                match stored {
                    Stored::AlreadyHeld(_) => Outcome::AlreadyHeld(grant),
                    Stored::Renewed(_) => Outcome::Renewed(grant),
                    _ => Outcome::Granted(grant),
                }
            }
            Said::Blocked { waited, at } => {
                let blocked = match at {
                    Some(at) => self.ledger.blocked(self.locks.entry(at).1),
                    None => Blocked { holders: Vec::new(), holder_count: 0, waiters: 0, lock_delay_until: None },
                };
                if waited { Outcome::WaitTimeout(blocked) } else { Outcome::Held(blocked) }
            }
            Said::Plain(outcome) => outcome,
        }
    }
}

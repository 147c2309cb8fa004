//! What a leader has to ask of other shards: homes about sessions that come, and shards to be told of
//! sessions that went.
//!
//! Bounded by windows: so many homes are asked at once, and each shard is told of so many ends at once. The
//! windows are one for each shard, so that one without a leader keeps no other from hearing. An errand that
//! fails is run again after a pause.

use std::collections::{BTreeMap, VecDeque};

use wardlock_machine::{EndReason, Nonce, Outcome, SessionId, ShardId};
use wardlock_router::random;

/// How many sessions' ends one shard is told of at once.
const TELLS_PER_SHARD: usize = 8;
/// How many homes are asked at once.
const ATTACHES: usize = 256;

/// Something to ask of another shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Errand {
    /// Ask the session's home whether it may use this shard.
    Attach(SessionId, Nonce),
    /// Tell a shard that the session has ended.
    Tell(SessionId, ShardId, EndReason),
}

/// What came of an errand.
pub enum Done {
    /// The home's word on an attempt to attach; `None` where it could not be asked.
    Attach(SessionId, Nonce, Option<Outcome>),
    /// The shard has dropped everything of the session.
    Told(SessionId, ShardId),
}

/// All of one leader's errands.
#[derive(Default)]
pub struct Errands {
    ready: Vec<Errand>,
    unasked: VecDeque<(SessionId, Nonce)>,
    asking: usize,
    told: BTreeMap<ShardId, Tells>,
}

/// What one shard is to be told.
#[derive(Default)]
struct Tells {
    waiting: VecDeque<(SessionId, EndReason)>,
    under_way: random::Set<SessionId>,
}

impl Errands {
    /// The home of a session whose attempt is on record is to be asked.
    pub fn ask(&mut self, session: SessionId, nonce: Nonce) {
        self.unasked.push_back((session, nonce));
        self.fill();
    }

    /// These shards are to be told that a session has ended.
    pub fn tell(&mut self, session: SessionId, reason: EndReason, shards: Vec<ShardId>) {
        for shard in shards {
            self.told.entry(shard).or_default().waiting.push_back((session, reason));
        }
        self.fill();
    }

    /// An errand that failed is to be run again. A tell has kept its place; an attempt to attach queues
    /// anew, so that a home without a leader does not keep the others from being asked.
    pub fn again(&mut self, errand: Errand) {
        match errand {
            Errand::Attach(session, nonce) => self.ask(session, nonce),
            tell => self.ready.push(tell),
        }
    }

    /// A home has answered, or could not be asked.
    pub fn asked(&mut self) {
        self.asking -= 1;
        self.fill();
    }

    /// A shard has dropped everything of a session.
    pub fn has_told(&mut self, session: SessionId, shard: ShardId) {
        if let Some(tells) = self.told.get_mut(&shard) {
            tells.under_way.remove(&session);
            if tells.under_way.is_empty() && tells.waiting.is_empty() {
                self.told.remove(&shard);
            }
        }
        self.fill();
    }

    /// Those to run now.
    pub fn take(&mut self) -> Vec<Errand> {
        std::mem::take(&mut self.ready)
    }

    fn fill(&mut self) {
        for (shard, tells) in &mut self.told {
            while tells.under_way.len() < TELLS_PER_SHARD
                && let Some((session, reason)) = tells.waiting.pop_front()
            {
                if tells.under_way.insert(session) {
                    self.ready.push(Errand::Tell(session, *shard, reason));
                }
            }
        }
        while self.asking < ATTACHES
            && let Some((session, nonce)) = self.unasked.pop_front()
        {
            self.asking += 1;
            self.ready.push(Errand::Attach(session, nonce));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_that_does_not_answer_keeps_no_other_from_hearing() {
        let mut errands = Errands::default();
        for n in 0..100 {
            errands.tell(SessionId(n), EndReason::SessionExpired, vec![ShardId(7), ShardId(8)]);
        }
        let mut heard = 0;
        // Shard 7 never answers; shard 8 does at once.
        loop {
            let ready = errands.take();
            let eighth: Vec<_> =
                ready.iter().filter(|errand| matches!(errand, Errand::Tell(_, ShardId(8), _))).collect();
            if eighth.is_empty() {
                break;
            }
            for errand in eighth {
                let Errand::Tell(session, shard, _) = errand else { unreachable!("filtered") };
                heard += 1;
                errands.has_told(*session, *shard);
            }
        }
        assert_eq!(heard, 100);
    }

    #[test]
    fn a_home_that_cannot_be_asked_makes_room_for_the_others() {
        let mut errands = Errands::default();
        for n in 0..2 * ATTACHES as u64 {
            errands.ask(SessionId(n.into()), Nonce(n));
        }
        let first = errands.take();
        assert_eq!(first.len(), ATTACHES);
        first.iter().for_each(|_| errands.asked());
        assert_eq!(errands.take().len(), ATTACHES, "the others have their turn during the pause");
        first.into_iter().for_each(|errand| errands.again(errand));
        assert!(errands.take().is_empty(), "behind those that are being asked");
    }

    #[test]
    fn a_session_is_told_once_to_each_shard_at_a_time() {
        let mut errands = Errands::default();
        for _ in 0..2 {
            errands.tell(SessionId(1), EndReason::SessionClosed, vec![ShardId(3)]);
        }
        assert_eq!(errands.take(), [Errand::Tell(SessionId(1), ShardId(3), EndReason::SessionClosed)]);
    }
}

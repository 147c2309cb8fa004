//! The read barrier that all groups of a node share.
//!
//! A linearizable read, or the answer to a keep-alive, needs a proof that its leader still led *after* it
//! arrived. The consensus library proves it group by group, by a round of heartbeats that followers answer
//! only after their pending writes are on disk. Here one message to each peer asks for **all** groups at
//! once: does your replica's vote still stand as I believe? The peer answers from memory, at once, and one
//! peer's yes is enough where there are three replicas.
//!
//! # The promise
//! When [`Barrier::ask`] resolves to `Ok`, no write to the group that was acknowledged before the call is
//! missing from this replica's applied state, as long as the caller asked as the leader of that term, with
//! the term's first entry applied.
//!
//! # Why it holds
//! Let `L` lead the group in term `T`, and let `W` be a write acknowledged before the call, by the leader of
//! term `t`.
//!
//! 1. `t < T`: whoever acknowledges has applied, so `W` was committed, and a committed entry is in the log of
//!    every later leader (Raft's leader completeness), ahead of the term's first entry. That one is applied
//!    here, so `W` is.
//! 2. `t = T`: there is one leader a term (openraft's `leader_id_std`), so `L` itself acknowledged `W`, which
//!    it does only after having applied it. No commit index has to be read or waited for.
//! 3. `t > T` must be impossible. Suppose that leaders of terms above `T` had been elected before the call,
//!    and let `T'` be the smallest of these terms. Its votes came from a quorum `V` of the
//!    membership `C'` that was effective in the candidate's log. Each voter had *saved* its vote before
//!    it gave it: openraft awaits `save_vote` before the grant leaves (and before a candidate's requests do),
//!    and our `save_vote` returns once the vote is on disk. From then on that replica's durable vote is of
//!    `T'` or later for ever: votes never go back, and a restart begins with the durable one.
//!    A round counts a replica as *standing* only if its **durable** vote was `(T, L)` at some moment after
//!    the call. It succeeds with a quorum `S` of `C`, the membership effective in `L`'s log. `S` and `V`
//!    intersect (next paragraph), and the replica in both would have had the durable votes `T` and, earlier,
//!    `T' > T`. So no later leader had been elected before the call, and `W` is none of
//!    theirs.
//!
//! **Membership changes.** `C` and `C'` are equal or neighbours in the chain of memberships (`C1`, joint
//! `C1+C2`, `C2`, …), for no leader between `T` and `T'` had been elected, so every membership beyond the ones
//! committed by `T`'s beginning was proposed by `L`, and it proposes the next only after the last has
//! committed. In a joint membership a quorum is a majority of *each* half, so quorums of neighbours
//! intersect. Learners never count. `C` is read from the library's metrics, which it publishes once per turn
//! of its loop: it may be one membership behind what `L` has just appended, but not two, because the commit
//! that lies between them takes a further turn; a neighbour is all the argument needs. [`Round`] evaluates
//! each half.
//!
//! **Which vote.** The durable one, as the log's writer has confirmed it ([`GroupLog::vote`]), on both sides.
//! It may lag the vote in the library's memory by a save that is under way: then the grant of the later vote
//! has not left yet, and the yes is true. It must not be the vote in the library's metrics: those are
//! published after the grant has left, and a yes by them may be a lie. A follower that restarts comes back
//! with the durable vote, so it never says yes to what it could forget: where it had followed a leader
//! without having saved its vote, it says no.
//!
//! **Leases** play no part: neither clocks nor the library's leader lease are consulted. A leader inside its
//! lease that has been deposed regardless (a transfer of leadership, say) finds the higher vote as
//! any other does.
//!
//! **Which moment.** Votes are read at the peers after the message came, and at `L` last of all; the message
//! left after the call. A round that was already under way when a read arrives never serves it: a call is
//! answered by a round that begins later.
//!
//! What it costs: a message and its reply for each pair of nodes and round, some ten bytes for each group, no
//! disk, no task and no timer per group. While one round is under way the next gathers all that comes.

mod round;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};
use wardlock_machine::{Term, planted};
use wardlock_placement::{GroupId, NodeId, ReplicaId};
use wardlock_router::link::Transport;
use wardlock_wire::{Body, Claim, Lane, Refusal, Response, raft::Vote};

pub use self::round::{Round, Standing, stands};
use crate::{
    disk::log::GroupLog,
    raft::types::{StoredMembership, vote_to_wire},
};

/// The most claims in one message: far within the urgent lane's frames.
const CLAIMS: usize = 1_024;
/// A round that takes longer does not hold up the next: a group's peers may be gone.
const SLOW: Duration = Duration::from_millis(10);
/// The most rounds under way.
const ROUNDS: usize = 64;

/// Whose leadership is to be confirmed.
pub struct Question {
    /// The group.
    pub group: GroupId,
    /// The replica that asks as its leader.
    pub replica: ReplicaId,
    /// Its term.
    pub term: Term,
    /// The membership that is effective there.
    pub members: Arc<StoredMembership>,
    /// The replica's log, for its own vote.
    pub log: GroupLog,
}

struct Asked {
    question: Question,
    done: oneshot::Sender<Result<(), Refusal>>,
}

/// The node's barrier. Groups ask, one task ([`Barrier::run`]) does the rounds.
pub struct Barrier {
    transport: Arc<dyn Transport>,
    /// A round without a quorum fails after this.
    patience: Duration,
    asked: Mutex<Vec<Asked>>,
    arrived: Notify,
}

impl Barrier {
    /// A barrier whose rounds fail after `patience` without a quorum.
    pub fn new(transport: Arc<dyn Transport>, patience: Duration) -> Barrier {
        Barrier { transport, patience, asked: Mutex::default(), arrived: Notify::new() }
    }

    /// Resolves once this leadership is confirmed by a round that begins after the call. Bounded by its
    /// callers: a group's leader has one question under way, and a leadership that ends leaves one behind for
    /// no longer than the barrier's patience.
    pub fn ask(&self, question: Question) -> impl Future<Output = Result<(), Refusal>> + Send + use<> {
        let (done, confirmed) = oneshot::channel();
        if planted!("barrier-skipped") {
            // Whoever dropped it reads no answer.
            let _ = done.send(Ok(()));
        } else {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            asked.push(Asked { question, done });
            let first = asked.len() == 1;
            drop(asked);
            if first {
                self.arrived.notify_one();
            }
        }
        confirmed.map(|confirmed| confirmed.unwrap_or(Err(Refusal::Stopping)))
    }

    /// Does the rounds until it is dropped.
    pub async fn run(self: Arc<Self>) {
        let mut rounds = FuturesUnordered::new();
        let (mut latest, mut ended, mut slow_at) = (0_u64, 0, Instant::now());
        loop {
            let free = rounds.len() < ROUNDS;
            let next = free && (ended == latest || Instant::now() >= slow_at);
            tokio::select! {
                biased;
                Some(round) = rounds.next() => ended = ended.max(round),
                () = self.arrived.notified(), if next => {
                    // One turn for the other groups of this node.
                    tokio::task::yield_now().await;
                    let asked = std::mem::take(&mut *self.asked.lock().unwrap_or_else(PoisonError::into_inner));
                    (latest, slow_at) = (latest + 1, Instant::now() + SLOW);
                    let round = self.round(asked);
                    rounds.push(async move { round.await; latest });
                }
                () = tokio::time::sleep_until(slow_at), if !next && free => {}
            }
        }
    }

    async fn round(&self, asked: Vec<Asked>) {
        let mut round = Asking::new(asked);
        let mut replies: FuturesUnordered<_> = round
            .messages()
            .map(|(node, which, claims)| {
                let reply = self.transport.call(node, Lane::Urgent, Body::Confirm(claims));
                async move { (which, reply.await) }
            })
            .collect();
        let gathered = async {
            while round.open > 0
                && let Some((which, reply)) = replies.next().await
            {
                match reply {
                    Ok(Response::Confirmed(stand)) => round.take(&which, &stand),
                    Ok(other) => tracing::debug!("an answer of the wrong kind to a barrier: {other:?}"),
                    Err(error) => tracing::debug!("a barrier is not answered: {error}"),
                }
            }
        };
        let _ = tokio::time::timeout(self.patience, gathered).await;
        round.give_up();
    }
}

/// One round under way.
struct Asking {
    asked: Vec<Option<(Asked, Round)>>,
    open: usize,
}

/// Of which group's question, and which replica's word.
type Which = (usize, ReplicaId);

impl Asking {
    /// Groups that need nobody else are done at once.
    fn new(asked: Vec<Asked>) -> Asking {
        let asked: Vec<_> = asked
            .into_iter()
            .map(|asked| {
                let round = Round::new(asked.question.members.membership(), asked.question.replica);
                Some((asked, round))
            })
            .collect();
        let mut asking = Asking { open: asked.len(), asked };
        for index in 0..asking.asked.len() {
            asking.settle(index);
        }
        asking
    }

    /// What is sent to whom, a bounded number of claims at a time.
    fn messages(&self) -> impl Iterator<Item = (NodeId, Vec<Which>, Vec<Claim>)> + use<> {
        let mut by_node: BTreeMap<NodeId, (Vec<Which>, Vec<Claim>)> = BTreeMap::new();
        for (index, open) in self.asked.iter().enumerate() {
            let Some((Asked { question, .. }, _)) = open else { continue };
            let vote = Vote { term: question.term.0, replica: question.replica, committed: true };
            for (replica, node) in round::voters(question.members.membership()) {
                if replica != question.replica {
                    let (which, claims) = by_node.entry(node).or_default();
                    which.push((index, replica));
                    claims.push(Claim { group: question.group, to: replica, vote });
                }
            }
        }
        by_node.into_iter().flat_map(|(node, (which, claims))| {
            let pages: Vec<_> =
                which.chunks(CLAIMS).zip(claims.chunks(CLAIMS)).map(|(w, c)| (node, w.to_vec(), c.to_vec())).collect();
            pages
        })
    }

    /// A peer's words, one for each claim, in order.
    fn take(&mut self, which: &[Which], stand: &[Standing]) {
        for ((index, replica), standing) in which.iter().zip(stand) {
            if let Some((_, round)) = &mut self.asked[*index] {
                round.heard(*replica, *standing);
                self.settle(*index);
            }
        }
    }

    /// Answers where there is a quorum, or can be none. This node's own vote is read here, last.
    fn settle(&mut self, index: usize) {
        let Some((Asked { question, .. }, round)) = &self.asked[index] else { return };
        let own = || {
            let vote = question.log.vote().map(|vote| vote_to_wire(&vote));
            let claim = Vote { term: question.term.0, replica: question.replica, committed: true };
            stands(vote, claim)
        };
        let verdict = match () {
            () if round.has_quorum() && own() == Standing::Stands => Ok(()),
            () if round.has_quorum() || round.is_lost() => Err(Refusal::NotLeader { hint: None }),
            () => return,
        };
        self.answer(index, verdict);
    }

    fn answer(&mut self, index: usize, verdict: Result<(), Refusal>) {
        if let Some((asked, _)) = self.asked[index].take() {
            self.open -= 1;
            // Whoever asked may lead no more.
            let _ = asked.done.send(verdict);
        }
    }

    fn give_up(&mut self) {
        for index in 0..self.asked.len() {
            self.answer(index, Err(Refusal::NoQuorum));
        }
    }
}

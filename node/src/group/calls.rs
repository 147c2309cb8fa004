//! What a runner asks of the consensus core and of other shards: futures that it waits for among others.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use openraft::{Instant, async_runtime::watch::WatchReceiver, errors::ClientWriteError, impls::ProgressResponder};
use wardlock_machine::{Batch, Command, EndReason, Outcome, SessionId, ShardId, Term, planted};
use wardlock_placement::GroupId;
use wardlock_router::Client;
use wardlock_wire::Refusal;

use super::{
    Group,
    errands::{Done, Errand},
    leader::Slot,
};
use crate::raft::types::{Applied, CommittedLeaderId, Proposal};

/// How long one try of an errand may take.
const ERRAND_PATIENCE: Duration = Duration::from_secs(5);

/// Whether a majority has answered this leader lately.
pub(super) fn has_quorum(group: &Group, patience: Duration) -> bool {
    let metrics = group.raft.metrics();
    let metrics = metrics.borrow_watched();
    let alone = metrics.membership_config.membership().get_joint_config().iter().all(|voters| voters.len() < 2);
    // Who is alone for as long as an election takes serves nothing: most reads that the barrier would refuse never
    // come to it. A mistake in the barrier shows without that only.
    let unnoticed =
        planted!("barrier-skipped") || planted!("barrier-without-quorum") || planted!("later-votes-confirm");
    if alone || unnoticed {
        return true;
    }
    metrics.last_quorum_acked.as_ref().is_none_or(|at| at.elapsed() < patience)
}

/// Sends the entry into the consensus core, in order, and returns the wait for its outcomes. The entry
/// is refused unless this replica still leads in `term`: the stamp in it is that leader's.
pub(super) async fn propose(
    group: &Group,
    term: Term,
    batch: &Batch,
) -> impl Future<Output = Result<Vec<Outcome>, Refusal>> + Send + use<> {
    let (responder, answer) = ProgressResponder::complete_only();
    let encoded = postcard::to_allocvec(batch).map(Bytes::from);
    let sent = match encoded {
        Ok(bytes) => {
            let write = group.raft.write(Proposal(bytes)).responder(responder);
            write.with_leader(CommittedLeaderId::new(term.0)).await.map_err(|_| Refusal::Stopping)
        }
        Err(error) => Err(Refusal::Malformed(error.to_string())),
    };
    async move {
        sent?;
        match answer.await {
            Ok(Ok(written)) => match written.data {
                Applied::Outcomes(outcomes) => Ok(outcomes),
                _ => Err(Refusal::OutcomeUnknown),
            },
            Ok(Err(ClientWriteError::ForwardToLeader(_))) => Err(Refusal::NotLeader { hint: None }),
            Ok(Err(_)) | Err(_) => Err(Refusal::OutcomeUnknown),
        }
    }
}

/// Tells whoever waits for these outcomes.
pub(super) fn refuse(slots: Vec<Slot>, refusal: &Refusal) {
    for slot in slots {
        if let Slot::Reply(reply) | Slot::Cleared(_, _, reply) = slot {
            reply.send(Err(refusal.clone()));
        }
    }
}

/// `None`: the other shard could not be asked.
pub(super) async fn run_errand(client: &Client, own: GroupId, errand: &Errand) -> Option<Done> {
    match *errand {
        Errand::Attach(session, nonce) => {
            let command = Command::Attach { session, shard: ShardId(own.0) };
            let word = client.write(command, ERRAND_PATIENCE).await.ok()?;
            Some(Done::Attach(session, nonce, Some(word)))
        }
        Errand::Tell(session, shard, reason) => tell(client, session, GroupId(shard.0), reason).await,
    }
}

async fn tell(client: &Client, session: SessionId, to: GroupId, reason: EndReason) -> Option<Done> {
    loop {
        match client.write_to(to, Command::Drop { session, reason }, ERRAND_PATIENCE).await {
            Ok(Outcome::Dropped { more: true }) => {}
            Ok(_) => return Some(Done::Told(session, ShardId(to.0))),
            Err(_) => return None,
        }
    }
}

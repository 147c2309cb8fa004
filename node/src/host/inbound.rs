//! Raft's requests from other nodes, into the consensus core and back.

use openraft::{
    raft::{AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest},
    storage::Snapshot,
};
use wardlock_wire::{
    Refusal, Response,
    raft::{RaftReply, RaftRequest},
};

use crate::{group::Group, raft::types::*};

/// Answers one request. The caller runs it as a task: a request waits for the disk.
///
/// Requests of one lane are handed to the core in the order in which they came: tasks that are spawned one
/// after the other on a current-thread runtime are first polled in that order, and before its first wait
/// an append has taken its place in the core's queue. Out of order they would still be safe, for the core
/// refuses an append that does not follow its log, only slower.
pub(super) async fn answer(group: Group, request: RaftRequest) -> Result<Response, Refusal> {
    let reply = match request {
        RaftRequest::Append { vote, prev, commit, entries } => {
            let entries = entries.into_iter().map(entry_from_wire).collect::<Result<Vec<_>, _>>();
            let rpc = AppendEntriesRequest {
                vote: vote_from_wire(vote),
                prev_log_id: prev.map(pos_from_wire),
                entries: entries.map_err(Refusal::Malformed)?,
                leader_commit: commit.map(pos_from_wire),
            };
            match group.raft.append_entries(rpc).await.map_err(stopped)? {
                AppendEntriesResponse::Success => RaftReply::Appended,
                AppendEntriesResponse::PartialSuccess(pos) => RaftReply::AppendedTo(pos.map(pos_to_wire)),
                AppendEntriesResponse::Conflict => RaftReply::Conflict,
                AppendEntriesResponse::HigherVote(vote) => RaftReply::HigherVote(vote_to_wire(&vote)),
            }
        }
        RaftRequest::Vote { vote, last, transfer } => {
            let mut rpc = VoteRequest::new(vote_from_wire(vote), last.map(pos_from_wire));
            rpc.leadership_transfer = transfer;
            voted(group.raft.vote(rpc).await.map_err(stopped)?)
        }
        RaftRequest::PreVote { vote, last } => {
            let rpc = VoteRequest::new(vote_from_wire(vote), last.map(pos_from_wire));
            voted(group.raft.pre_vote(rpc).await.map_err(stopped)?)
        }
        RaftRequest::Transfer { from, to, last } => {
            let rpc = TransferLeaderRequest::new(vote_from_wire(from), to.0, last.map(pos_from_wire));
            match group.raft.handle_transfer_leader(rpc).await.map_err(stopped)? {
                Ok(()) => RaftReply::Transferring,
                Err(why) => RaftReply::TransferRefused(why.to_string()),
            }
        }
        RaftRequest::Snapshot { vote, meta, data } => {
            let meta = snapshot_from_wire(meta).map_err(Refusal::Malformed)?;
            let installed =
                group.raft.install_full_snapshot(vote_from_wire(vote), Snapshot { meta, snapshot: data }).await;
            RaftReply::Installed(vote_to_wire(&installed.map_err(stopped)?.vote))
        }
    };
    Ok(Response::Raft(reply))
}

fn voted(response: openraft::raft::VoteResponse<Types>) -> RaftReply {
    RaftReply::Voted {
        vote: vote_to_wire(&response.vote),
        granted: response.vote_granted,
        last: response.last_log_id.map(pos_to_wire),
    }
}

/// The group has stopped, after a fault that its own log tells of.
fn stopped(error: impl std::fmt::Display) -> Refusal {
    tracing::debug!("a group refuses: {error}");
    Refusal::Stopping
}

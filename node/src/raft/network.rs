//! How replicas of a group reach each other: Raft's requests over the node's [`Transport`].
//!
//! Entries take the append lane, several requests in flight, answered in order; heartbeats, votes and
//! transfers take the urgent lane; snapshots the bulk lane. Nothing here opens a connection or starts a
//! task: requests of all groups to one node share its connection, and those that are ready together
//! leave in one write.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, Stream, StreamExt};
use openraft::{
    OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2,
    base::{BoxFuture, BoxStream},
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable},
    network::{Backoff, RPCOption},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
        TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use wardlock_placement::{GroupId, NodeId, ReplicaId};
use wardlock_router::link::{CallError, Transport};
use wardlock_wire::{
    Body, Lane, Response,
    raft::{RaftReply, RaftRequest},
};

use super::types::*;

/// How many appends of one group to one peer are under way at once. A few let batches overlap with the
/// follower's disk; more would only queue there.
const APPENDS_IN_FLIGHT: usize = 4;
/// How long an append may go unanswered. Longer than a heartbeat: a follower's slow disk is no reason to
/// tear the pipeline down, and a dead connection ends the wait by itself.
const APPEND_PATIENCE: Duration = Duration::from_secs(2);
/// How long a snapshot may take to be sent and installed.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(120);

/// Makes the network of one group's replica.
pub struct Network {
    /// Reaches the other nodes.
    pub transport: Arc<dyn Transport>,
    /// Which group.
    pub group: GroupId,
    /// The replica here.
    pub from: ReplicaId,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, home: &Home) -> Link {
        Link {
            transport: Arc::clone(&self.transport),
            group: self.group,
            from: self.from,
            to: ReplicaId(target),
            node: home.0,
        }
    }
}

/// The way to one other replica.
#[derive(Clone)]
pub struct Link {
    transport: Arc<dyn Transport>,
    group: GroupId,
    from: ReplicaId,
    to: ReplicaId,
    node: NodeId,
}

impl Link {
    async fn ask(&self, lane: Lane, patience: Duration, request: RaftRequest) -> Result<RaftReply, RPCError<Types>> {
        let kind = match &request {
            RaftRequest::Append { .. } => RPCTypes::AppendEntries,
            RaftRequest::Vote { .. } | RaftRequest::PreVote { .. } => RPCTypes::Vote,
            RaftRequest::Transfer { .. } => RPCTypes::TransferLeader,
            RaftRequest::Snapshot { .. } => RPCTypes::InstallSnapshot,
        };
        let body = Body::Raft { group: self.group, from: self.from, to: self.to, request };
        match tokio::time::timeout(patience, self.transport.call(self.node, lane, body)).await {
            Ok(Ok(Response::Raft(reply))) => Ok(reply),
            Ok(Ok(other)) => Err(unexpected(&other)),
            Ok(Err(error)) => Err(unreachable(error)),
            Err(_elapsed) => {
                let timeout = Timeout { action: kind, id: self.from.0, target: self.to.0, timeout: patience };
                Err(RPCError::Timeout(timeout))
            }
        }
    }

    async fn append(
        &self,
        lane: Lane,
        rpc: AppendEntriesRequest<Types>,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let request = RaftRequest::Append {
            vote: vote_to_wire(&rpc.vote),
            prev: rpc.prev_log_id.map(pos_to_wire),
            commit: rpc.leader_commit.map(pos_to_wire),
            entries: rpc.entries.iter().map(entry_to_wire).collect(),
        };
        match self.ask(lane, APPEND_PATIENCE, request).await? {
            RaftReply::Appended => Ok(AppendEntriesResponse::Success),
            RaftReply::AppendedTo(pos) => Ok(AppendEntriesResponse::PartialSuccess(pos.map(pos_from_wire))),
            RaftReply::Conflict => Ok(AppendEntriesResponse::Conflict),
            RaftReply::HigherVote(vote) => Ok(AppendEntriesResponse::HigherVote(vote_from_wire(vote))),
            other => Err(unexpected(&other)),
        }
    }
}

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let lane = if rpc.entries.is_empty() { Lane::Urgent } else { Lane::Append };
        self.append(lane, rpc).await
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        let link = self.clone();
        let answers = input
            .map(move |rpc| {
                let link = link.clone();
                let prev = rpc.prev_log_id;
                let last = rpc.entries.last().map(|entry| entry.log_id).or(prev);
                async move {
                    // All on one lane, those without entries too: one that overtook the entries that it
                    // follows would be answered with a conflict, as if the follower had lost them.
                    let response = link.append(Lane::Append, rpc).await?;
                    Ok(response.into_stream_result(prev, last))
                }
            })
            .buffered(APPENDS_IN_FLIGHT);
        async move { Ok(answers.boxed()) }.boxed()
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let request = RaftRequest::Vote {
            vote: vote_to_wire(&rpc.vote),
            last: rpc.last_log_id.map(pos_to_wire),
            transfer: rpc.leadership_transfer,
        };
        voted(self.ask(Lane::Urgent, option.soft_ttl(), request).await?)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let request = RaftRequest::PreVote { vote: vote_to_wire(&rpc.vote), last: rpc.last_log_id.map(pos_to_wire) };
        voted(self.ask(Lane::Urgent, option.soft_ttl(), request).await?)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::alias::SnapshotOf<Types, Bytes>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let request = RaftRequest::Snapshot {
            vote: vote_to_wire(&vote),
            meta: snapshot_to_wire(&snapshot.meta),
            data: snapshot.snapshot,
        };
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            reply = self.ask(Lane::Bulk, SNAPSHOT_PATIENCE, request) => match reply {
                Ok(RaftReply::Installed(vote)) => Ok(SnapshotResponse::new(vote_from_wire(vote))),
                Ok(other) => Err(unexpected(&other).into()),
                Err(error) => Err(error.into()),
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let request = RaftRequest::Transfer {
            from: vote_to_wire(req.from_leader()),
            to: ReplicaId(*req.to_node_id()),
            last: req.last_log_id().copied().map(pos_to_wire),
        };
        match self.ask(Lane::Urgent, option.soft_ttl(), request).await? {
            RaftReply::Transferring => Ok(Ok(())),
            RaftReply::TransferRefused(why) => Err(RPCError::Network(NetworkError::from_string(why))),
            other => Err(unexpected(&other)),
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        None
    }
}

fn voted(reply: RaftReply) -> Result<VoteResponse<Types>, RPCError<Types>> {
    match reply {
        RaftReply::Voted { vote, granted, last } => {
            Ok(VoteResponse::new(vote_from_wire(vote), last.map(pos_from_wire), granted))
        }
        other => Err(unexpected(&other)),
    }
}

/// Every failure to reach the other side backs off: the library would retry any other kind at once, and
/// a dead peer would be called in a loop.
fn unreachable(error: CallError) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(&error))
}

fn unexpected(what: &dyn std::fmt::Debug) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::from_string(format!("an answer of the wrong kind: {what:?}")))
}

//! How replicas of a group reach each other: Raft's requests over the node's [`Transport`].
//!
//! What the replication stream of a replica sends takes the append lane, several requests in flight,
//! answered in order: all of it, for an empty append that tells the commit index must not overtake the
//! entries before it. Heartbeats have a [`Link`] of their own, on the urgent lane, and so do votes and
//! transfers; snapshots take the bulk lane. Nothing here opens a connection or starts a
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
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
        TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use tokio::time::Instant;
use wardlock_machine::planted;
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
/// How long an append without entries, which only tells the commit index, waits for one with entries to take
/// its place. A group at work sends its next entries within that time, and half of all appends are spared;
/// followers of one that falls silent apply its last entries this much later.
const COMMIT_LINGER: Duration = Duration::from_millis(10);
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
        self.link(target, *home, Lane::Append)
    }

    /// Must arrive in time whatever entries are under way, and may overtake them: it carries none.
    async fn new_heartbeat_client(&mut self, target: u64, home: &Home) -> Link {
        self.link(target, *home, Lane::Urgent)
    }
}

impl Network {
    fn link(&self, target: u64, home: Home, appends: Lane) -> Link {
        Link {
            transport: Arc::clone(&self.transport),
            group: self.group,
            from: self.from,
            to: ReplicaId(target),
            node: home.0,
            appends,
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
    /// Which lane its appends take, empty or not.
    appends: Lane,
}

impl Link {
    async fn ask(&self, lane: Lane, patience: Duration, request: RaftRequest) -> Result<RaftReply, RPCError<Types>> {
        let kind = match &request {
            RaftRequest::Append { .. } => RPCTypes::AppendEntries,
            RaftRequest::Vote { .. } | RaftRequest::PreVote { .. } => RPCTypes::Vote,
            RaftRequest::Transfer { .. } => RPCTypes::TransferLeader,
            RaftRequest::Snapshot { .. } => RPCTypes::InstallSnapshot,
        };
        if planted!("ack-before-commit")
            && matches!(&request, RaftRequest::Append { entries, .. } if !entries.is_empty())
        {
            drop(self.transport.call(
                self.node,
                lane,
                Body::Raft { group: self.group, from: self.from, to: self.to, request },
            ));
            return Ok(RaftReply::Appended);
        }
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

    async fn append(&self, rpc: AppendEntriesRequest<Types>) -> Result<RaftReply, RPCError<Types>> {
        let request = RaftRequest::Append {
            vote: vote_to_wire(&rpc.vote),
            prev: rpc.prev_log_id.map(pos_to_wire),
            commit: rpc.leader_commit.map(pos_to_wire),
            entries: rpc.entries.iter().map(entry_to_wire).collect(),
        };
        self.ask(self.appends, APPEND_PATIENCE, request).await
    }
}

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        match self.append(rpc).await? {
            RaftReply::Appended => Ok(AppendEntriesResponse::Success),
            RaftReply::AppendedTo(pos) => Ok(AppendEntriesResponse::PartialSuccess(pos.map(pos_from_wire))),
            RaftReply::Conflict => Ok(AppendEntriesResponse::Conflict),
            RaftReply::HigherVote(vote) => Ok(AppendEntriesResponse::HigherVote(vote_from_wire(vote))),
            other => Err(unexpected(&other)),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        let link = self.clone();
        let answers = merged(input)
            .map(move |rpc| {
                let mut link = link.clone();
                let option = option.clone();
                let prev = rpc.prev_log_id;
                let last = rpc.entries.last().map(|entry| entry.log_id).or(prev);
                async move {
                    let response = RaftNetworkV2::append_entries(&mut link, rpc, option).await?;
                    Ok(response.into_stream_result(prev, last))
                }
            })
            .buffered(APPENDS_IN_FLIGHT);
        let mut acknowledged = None;
        let answers = answers.map(move |answer| plausible(answer, &mut acknowledged));
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
            biased;
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

/// The same appends, but those without entries for which another came soon enough: it follows the same or a
/// later entry and carries a newer commit index, so its answer is theirs. The library takes an answer for
/// all that was asked before it, and reckons its leader lease from when an append was handed over: here at
/// the latest when it is sent.
fn merged<S>(input: S) -> impl Stream<Item = AppendEntriesRequest<Types>> + Send
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin,
{
    futures_util::stream::unfold(input.fuse(), |mut input| async move {
        let mut rpc = input.next().await?;
        let until = Instant::now() + COMMIT_LINGER;
        while rpc.entries.is_empty()
            && let Ok(Some(next)) = tokio::time::timeout_at(until, input.next()).await
        {
            rpc = next;
        }
        Some((rpc, input))
    })
    .fuse()
}

/// The answer, unless it denies what an earlier one of the same stream acknowledged: then this append overtook those
/// before it, and is sent again. As a conflict the library would take back less than it knows to match, and could
/// end up sending a snapshot that the follower has no need of, for ever. A lane keeps its order; this does not rest
/// on it.
fn plausible(
    answer: Result<StreamAppendResult<Types>, RPCError<Types>>,
    acknowledged: &mut Option<LogId>,
) -> Result<StreamAppendResult<Types>, RPCError<Types>> {
    match &answer {
        Ok(Ok(matching)) => *acknowledged = (*acknowledged).max(*matching),
        Ok(Err(StreamAppendError::Conflict(at))) if Some(*at) <= *acknowledged => {
            return Err(RPCError::Network(NetworkError::from_string(format!(
                "an append overtook the entries up to {at}"
            ))));
        }
        _ => {}
    }
    answer
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use wardlock_router::link::PendingReply;

    use super::*;

    /// Notes each call's lane and leaves it unsent.
    #[derive(Default)]
    struct Lanes(Mutex<Vec<Lane>>);

    impl Transport for Lanes {
        fn call(&self, _: NodeId, lane: Lane, _: Body) -> PendingReply {
            self.0.lock().unwrap().push(lane);
            PendingReply::failed(CallError::Lost)
        }
    }

    /// On one lane what was sent first arrives first.
    #[tokio::test]
    async fn all_appends_of_a_stream_share_a_lane_and_heartbeats_have_another() {
        let lanes = Arc::new(Lanes::default());
        let mut network = Network { transport: Arc::clone(&lanes) as _, group: GroupId(1), from: ReplicaId(1) };
        let entry = Entry {
            log_id: pos_from_wire(wardlock_wire::raft::LogPos { term: 1, index: 1 }),
            payload: openraft::EntryPayload::Blank,
        };
        let append = |entries| AppendEntriesRequest {
            vote: vote_from_wire(wardlock_wire::raft::Vote { term: 1, replica: ReplicaId(1), committed: true }),
            prev_log_id: None,
            entries,
            leader_commit: None,
        };
        let stream = network.new_client(2, &Home(NodeId(2))).await;
        let beats = network.new_heartbeat_client(2, &Home(NodeId(2))).await;
        for (link, entries) in [(&stream, vec![entry]), (&stream, vec![]), (&beats, vec![])] {
            assert!(link.append(append(entries)).await.is_err());
        }
        assert_eq!(*lanes.0.lock().unwrap(), [Lane::Append, Lane::Append, Lane::Urgent]);
    }

    #[test]
    fn an_append_that_overtook_others_is_no_conflict() {
        let at = |index| pos_from_wire(wardlock_wire::raft::LogPos { term: 1, index });
        let conflict = |index| Ok(Err(StreamAppendError::Conflict(at(index))));
        let mut acknowledged = None;
        assert!(matches!(plausible(conflict(7), &mut acknowledged), Ok(Err(StreamAppendError::Conflict(_)))));
        assert!(matches!(plausible(Ok(Ok(Some(at(7)))), &mut acknowledged), Ok(Ok(Some(_)))));
        for overtook in [6, 7] {
            assert!(matches!(plausible(conflict(overtook), &mut acknowledged), Err(RPCError::Network(_))));
        }
        assert!(matches!(plausible(conflict(8), &mut acknowledged), Ok(Err(StreamAppendError::Conflict(_)))));
    }
}

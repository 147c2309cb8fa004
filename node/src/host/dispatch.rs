//! Where calls come in: each goes to its group, or is answered at once.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::FutureExt;
use wardlock_machine::{Limit, Outcome};
use wardlock_placement::{GroupId, MapVersion, NodeId, PLACEMENT};
use wardlock_router::link::{Peer, Replier, Service};
use wardlock_wire::{
    Body, Claim, Op, Refusal, Response, Standing,
    raft::{RaftReply, RaftRequest},
};

use super::{Host, inbound};
use crate::{
    barrier::stands,
    group::{Ask, Group},
    raft::types::vote_to_wire,
};

/// The longest that a question for a newer map is held.
const MAP_WAIT: Duration = Duration::from_secs(60);

/// What listens before the host stands behind it.
#[derive(Default)]
pub struct Door(OnceLock<Arc<Host>>);

impl Door {
    /// Opens it. Calls before that are refused.
    pub fn open(&self, host: Arc<Host>) {
        assert!(self.0.set(host).is_ok(), "a door leads to one host");
    }
}

impl Service for Door {
    fn call(&self, peer: &Peer, body: Body, reply: Replier) {
        match self.0.get() {
            Some(host) => host.dispatch(peer, body, reply),
            None => reply.send(Err(Refusal::NoReplica { map: MapVersion(0) })),
        }
    }

    fn closed(&self, peer: &Peer) {
        let Some(host) = self.0.get() else { return };
        // To followers, too: one may be about to lead, with this connection's requests in its inbox.
        for group in host.groups.iter().filter(|group| group.id != PLACEMENT) {
            group.inbox.closed(peer.connection);
        }
    }
}

impl Host {
    fn dispatch(self: &Arc<Self>, peer: &Peer, body: Body, reply: Replier) {
        match body {
            Body::Shard { group, patience_ms, op, .. } => self.shard(peer, group, patience_ms, op, reply),
            Body::Raft { .. } | Body::Report(_) | Body::Confirm(_) if peer.node.is_none() => {
                reply.send(Err(Refusal::NotAllowed("only nodes may send this".to_owned())));
            }
            Body::Raft { to, request: RaftRequest::Transfer { to: next, .. }, .. }
                if next == to && self.is_draining() =>
            {
                reply.send(Ok(Response::Raft(RaftReply::TransferRefused("the node is stopping".to_owned()))));
            }
            Body::Raft { group, to, request, .. } => match self.group(group).filter(|group| group.replica_id == to) {
                Some(group) => {
                    // Handed over before the next one is read: a task's first step would race with the next task's,
                    // and appends would overtake each other.
                    let mut answer = Box::pin(inbound::answer(group, request));
                    match (&mut answer).now_or_never() {
                        Some(answer) => reply.send(answer),
                        None => drop(self.tasks.spawn(async move { reply.send(answer.await) })),
                    }
                }
                None => reply.send(Err(self.no_replica())),
            },
            Body::Report(report) if Some(report.node) != peer.node => {
                reply.send(Err(Refusal::NotAllowed("a node reports for itself only".to_owned())));
            }
            Body::Report(report) => {
                self.take_report(report);
                reply.send(Ok(Response::Done));
            }
            Body::Map { known, wait_ms } => self.answer_map(known, wait_ms, reply),
            Body::Transfer { group, to } => self.transfer(group, to, reply),
            Body::Confirm(claims) => {
                let stand = claims.iter().map(|claim| self.stands(claim)).collect();
                reply.send(Ok(Response::Confirmed(stand)));
            }
            Body::Status if self.is_draining() => reply.send(Err(Refusal::Stopping)),
            Body::Status => reply.send(Ok(Response::Status(self.status()))),
        }
    }

    /// By the durable vote of the very replica that is meant.
    fn stands(&self, claim: &Claim) -> Standing {
        match self.groups.get(&claim.group).filter(|group| group.replica_id == claim.to) {
            Some(group) => stands(group.log.vote().map(|vote| vote_to_wire(&vote)), claim.vote),
            None => Standing::Unknown,
        }
    }

    fn group(&self, id: GroupId) -> Option<Group> {
        self.groups.get(&id).map(|group| group.clone())
    }

    fn no_replica(&self) -> Refusal {
        Refusal::NoReplica { map: self.map().version }
    }

    fn shard(self: &Arc<Self>, peer: &Peer, id: GroupId, patience_ms: u32, op: Op, reply: Replier) {
        if id == PLACEMENT {
            return reply.send(Err(Refusal::Malformed("the placement group has no locks".to_owned())));
        }
        if let Op::Write(command) = &op
            && !command.is_public()
            && peer.node.is_none()
        {
            return reply.send(Err(Refusal::NotAllowed("only nodes may propose this".to_owned())));
        }
        if matches!(op, Op::ReadIndex) && peer.node.is_none() {
            return reply.send(Err(Refusal::NotAllowed("only nodes may ask for this".to_owned())));
        }
        // Before anything is queued or logged.
        match &op {
            _ if wardlock_machine::planted!("requests-unbounded") => {}
            Op::Write(command) if !command.is_within_bounds() => {
                return reply.send(Ok(Response::Outcome(Outcome::Limit(Limit::Field))));
            }
            Op::Marked(query) if !query.is_list() => {
                return reply.send(Err(Refusal::Malformed("only lists have a mark".to_owned())));
            }
            Op::Read(query) | Op::Marked(query) | Op::Watch { query, .. } | Op::Stale { query, .. }
                if !query.is_within_bounds() =>
            {
                return reply.send(Err(Refusal::Malformed("it asks for more than one question may".to_owned())));
            }
            _ => {}
        }
        if self.stop.is_cancelled() {
            return reply.send(Err(Refusal::Stopping));
        }
        let Some(group) = self.groups.get(&id) else {
            return reply.send(Err(self.no_replica()));
        };
        let patience = Duration::from_millis(u64::from(patience_ms));
        if let Op::Stale { query, max_age_ms } = op {
            return self.stale(&group, query, max_age_ms, patience, reply);
        }
        let until = self.parts.clock.now() + patience;
        group.inbox.ask(Ask { op, until, reply });
    }

    fn answer_map(self: &Arc<Self>, known: MapVersion, wait_ms: u32, reply: Replier) {
        let map = self.map();
        if map.version > known || wait_ms == 0 {
            let newer = (map.version > known).then(|| (*map).clone());
            return reply.send(Ok(Response::Map(newer)));
        }
        let Ok(permit) = Arc::clone(&self.held_maps).try_acquire_owned() else {
            return reply.send(Ok(Response::Map(None)));
        };
        let mut maps = self.parts.maps.subscribe();
        self.spawn(async move {
            let wait = Duration::from_millis(u64::from(wait_ms)).min(MAP_WAIT);
            let newer = tokio::time::timeout(wait, maps.wait_for(|map| map.version > known)).await;
            let newer = newer.ok().and_then(Result::ok).map(|map| (**map).clone());
            reply.send(Ok(Response::Map(newer)));
            drop(permit);
        });
    }

    fn transfer(self: &Arc<Self>, id: GroupId, to: NodeId, reply: Replier) {
        let Some(group) = self.group(id) else {
            return reply.send(Err(self.no_replica()));
        };
        let map = self.map();
        let place = map.groups.get(&id).and_then(|group| group.replicas.iter().find(|place| place.node == to));
        let Some(place) = place.copied() else {
            return reply.send(Err(Refusal::Malformed(format!("shard {id} has no replica on node {to}"))));
        };
        if !group.raft.is_leader() {
            let hint = self.status().groups.into_iter().find(|status| status.group == id).and_then(|s| s.leader);
            return reply.send(Err(Refusal::NotLeader { hint }));
        }
        let host = Arc::clone(self);
        self.spawn(async move {
            // A leader that has begun a transfer serves nobody, whatever becomes of it.
            if !host.takes(to).await {
                return reply.send(Err(Refusal::NotAllowed(format!("node {to} takes no leadership now"))));
            }
            let result = group.raft.trigger().transfer_leader(place.id.0).await;
            reply.send(result.map(|()| Response::Done).map_err(|_| Refusal::Stopping));
        });
    }
}

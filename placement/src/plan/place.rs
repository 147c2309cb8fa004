//! Where the replicas of new shards go.
//!
//! Shard by shard, replica by replica, the node is taken whose failure domain holds the fewest replicas of
//! the shard (safety first), then the one whose domain is the least loaded for its size, then the least
//! loaded node. Ties are broken by a hash of shard and node: breaking them in order would put the same few
//! nodes together again and again, and the loss of one would fall on its companions alone.
//!
//! # Invariants
//! 1. No shard uses a failure domain twice while it leaves one with a free node unused. A node without a
//!    domain is one by itself.
//! 2. The nodes' numbers of replicas differ by one at the most, where all domains are of one size.
//! 3. The nodes' numbers of preferred leaders differ by one at the most, wherever that is possible.

use std::collections::BTreeMap;

use siphasher::sip::SipHasher13;

use super::balance::Leads;
use crate::ids::*;

/// A node or a domain while shards are being placed.
struct Host {
    node: NodeId,
    domain: usize,
    load: u64,
}

#[derive(Clone, Default)]
struct Domain {
    size: u64,
    load: u64,
}

/// The nodes of each of `shards` shards, the preferred leader first.
pub(super) fn assignments(nodes: &[(NodeId, Option<String>)], shards: usize, replicas: usize) -> Vec<Vec<NodeId>> {
    let (mut hosts, mut domains) = survey(nodes);
    let placed = (0..shards).map(|shard| place(shard, replicas, &mut hosts, &mut domains)).collect();
    lead(nodes.iter().map(|(node, _)| *node), placed)
}

fn survey(nodes: &[(NodeId, Option<String>)]) -> (Vec<Host>, Vec<Domain>) {
    let mut names = BTreeMap::new();
    let mut domains: Vec<Domain> = Vec::new();
    let mut hosts = Vec::with_capacity(nodes.len());
    for (node, name) in nodes {
        let domain = match name {
            Some(name) => *names.entry(name).or_insert(domains.len()),
            None => domains.len(),
        };
        domains.resize(domains.len().max(domain + 1), Domain::default());
        domains[domain].size += 1;
        hosts.push(Host { node: *node, domain, load: 0 });
    }
    (hosts, domains)
}

fn place(shard: usize, replicas: usize, hosts: &mut [Host], domains: &mut [Domain]) -> Vec<NodeId> {
    let mut chosen: Vec<usize> = Vec::with_capacity(replicas);
    for _ in 0..replicas {
        let next = (0..hosts.len()).filter(|i| !chosen.contains(i)).min_by_key(|&i| {
            let host = &hosts[i];
            let domain = &domains[host.domain];
            let uses = chosen.iter().filter(|&&c| hosts[c].domain == host.domain).count();
            // Distinct ratios of numbers this small differ by far more than 2⁻³².
            (uses, (domain.load << 32) / domain.size, host.load, scatter(shard, host.node))
        });
        let next = next.expect("a goal has no more replicas than nodes");
        hosts[next].load += 1;
        domains[hosts[next].domain].load += 1;
        chosen.push(next);
    }
    chosen.into_iter().map(|i| hosts[i].node).collect()
}

/// Turns each shard's nodes so that the one that should lead comes first.
fn lead(nodes: impl Iterator<Item = NodeId>, mut placed: Vec<Vec<NodeId>>) -> Vec<Vec<NodeId>> {
    let mut leads = Leads::new(nodes);
    for (group, replicas) in (0..).map(GroupId).zip(&placed) {
        let fewest = replicas.iter().min_by_key(|node| leads.count(**node));
        leads.add(group, *fewest.expect("a goal has at least one replica"), replicas);
    }
    leads.settle();
    for (group, replicas) in (0..).map(GroupId).zip(&mut placed) {
        let leader = leads.leader(group);
        let at = replicas.iter().position(|node| Some(*node) == leader);
        replicas.swap(0, at.expect("a shard is led by one of its replicas"));
    }
    placed
}

fn scatter(shard: usize, node: NodeId) -> u64 {
    SipHasher13::new_with_keys(shard as u64, u64::from(node.0)).hash(&[])
}

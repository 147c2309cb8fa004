//! The placement group: its log's entries and its snapshots.

use std::collections::{BTreeMap, BTreeSet};

use siphasher::sip::SipHasher13;
use wardlock_placement::*;

use crate::within;

/// More than one input's changes count.
const MARGIN: u64 = 1 << 20;

fn ample(length: usize) -> usize {
    200 * length + (3 << 20)
}

/// The map's promises by their words, apart from the code that checks them.
fn promises(map: &ShardMap) {
    let (mut ids, mut next) = (BTreeSet::new(), Some(0));
    let mut ranges: Vec<(u64, u64)> = map.shards().map(|(_, range, _)| (range.first, range.last)).collect();
    ranges.sort_unstable();
    for (first, last) in &ranges {
        assert_eq!(Some(*first), next, "invariant 1: {ranges:?}");
        assert!(first <= last, "invariant 1: {ranges:?}");
        next = last.checked_add(1);
    }
    assert!(ranges.is_empty() || next.is_none(), "invariant 1: {ranges:?}");
    for (id, group) in &map.groups {
        let nodes: BTreeSet<NodeId> = group.replicas.iter().map(|replica| replica.node).collect();
        assert_eq!(nodes.len(), group.replicas.len(), "invariant 2: group {id} is twice on a node");
        for replica in &group.replicas {
            assert!(ids.insert(replica.id) && replica.id < map.next_replica, "invariant 2: replica {}", replica.id);
        }
    }
}

fn check(placement: &Placement) {
    assert_eq!(placement.map().check(), Ok(()), "a map that breaks its promises");
    promises(placement.map());
    let bytes = placement.snapshot();
    let restored = Placement::restore(&bytes).expect("a map that came about can be restored");
    assert_eq!(&restored, placement, "a restored map differs");
    assert_eq!(restored.digest(), placement.digest());
    let map = placement.map();
    let routes = Routes::new(map);
    let edges = map.shards().flat_map(|(_, range, _)| [range.first, range.last]);
    for hash in edges.chain([0, 1 << 63, u64::MAX]) {
        assert_eq!(routes.owner(hash), map.owner(hash), "the routes and the map name different owners");
        assert!(map.shards().next().is_none() || map.owner(hash).is_some(), "a hash without an owner");
    }
}

/// Plans until there is nothing to do, doing what is planned: every step is accepted, and it ends.
fn settle(placement: &mut Placement) {
    let nodes: BTreeSet<NodeId> = placement.map().nodes.keys().copied().collect();
    let Ok(goal) = Goal::new(8, 1, nodes.clone()) else { return };
    let leaders = |map: &ShardMap| -> BTreeMap<GroupId, NodeId> {
        map.groups.iter().filter_map(|(id, group)| Some((*id, group.replicas.first()?.node))).collect()
    };
    let mut observed = Observed { alive: nodes, patience_over: true, ..Observed::default() };
    observed.leaders = leaders(placement.map());
    for _ in 0..40 {
        let steps = plan(placement.map(), &goal, &observed);
        if steps.is_empty() {
            return;
        }
        for step in steps {
            match step {
                Step::Log(change) => {
                    let accepted = placement.apply(change);
                    assert_eq!(accepted, Ok(()), "a planned change was refused");
                    observed.leaders = leaders(placement.map());
                }
                Step::Transfer { group, from, to } => {
                    assert_eq!(observed.leaders.insert(group, to), Some(from), "a transfer from another leader");
                }
            }
        }
    }
    assert!(placement.map().groups.len() > 100, "a plan for few shards did not come to rest");
}

/// Changes as bytes: each behind its length, two bytes.
///
/// Each is malformed or the same when it is written again; applied, it is refused and leaves no trace, or the
/// map keeps its promises; plans for what has come about are accepted.
pub fn changes(mut data: &[u8]) {
    let mut placement = Placement::default();
    let nodes = data.first().copied().unwrap_or_default() % 4;
    // Mostly a founded cluster with some nodes.
    if nodes > 0 {
        let found = Change::Found { hash_key: HashKey([1; 16]), incarnation: 1, placement: vec![NodeId(1)] };
        placement.apply(found).expect("a first founding");
    }
    for node in 1..=u32::from(nodes) {
        let info = Node { quic: format!("h{node}:1"), http: None, domain: (node > 1).then(|| "d".to_owned()) };
        placement.apply(Change::Register { node: NodeId(node), info }).expect("a good node");
    }
    data = data.get(1..).unwrap_or_default();
    while let Some((length, rest)) = data.split_first_chunk::<2>() {
        let (bytes, rest) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
        data = rest;
        let Ok(change) = within(ample(bytes.len()), "decoding a change", || Change::decode(bytes)) else { continue };
        let again = change.encode();
        assert!(again.len() <= bytes.len(), "a change grew by being decoded");
        assert_eq!(Change::decode(&again).as_ref(), Ok(&change));
        let before = placement.clone();
        let accepted = placement.apply(change);
        assert!(accepted.is_ok() || placement == before, "invariant 4: a refused change left a trace");
        let rose = placement.map().version > before.map().version;
        assert_eq!(rose, placement != before, "invariant 3: the version does not tell that the map changed");
    }
    check(&placement);
    settle(&mut placement);
    check(&placement);
}

/// A snapshot of the placement group: `kind · bytes`. An even kind has its head and its checksum made right.
///
/// It is refused, or its checksum is right and the map keeps its promises, now and after further changes.
pub fn maps(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    let bytes = match kind % 2 {
        0 => [&[1], &SipHasher13::new().hash(body).to_le_bytes()[..], body].concat(),
        _ => body.to_vec(),
    };
    let restored = within(ample(bytes.len()), "restoring a map", || Placement::restore(&bytes));
    let Ok(mut placement) = restored else { return };
    let sum = u64::from_le_bytes(*bytes[1..].first_chunk().expect("a head"));
    assert_eq!(sum, SipHasher13::new().hash(&bytes[9..]), "a snapshot was restored whose checksum is wrong");
    check(&placement);
    // The end of all numbers is not reached by counting. What is close to it may be restored, and no change follows.
    let map = placement.map();
    if map.version.0.max(map.next_replica.0) > limits::COUNTER_END / 2 - MARGIN {
        return;
    }
    let info = Node { quic: "new:1".to_owned(), http: None, domain: None };
    let before = placement.clone();
    if placement.apply(Change::Register { node: NodeId(77), info }).is_err() {
        assert_eq!(placement, before, "invariant 4: a refused change left a trace");
    }
    settle(&mut placement);
    check(&placement);
}

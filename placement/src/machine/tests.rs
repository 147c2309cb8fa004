//! The promises of the placement group's state machine.

use proptest::prelude::*;

use super::*;

/// A node with addresses, alone in its failure domain.
pub(crate) fn node(n: u32) -> Node {
    Node { quic: format!("10.0.0.{n}:7400"), http: Some(format!("10.0.0.{n}:8400")), domain: None }
}

/// Founded, with nodes 1 to `nodes` registered.
pub(crate) fn founded(nodes: u32) -> Placement {
    let mut placement = Placement::default();
    let ids = (1..=nodes).map(NodeId).collect();
    placement.apply(Change::Found { hash_key: HashKey([9; 16]), incarnation: 1, placement: ids }).unwrap();
    for n in 1..=nodes {
        placement.apply(Change::Register { node: NodeId(n), info: node(n) }).unwrap();
    }
    placement
}

/// With `shards` shards, each on all of the nodes.
pub(crate) fn with_shards(nodes: u32, shards: usize) -> Placement {
    let mut placement = founded(nodes);
    let all: Vec<_> = (1..=nodes).map(NodeId).collect();
    placement.apply(Change::CreateShards { assignments: vec![all; shards] }).unwrap();
    placement
}

#[test]
fn founding_fixes_the_placement_group() {
    let placement = founded(4);
    let group = &placement.map().groups[&PLACEMENT];
    assert_eq!(group.replicas, founding_replicas(&[NodeId(4), NodeId(3), NodeId(2), NodeId(1)]));
    assert_eq!((group.range, group.epoch), (None, Epoch(0)));
    assert_eq!(placement.map().next_replica, ReplicaId(4));
    assert_eq!(placement.map().version, MapVersion(5));
}

#[test]
fn created_shards_have_fresh_replicas_and_epoch_one() {
    let map = with_shards(3, 2).map().clone();
    let ids = |g| map.groups[&GroupId(g)].replicas.iter().map(|r| r.id.0).collect::<Vec<_>>();
    assert_eq!((ids(0), ids(1), ids(2)), (vec![1, 2, 3], vec![4, 5, 6], vec![7, 8, 9]));
    assert_eq!(map.groups[&GroupId(1)].range, Some(Range { first: 0, last: u64::MAX / 2 }));
    assert_eq!(map.groups[&GroupId(2)].range, Some(Range { first: 1 << 63, last: u64::MAX }));
    assert!(map.shards().all(|(_, _, group)| group.epoch == Epoch(1)));
}

#[test]
fn registering_again_changes_only_what_is_new() {
    let mut placement = founded(3);
    let before = placement.clone();
    placement.apply(Change::Register { node: NodeId(2), info: node(2) }).unwrap();
    assert_eq!(placement, before, "invariant 4");
    placement.apply(Change::Register { node: NodeId(2), info: node(7) }).unwrap();
    assert_eq!(placement.map().nodes[&NodeId(2)], node(7));
    assert_eq!(placement.map().version.0, before.map().version.0 + 1, "invariant 3");
}

#[test]
fn refusals_say_why_and_leave_no_trace() {
    let long = Node { domain: Some("x".repeat(limits::ADDRESS_BYTES + 1)), ..node(1) };
    let create = |assignments: Vec<Vec<u32>>| Change::CreateShards {
        assignments: assignments.into_iter().map(|nodes| nodes.into_iter().map(NodeId).collect()).collect(),
    };
    let found = |nodes: &[u32]| Change::Found {
        hash_key: HashKey([1; 16]),
        incarnation: 2,
        placement: nodes.iter().copied().map(NodeId).collect(),
    };
    let register = |n, info| Change::Register { node: NodeId(n), info };
    let one = GroupId(1);
    for (start, change, why) in [
        (Placement::default(), register(1, node(1)), Rejected::NotFounded),
        (Placement::default(), create(vec![vec![1]]), Rejected::NotFounded),
        (Placement::default(), found(&[]), Rejected::Founders),
        (Placement::default(), found(&[0, 1]), Rejected::Founders),
        (Placement::default(), found(&[2, 1, 2]), Rejected::Founders),
        (founded(3), found(&[1]), Rejected::AlreadyFounded),
        (founded(3), register(0, node(1)), Rejected::NodeId(NodeId(0))),
        (founded(3), register(4, long), Rejected::Address(NodeId(4))),
        (founded(3), register(4, Node { quic: String::new(), ..node(1) }), Rejected::Address(NodeId(4))),
        (founded(limits::NODES as u32), register(limits::NODES as u32 + 1, node(1)), Rejected::TooManyNodes),
        (with_shards(3, 4), create(vec![vec![1]]), Rejected::AlreadyCreated),
        (founded(3), create(vec![]), Rejected::ShardCount(0)),
        (founded(3), create(vec![vec![1]; 1025]), Rejected::ShardCount(1025)),
        (founded(3), create(vec![vec![]]), Rejected::ReplicaCount { shard: one, replicas: 0 }),
        (founded(8), create(vec![(1..=8).collect()]), Rejected::ReplicaCount { shard: one, replicas: 8 }),
        (founded(3), create(vec![vec![1, 1]]), Rejected::TwiceOnNode { shard: one, node: NodeId(1) }),
        (founded(3), create(vec![vec![1, 4]]), Rejected::UnknownNode { shard: one, node: NodeId(4) }),
    ] {
        let mut placement = start.clone();
        assert_eq!(placement.apply(change), Err(why.clone()));
        assert!(placement == start, "invariant 4: a trace of {why:?}");
    }
}

#[test]
fn damaged_snapshots_are_refused() {
    let bytes = with_shards(3, 16).snapshot();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        assert!(Placement::restore(&damaged).is_err(), "invariant 5: byte {at} was damaged and nobody saw");
        assert!(Placement::restore(&bytes[..at]).is_err(), "invariant 5: cut at {at} and nobody saw");
    }
    assert_eq!(Placement::restore(&vec![FORMAT; limits::SNAPSHOT_BYTES + 1]), Err(Corrupt::Length));
    let mut lying = with_shards(3, 16);
    lying.map.groups.remove(&GroupId(3));
    assert!(matches!(Placement::restore(&lying.snapshot()), Err(Corrupt::Broken(Broken::Cover { .. }))));
}

#[test]
fn the_largest_map_fits_a_snapshot() {
    let mut placement = Placement::default();
    let top: Vec<_> = (0..limits::NODES as u32).map(|n| NodeId(u32::MAX - n)).collect();
    placement.apply(Change::Found { hash_key: HashKey([9; 16]), incarnation: 1, placement: top.clone() }).unwrap();
    let long = "x".repeat(limits::ADDRESS_BYTES);
    let info = Node { quic: long.clone(), http: Some(long.clone()), domain: Some(long) };
    for node in &top {
        placement.map.nodes.insert(*node, info.clone());
    }
    placement.map.version.0 = limits::COUNTER_END / 2 - 3;
    placement.map.next_replica.0 = limits::COUNTER_END / 2 - 8192;
    placement.apply(Change::CreateShards { assignments: vec![top[..7].to_vec(); 1024] }).unwrap();
    assert_eq!(Placement::restore(&placement.snapshot()), Ok(placement));
}

fn any_change() -> impl Strategy<Value = Change> {
    let nodes = |most| proptest::collection::vec((0..7u32).prop_map(NodeId), 0..most);
    prop_oneof![
        2 => (any::<[u8; 16]>(), any::<u16>(), nodes(6)).prop_map(|(key, incarnation, placement)| Change::Found {
            hash_key: HashKey(key),
            incarnation,
            placement
        }),
        6 => (0..7u32, 0..3u32).prop_map(|(n, at)| Change::Register { node: NodeId(n), info: node(at) }),
        2 => proptest::collection::vec(nodes(4), 0..4).prop_map(|assignments| Change::CreateShards { assignments }),
    ]
}

proptest! {
    /// Invariants 1 to 5 over any changes: `apply` asserts 1 and 2 itself.
    #[test]
    fn any_changes_keep_the_promises(changes in proptest::collection::vec(any_change(), 0..40)) {
        let mut placement = Placement::default();
        let mut twin = Placement::default();
        for change in changes {
            let before = placement.clone();
            let verdict = placement.apply(change.clone());
            prop_assert_eq!(twin.apply(Change::decode(&change.encode()).unwrap()), verdict.clone());
            let same = ShardMap { version: before.map().version, ..placement.map().clone() } == *before.map();
            let rose = placement.map().version > before.map().version;
            prop_assert_eq!(rose, !same, "invariant 3");
            prop_assert!(verdict.is_ok() || same, "invariant 4");
            prop_assert!(placement.map().next_replica >= before.map().next_replica, "invariant 2");
            // A replica starts over from its own snapshot.
            twin = Placement::restore(&twin.snapshot()).unwrap();
            prop_assert_eq!(&twin, &placement, "invariant 5");
            prop_assert_eq!(twin.digest(), placement.digest());
        }
    }

    #[test]
    fn bytes_from_outside_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Change::decode(&bytes);
        let whole = [&[FORMAT][..], &digest(&bytes).to_le_bytes(), &bytes].concat();
        if let Ok(placement) = Placement::restore(&whole) {
            prop_assert_eq!(placement.map().check(), Ok(()));
        }
    }
}

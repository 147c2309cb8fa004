//! The promises of the planner.

use proptest::prelude::*;

use super::*;
use crate::machine::{
    Placement,
    tests::{founded, node, with_shards},
};

fn ids(nodes: impl IntoIterator<Item = u32>) -> BTreeSet<NodeId> {
    nodes.into_iter().map(NodeId).collect()
}

fn goal(shards: u32, replicas: u8, nodes: u32) -> Goal {
    Goal::new(shards, replicas, ids(1..=nodes)).unwrap()
}

/// How many shards each of the live nodes leads.
fn counts(observed: &Observed) -> Vec<usize> {
    let led = |node: &NodeId| observed.leaders.iter().filter(|(g, n)| **g != PLACEMENT && *n == node).count();
    observed.alive.iter().map(led).collect()
}

fn spread(counts: &[usize]) -> usize {
    counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0)
}

fn squares(observed: &Observed) -> usize {
    counts(observed).iter().map(|count| count * count).sum()
}

/// Executes the first `steps` steps of a plan, checking what is promised of each.
fn execute(placement: &mut Placement, observed: &mut Observed, steps: &[Step]) {
    let mut moved = BTreeSet::new();
    for step in steps {
        match step {
            Step::Log(change) => assert_eq!(placement.apply(change.clone()), Ok(()), "invariant 1"),
            Step::Transfer { group, from, to } => {
                assert_ne!(*group, PLACEMENT, "invariant 2");
                assert!(observed.alive.contains(to), "invariant 2: {to} is dead");
                let replicas = &placement.map().groups[group].replicas;
                assert!(replicas.iter().any(|replica| replica.node == *to), "invariant 2: {to} has no replica");
                assert_eq!(observed.leaders.insert(*group, *to), Some(*from), "invariant 2");
                assert!(moved.insert(*group), "invariant 3: group {group} moved twice");
            }
        }
    }
}

/// Plans and executes until nothing is left to do.
fn settle(placement: &mut Placement, goal: &Goal, observed: &mut Observed) {
    for _ in 0..2000 {
        let steps = plan(placement.map(), goal, observed);
        if steps.is_empty() {
            return;
        }
        let before = squares(observed);
        execute(placement, observed, &steps);
        let transfers = steps.iter().any(|step| matches!(step, Step::Transfer { .. }));
        assert!(!transfers || squares(observed) < before, "invariant 4: a plan that gains nothing");
    }
    panic!("invariant 4: plans do not come to rest");
}

#[test]
fn a_cluster_comes_up_step_by_step() {
    let goal = goal(16, 3, 3);
    let mut placement = Placement::default();
    let mut observed = Observed { infos: (1..=2).map(|n| (NodeId(n), node(n))).collect(), ..Default::default() };
    assert_eq!(plan(placement.map(), &goal, &observed), [], "nothing is planned before the founding");
    let founders = (1..=3).map(NodeId).collect();
    placement.apply(Change::Found { hash_key: HashKey([1; 16]), incarnation: 1, placement: founders }).unwrap();
    settle(&mut placement, &goal, &mut observed);
    assert_eq!(placement.map().nodes.len(), 2);
    assert_eq!(placement.map().shards().count(), 0, "not while an expected node is missing");
    observed.infos.insert(NodeId(3), node(3));
    settle(&mut placement, &goal, &mut observed);
    assert_eq!(placement.map().shards().count(), 16);
}

#[test]
fn patience_ends_with_those_that_are_there() {
    let goal = Goal::new(8, 3, ids([1, 2, 3, 9])).unwrap();
    let placement = founded(4);
    let mut observed = Observed { alive: ids([1, 2, 3]), ..Default::default() };
    assert_eq!(plan(placement.map(), &goal, &observed), []);
    observed.patience_over = true;
    let steps = plan(placement.map(), &goal, &observed);
    let [Step::Log(Change::CreateShards { assignments })] = &steps[..] else { panic!("not one creation: {steps:?}") };
    assert!(assignments.iter().all(|nodes| nodes.iter().copied().collect::<BTreeSet<_>>() == observed.alive));
    observed.alive = ids([1, 2, 4]);
    assert_eq!(plan(placement.map(), &goal, &observed), [], "node 4 is not of the list");
}

#[test]
fn what_would_be_refused_is_not_planned() {
    let placement = founded(limits::NODES as u32 - 1);
    let bad = Node { quic: String::new(), http: None, domain: None };
    let infos = [(0, node(0)), (1, bad), (2, node(3)), (5000, node(4)), (5001, node(5))];
    let infos = infos.into_iter().map(|(n, info)| (NodeId(n), info)).collect();
    let observed = Observed { infos, ..Default::default() };
    let steps = plan(placement.map(), &Goal::new(4, 1, ids([7000])).unwrap(), &observed);
    let register = |n, info| Step::Log(Change::Register { node: NodeId(n), info });
    assert_eq!(steps, [register(2, node(3)), register(5000, node(4))]);
}

#[test]
fn goals_are_in_bounds() {
    assert_eq!(Goal::new(0, 1, ids([1])), Err(GoalError::Shards(0)));
    assert_eq!(Goal::new(1025, 1, ids([1])), Err(GoalError::Shards(1025)));
    assert_eq!(Goal::new(1, 0, ids([1])), Err(GoalError::Replicas(0)));
    assert_eq!(Goal::new(1, 8, ids(1..=9)), Err(GoalError::Replicas(8)));
    assert_eq!(Goal::new(1, 3, ids([1, 2])), Err(GoalError::TooFewNodes { replicas: 3, nodes: 2 }));
    assert_eq!(Goal::new(1, 1, ids([0, 1])), Err(GoalError::Nodes));
}

#[test]
fn leadership_is_passed_by_way_of_others() {
    // Node 1 leads three groups and can pass them to node 2 only, which has what it takes to pass to 3.
    let mut placement = founded(3);
    let pairs = [[1, 2], [1, 2], [1, 2], [2, 3], [2, 3], [2, 3]];
    let assignments = pairs.map(|pair| pair.map(NodeId).to_vec()).to_vec();
    placement.apply(Change::CreateShards { assignments }).unwrap();
    let leaders = (1..=6).map(|g| (GroupId(g), NodeId(if g <= 3 { 1 } else { 2 }))).collect();
    let mut observed = Observed { alive: ids(1..=3), leaders, ..Default::default() };
    settle(&mut placement, &goal(6, 2, 3), &mut observed);
    assert_eq!(counts(&observed), [2, 2, 2]);
    observed.leaders.insert(PLACEMENT, NodeId(1));
    assert_eq!(plan(placement.map(), &goal(6, 2, 3), &observed), []);
}

#[test]
fn a_plan_moves_no_group_twice() {
    // Group 1 goes to node 2 first; the third chain, to node 3, would take it on from there.
    let mut placement = founded(3);
    let nodes = [vec![1, 2, 3], vec![1, 2], vec![1, 2], vec![1, 2], vec![1, 2], vec![1, 2], vec![3]];
    let assignments = nodes.map(|nodes| nodes.into_iter().map(NodeId).collect()).to_vec();
    placement.apply(Change::CreateShards { assignments }).unwrap();
    let leaders = (1..=7).map(|g| (GroupId(g), NodeId(if g < 7 { 1 } else { 3 }))).collect();
    let mut observed = Observed { alive: ids(1..=3), leaders, ..Default::default() };
    settle(&mut placement, &goal(7, 3, 3), &mut observed);
    assert_eq!(spread(&counts(&observed)), 1);
}

#[test]
fn a_node_that_returns_gets_its_share_a_few_at_a_time() {
    let mut placement = with_shards(3, 64);
    let goal = goal(64, 3, 3);
    let leaders = (1..=64).map(|g| (GroupId(g), NodeId(1 + g % 2))).collect();
    let mut observed = Observed { alive: ids([1, 2]), leaders, ..Default::default() };
    assert_eq!(plan(placement.map(), &goal, &observed), [], "nothing goes to a dead node");
    observed.alive = ids(1..=3);
    assert_eq!(plan(placement.map(), &goal, &observed).len(), balance::TRANSFERS);
    settle(&mut placement, &goal, &mut observed);
    assert_eq!(spread(&counts(&observed)), 1);
}

/// A cluster with placed shards and any leaders, some unknown and some of them dead.
fn any_cluster() -> impl Strategy<Value = (Placement, Goal, Observed)> {
    (1u32..10, 1u8..6, 1u32..60, any::<u64>(), 0u32..3).prop_map(|(nodes, replicas, shards, seed, dead)| {
        let goal = goal(shards, replicas.min(nodes as u8), nodes);
        let mut placement = founded(nodes);
        settle(&mut placement, &goal, &mut Observed::default());
        let mut draw = seed;
        let mut next = |below: usize| {
            draw = draw.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (draw >> 33) as usize % below
        };
        let mut observed = Observed { alive: ids(1..=nodes.saturating_sub(dead).max(1)), ..Default::default() };
        for (id, _, group) in placement.map().shards() {
            // Lopsided: the lowest node of the group in most of the cases.
            let favourite = group.replicas.iter().map(|replica| replica.node).min().unwrap();
            let any = group.replicas[next(group.replicas.len())].node;
            match next(8) {
                0 => None,
                1 | 2 => observed.leaders.insert(id, any),
                _ => observed.leaders.insert(id, favourite),
            };
        }
        (placement, goal, observed)
    })
}

/// Whether every live node can lead `floor` or `floor + 1` of the groups that may move, by a search of its own:
/// single augmentations from groups to slots, for each of the two bounds.
fn could_be_even(map: &ShardMap, observed: &Observed) -> bool {
    let groups: Vec<Vec<NodeId>> = map
        .shards()
        .filter(|(id, _, group)| {
            let leader = observed.leaders.get(id);
            leader.is_some_and(|l| observed.alive.contains(l) && group.replicas.iter().any(|r| r.node == *l))
        })
        .map(|(_, _, group)| group.replicas.iter().map(|r| r.node).filter(|n| observed.alive.contains(n)).collect())
        .collect();
    let floor = groups.len() / observed.alive.len();
    let ceiling = groups.len().div_ceil(observed.alive.len());
    matched(&groups, floor) == floor * observed.alive.len() && matched(&groups, ceiling) == groups.len()
}

/// How many groups can be given to nodes, none taking more than `most`.
fn matched(groups: &[Vec<NodeId>], most: usize) -> usize {
    fn give(
        group: usize,
        groups: &[Vec<NodeId>],
        most: usize,
        held: &mut BTreeMap<NodeId, Vec<usize>>,
        seen: &mut BTreeSet<NodeId>,
    ) -> bool {
        for &node in &groups[group] {
            if !seen.insert(node) {
                continue;
            }
            if held.entry(node).or_default().len() < most {
                held.entry(node).or_default().push(group);
                return true;
            }
            for i in 0..most {
                let other = held[&node][i];
                if give(other, groups, most, held, seen) {
                    held.get_mut(&node).unwrap()[i] = group;
                    return true;
                }
            }
        }
        false
    }
    let mut held = BTreeMap::new();
    (0..groups.len()).filter(|&group| give(group, groups, most, &mut held, &mut BTreeSet::new())).count()
}

fn any_domains() -> impl Strategy<Value = Vec<(NodeId, Option<String>)>> {
    proptest::collection::vec(proptest::option::weighted(0.8, 0..4u32), 1..12).prop_map(|domains| {
        (1..).map(NodeId).zip(domains.into_iter().map(|domain| domain.map(|d| format!("rack-{d}")))).collect()
    })
}

fn loads(placed: &[Vec<NodeId>], nodes: usize) -> (Vec<usize>, Vec<usize>) {
    let all = (1..=nodes as u32).map(NodeId);
    let load = |node| placed.iter().filter(|replicas| replicas.contains(&node)).count();
    let lead = |node| placed.iter().filter(|replicas| replicas[0] == node).count();
    (all.clone().map(load).collect(), all.map(lead).collect())
}

proptest! {
    /// Invariants 2, 3 and 4. Leaders that are dead are an old report: they count for nobody.
    #[test]
    fn plans_come_to_rest_with_even_leaders((mut placement, goal, mut observed) in any_cluster()) {
        let even = could_be_even(placement.map(), &observed);
        let untouched: Vec<_> = observed.leaders.clone().into_iter().filter(|(_, n)| !observed.alive.contains(n)).collect();
        settle(&mut placement, &goal, &mut observed);
        prop_assert!(!even || spread(&counts(&observed)) <= 1, "invariant 4: {:?}", counts(&observed));
        for (group, leader) in untouched {
            prop_assert_eq!(observed.leaders[&group], leader, "invariant 2");
        }
    }

    /// Invariant 4: wherever the execution of a plan stops, nothing is worse.
    #[test]
    fn plans_may_stop_anywhere((mut placement, goal, mut observed) in any_cluster(), stops in proptest::collection::vec(0..6usize, 8)) {
        for stop in stops {
            let steps = plan(placement.map(), &goal, &observed);
            let before = squares(&observed);
            execute(&mut placement, &mut observed, &steps[..stop.min(steps.len())]);
            prop_assert!(squares(&observed) <= before, "invariant 4");
        }
        settle(&mut placement, &goal, &mut observed);
    }

    /// Three replicas on three nodes: always within one, from any start.
    #[test]
    fn three_nodes_are_always_even(leaders in proptest::collection::vec(1..=3u32, 1..80)) {
        let mut placement = with_shards(3, leaders.len());
        let leaders = (1..).map(GroupId).zip(leaders.into_iter().map(NodeId)).collect::<BTreeMap<_, _>>();
        let goal = goal(leaders.len() as u32, 3, 3);
        let mut observed = Observed { alive: ids(1..=3), leaders, ..Default::default() };
        settle(&mut placement, &goal, &mut observed);
        prop_assert!(spread(&counts(&observed)) <= 1);
    }

    /// Invariant 1 of placing: as many failure domains as there are.
    #[test]
    fn shards_use_every_domain_before_one_twice(nodes in any_domains(), shards in 1..40usize, replicas in 1..6usize) {
        let replicas = replicas.min(nodes.len());
        for placed in place::assignments(&nodes, shards, replicas) {
            prop_assert_eq!(placed.iter().collect::<BTreeSet<_>>().len(), replicas, "two replicas on a node");
            let domain = |node: &NodeId| nodes.iter().find(|(n, _)| n == node).unwrap().1.clone();
            let uses = |name: &Option<String>| placed.iter().filter(|node| domain(node) == *name).count();
            for (idle, name) in nodes.iter().filter(|(node, _)| !placed.contains(node)) {
                let here = if name.is_some() { uses(name) } else { 0 };
                let most = nodes.iter().filter(|(_, name)| name.is_some()).map(|(_, name)| uses(name)).max();
                prop_assert!(most.unwrap_or(0) <= here + 1, "{idle} stands free in a domain that is used less");
            }
        }
    }

    /// Invariants 2 and 3 of placing.
    #[test]
    fn replicas_and_leaders_are_even(domains in 1..6usize, size in 1..4usize, shards in 1..80usize, replicas in 1..6usize) {
        let nodes: Vec<_> = (0..domains * size)
            .map(|i| (NodeId(i as u32 + 1), (size > 1).then(|| format!("rack-{}", i % domains))))
            .collect();
        let placed = place::assignments(&nodes, shards, replicas.min(nodes.len()));
        let (load, lead) = loads(&placed, nodes.len());
        prop_assert!(spread(&load) <= 1, "invariant 2: {:?}", load);
        prop_assert!(spread(&lead) <= 1, "invariant 3: {:?}", lead);
    }
}

//! Who should lead what.
//!
//! Passing one group from a node that leads `a` groups to one that leads `b ≤ a − 2` lowers the sum of the
//! squares of all counts. So does a chain of passes whose ends are such nodes: those between give one and
//! get one. Every chain lowers the sum by two or more, so chains run out; and when none is left the sum is
//! the least that the replicas allow ("Semi-matchings for bipartite graphs and load balancing", Harvey,
//! Ladner, Lovász, Tamir 2006), which is a spread of one wherever any assignment has that.
//!
//! A chain is searched from the fullest node, breadth first, to the nearest of the emptiest that it
//! reaches. Each node between leads more than its end, and the passes are listed from the end: stopped
//! anywhere, the sum has not risen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Step;
use crate::ids::*;

/// How many transfers one plan holds; a longer chain is planned whole, alone. Each transfer costs its group
/// a pause of about one round trip.
pub(super) const TRANSFERS: usize = 4;

struct Led {
    leader: NodeId,
    /// The live nodes with a replica.
    nodes: Vec<NodeId>,
}

/// Who leads what, among live nodes.
pub(super) struct Leads {
    counts: BTreeMap<NodeId, usize>,
    groups: BTreeMap<GroupId, Led>,
    by_node: BTreeMap<NodeId, BTreeSet<GroupId>>,
}

impl Leads {
    /// Live nodes that lead nothing yet.
    pub(super) fn new(alive: impl Iterator<Item = NodeId>) -> Leads {
        let counts = alive.map(|node| (node, 0)).collect();
        Leads { counts, groups: BTreeMap::new(), by_node: BTreeMap::new() }
    }

    /// A group, its leader and its nodes. Left out where the leader is not a live one of them: such a
    /// report is old.
    pub(super) fn add(&mut self, group: GroupId, leader: NodeId, nodes: &[NodeId]) {
        let nodes: Vec<_> = nodes.iter().copied().filter(|node| self.counts.contains_key(node)).collect();
        if nodes.contains(&leader) {
            self.groups.insert(group, Led { leader, nodes });
            self.by_node.entry(leader).or_default().insert(group);
            *self.counts.entry(leader).or_default() += 1;
        }
    }

    /// How many groups a node leads.
    pub(super) fn count(&self, node: NodeId) -> usize {
        self.counts.get(&node).copied().unwrap_or(0)
    }

    /// Who leads a group.
    pub(super) fn leader(&self, group: GroupId) -> Option<NodeId> {
        self.groups.get(&group).map(|led| led.leader)
    }

    /// The next transfers, at most `most` unless the first chain is longer. No group moves twice.
    pub(super) fn balance(mut self, most: usize) -> Vec<Step> {
        let mut steps = Vec::new();
        while let Some(chain) = self.chain() {
            if !steps.is_empty() && steps.len() + chain.len() > most {
                break;
            }
            for (group, to) in chain {
                let from = self.pass(group, to);
                steps.push(Step::Transfer { group, from, to });
                // Moved once, it stands for this plan.
                self.by_node.entry(to).or_default().remove(&group);
            }
        }
        steps
    }

    /// Passes leadership, of a group as often as need be, until no chain is left.
    pub(super) fn settle(&mut self) {
        while let Some(chain) = self.chain() {
            for (group, to) in chain {
                self.pass(group, to);
            }
        }
    }

    fn pass(&mut self, group: GroupId, to: NodeId) -> NodeId {
        let led = self.groups.get_mut(&group).expect("only known groups are in a chain");
        let from = std::mem::replace(&mut led.leader, to);
        assert!(from != to && led.nodes.contains(&to), "invariant 2: group {group} cannot go from {from} to {to}");
        self.by_node.entry(from).or_default().remove(&group);
        self.by_node.entry(to).or_default().insert(group);
        *self.counts.entry(from).or_default() -= 1;
        *self.counts.entry(to).or_default() += 1;
        from
    }

    /// A chain that lowers the sum, its last pass first.
    fn chain(&self) -> Option<Vec<(GroupId, NodeId)>> {
        let least = *self.counts.values().min()?;
        let mut fullest: Vec<_> = self.counts.iter().filter(|(_, count)| **count >= least + 2).collect();
        fullest.sort_by_key(|(node, count)| (std::cmp::Reverse(**count), **node));
        fullest.into_iter().find_map(|(node, count)| self.chain_from(*node, *count))
    }

    fn chain_from(&self, start: NodeId, count: usize) -> Option<Vec<(GroupId, NodeId)>> {
        // How each node was reached: from which, by passing which group.
        let mut reached: BTreeMap<NodeId, (NodeId, GroupId)> = BTreeMap::new();
        let mut queue = VecDeque::from([start]);
        let mut end: Option<NodeId> = None;
        while let Some(at) = queue.pop_front() {
            if self.count(at) + 2 <= count && end.is_none_or(|end| self.count(at) < self.count(end)) {
                end = Some(at);
            }
            for &group in self.by_node.get(&at).into_iter().flatten() {
                for &next in &self.groups[&group].nodes {
                    if next != start && !reached.contains_key(&next) {
                        reached.insert(next, (at, group));
                        queue.push_back(next);
                    }
                }
            }
        }
        let mut at = end?;
        let mut chain = Vec::new();
        while at != start {
            let (from, group) = reached[&at];
            chain.push((group, at));
            at = from;
        }
        Some(chain)
    }
}

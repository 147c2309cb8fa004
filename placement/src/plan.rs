//! What to change next.
//!
//! [`plan`] is a function of the map, of what the operators want ([`Goal`]) and of what the placement
//! leader sees ([`Observed`]). It remembers nothing, so whoever leads the placement group next asks again
//! and carries on. The shell executes the [`Step`]s, at leisure and in order; any of them may fail.
//!
//! # Invariants
//! 1. Every logged step, applied in order to the map that the plan was made for, is accepted by
//!    [`Placement::apply`](crate::Placement::apply).
//! 2. A transfer goes from the leader that was observed to a live node that holds a replica of the group;
//!    groups without an observed leader, and the placement group, are left alone.
//! 3. A plan moves a group at most once, so its transfers do not depend on each other.
//! 4. Repeating *plan, execute* ends. Then no node leads two groups more than another to which leadership
//!    could be passed, by way of others if need be; where the replicas allow all live nodes to be within one,
//!    they are. A plan executed in part brings no imbalance that was not there.
//!
//! Not done here: founding (it needs randomness), and moving replicas once they are placed.

mod balance;
mod place;

use std::collections::{BTreeMap, BTreeSet};

use crate::{change::Change, ids::*, limits, machine::check_registration, map::*};

/// What the operators want, in bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goal {
    shards: usize,
    replicas: usize,
    expected: BTreeSet<NodeId>,
}

/// Why a goal cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GoalError {
    /// Not 1 to [`limits::SHARDS`].
    #[error("{0} shards are not between 1 and {max}", max = limits::SHARDS)]
    Shards(u32),
    /// Not 1 to [`limits::REPLICAS`].
    #[error("{0} replicas are not between 1 and {max}", max = limits::REPLICAS)]
    Replicas(u8),
    /// More replicas than nodes to hold them.
    #[error("{replicas} replicas do not fit on {nodes} nodes")]
    TooFewNodes {
        /// How many replicas.
        replicas: u8,
        /// How many nodes.
        nodes: usize,
    },
    /// Too many nodes, or a node 0.
    #[error("the static list must name at most {max} nodes, with ids from 1", max = limits::NODES)]
    Nodes,
}

impl Goal {
    /// So many shards with so many replicas each, on the nodes of the static list.
    pub fn new(shards: u32, replicas: u8, expected: BTreeSet<NodeId>) -> Result<Goal, GoalError> {
        if !(1..=limits::SHARDS).contains(&(shards as usize)) {
            return Err(GoalError::Shards(shards));
        }
        if !(1..=limits::REPLICAS).contains(&usize::from(replicas)) {
            return Err(GoalError::Replicas(replicas));
        }
        if expected.len() > limits::NODES || expected.contains(&NodeId(0)) {
            return Err(GoalError::Nodes);
        }
        if expected.len() < usize::from(replicas) {
            return Err(GoalError::TooFewNodes { replicas, nodes: expected.len() });
        }
        Ok(Goal { shards: shards as usize, replicas: replicas.into(), expected })
    }
}

/// What the placement leader sees of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The nodes that reported lately.
    pub alive: BTreeSet<NodeId>,
    /// The leaders that nodes reported to be.
    pub leaders: BTreeMap<GroupId, NodeId>,
    /// How nodes say they are reached, as reported.
    pub infos: BTreeMap<NodeId, Node>,
    /// Whether the wait for all of the static list is over: then those that are there have to do.
    pub patience_over: bool,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Propose this change to the placement group.
    Log(Change),
    /// Ask `from` to hand the leadership of `group` to `to`.
    Transfer {
        /// Which.
        group: GroupId,
        /// Its leader.
        from: NodeId,
        /// Its next.
        to: NodeId,
    },
}

/// What to do next; nothing where all is well. Nodes whose addresses are news are registered; the shards
/// are created when all nodes of the static list have registered or, once patience is over, when as many
/// of them as a shard has replicas are alive; after that, leadership is spread, a few transfers a plan.
pub fn plan(map: &ShardMap, goal: &Goal, observed: &Observed) -> Vec<Step> {
    if !map.is_founded() {
        return Vec::new();
    }
    let mut steps = registrations(map, observed);
    if map.shards().next().is_some() {
        steps.extend(transfers(map, observed));
    } else if let Some(nodes) = hosts(map, goal, observed) {
        let assignments = place::assignments(&nodes, goal.shards, goal.replicas);
        steps.push(Step::Log(Change::CreateShards { assignments }));
    }
    steps
}

fn registrations(map: &ShardMap, observed: &Observed) -> Vec<Step> {
    let room = limits::NODES.saturating_sub(map.nodes.len());
    let mut news = 0;
    let mut steps = Vec::new();
    for (&node, info) in &observed.infos {
        let old = map.nodes.get(&node);
        // What the map would refuse is not logged, or it would be logged again with every plan.
        if old == Some(info) || check_registration(map, node, info).is_err() {
            continue;
        }
        news += usize::from(old.is_none());
        if old.is_some() || news <= room {
            steps.push(Step::Log(Change::Register { node, info: info.clone() }));
        }
    }
    steps
}

/// The nodes to create the shards on, with their failure domains, if it is time.
fn hosts(map: &ShardMap, goal: &Goal, observed: &Observed) -> Option<Vec<(NodeId, Option<String>)>> {
    let registered = |node: &NodeId| Some((*node, map.nodes.get(node)?.domain.clone()));
    let all: Vec<_> = goal.expected.iter().filter_map(registered).collect();
    if all.len() == goal.expected.len() {
        return Some(all);
    }
    let present: Vec<_> = goal.expected.intersection(&observed.alive).filter_map(registered).collect();
    (observed.patience_over && present.len() >= goal.replicas).then_some(present)
}

fn transfers(map: &ShardMap, observed: &Observed) -> Vec<Step> {
    let mut leads = balance::Leads::new(observed.alive.iter().copied());
    for (id, _, group) in map.shards() {
        let nodes: Vec<_> = group.replicas.iter().map(|replica| replica.node).collect();
        if let Some(leader) = observed.leaders.get(&id) {
            leads.add(id, *leader, &nodes);
        }
    }
    leads.balance(balance::TRANSFERS)
}

#[cfg(test)]
mod tests;

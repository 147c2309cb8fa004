//! Who leads what, and whether the cluster is well: what its nodes say of themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::bail;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use wardlock_router::Client;

/// How long a node may take to tell of itself before it counts as silent.
const STATUS: Duration = Duration::from_secs(1);
/// How often a cluster that is not well yet is looked at.
pub(super) const LOOK: Duration = Duration::from_millis(100);
/// So many entries behind its leader a replica may be and still count as caught up: what is on its way.
const BEHIND: u64 = 2_000;
/// The number of the placement group, which is no shard.
const PLACEMENT: u32 = 0;

/// One replica, as its node tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Replica {
    node: u32,
    group: u32,
    term: u64,
    /// On the leader: for each other member how many entries it is behind, where that is known.
    leads: Option<Vec<(u32, Option<u64>)>>,
}

/// All that the nodes said when they were asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// Every node of the map, and whether it answered.
    nodes: BTreeMap<u32, bool>,
    groups: BTreeSet<u32>,
    replicas: Vec<Replica>,
}

impl View {
    /// Asks every node at once.
    pub(crate) async fn ask(client: &Client) -> View {
        let map = client.map();
        let ask = |node| async move { (node, client.status(node, STATUS).await.ok()) };
        let mut view = View { groups: map.groups.keys().map(|group| group.0).collect(), ..View::default() };
        for (node, status) in join_all(map.nodes.keys().copied().map(ask)).await {
            view.nodes.insert(node.0, status.is_some());
            for group in status.into_iter().flat_map(|status| status.groups) {
                let end = group.last_log.unwrap_or(0);
                let others = group.matched.iter().filter(|(member, _)| *member != node);
                let behind = others.map(|(member, upto)| (member.0, upto.map(|upto| end.saturating_sub(upto))));
                let leads = (group.leader == Some(node)).then(|| behind.collect());
                view.replicas.push(Replica { node: node.0, group: group.group.0, term: group.term, leads });
            }
        }
        view
    }

    /// The replica that says that it leads; the highest term where two do, for a deposed one may not know it yet.
    fn leading(&self, group: u32) -> Option<&Replica> {
        let leading = self.replicas.iter().filter(|replica| replica.group == group && replica.leads.is_some());
        leading.max_by_key(|replica| replica.term)
    }

    /// The shards that this node leads.
    pub(crate) fn led_by(&self, node: u32) -> Vec<u32> {
        let shards = self.groups.iter().copied().filter(|group| *group != PLACEMENT);
        shards.filter(|shard| self.leading(*shard).is_some_and(|replica| replica.node == node)).collect()
    }

    /// The node that leads the most shards, the first of them where several do; none where no shard has a leader.
    pub(crate) fn busiest(&self) -> Option<u32> {
        let led = self.nodes.keys().map(|node| (*node, self.led_by(*node).len())).filter(|(_, led)| *led > 0);
        led.min_by_key(|(node, led)| (std::cmp::Reverse(*led), *node)).map(|(node, _)| node)
    }

    /// What is wrong, if anything: a node that is silent, a group without a leader, a replica that is behind.
    pub(crate) fn ill(&self) -> Option<String> {
        if self.nodes.is_empty() {
            return Some("no node is known".to_owned());
        }
        if let Some((silent, _)) = self.nodes.iter().find(|(_, answers)| !**answers) {
            return Some(format!("node {silent} does not answer"));
        }
        for group in &self.groups {
            let Some(leader) = self.leading(*group) else { return Some(format!("shard {group} has no leader")) };
            for (member, behind) in leader.leads.iter().flatten() {
                match behind {
                    Some(entries) if *entries <= BEHIND => {}
                    Some(entries) => {
                        return Some(format!("node {member} is {entries} entries behind in shard {group}"));
                    }
                    None => return Some(format!("node {member} has nothing of shard {group} yet")),
                }
            }
        }
        None
    }
}

/// Waits until the cluster is well, and says how it then is.
///
/// # Errors
/// Where it is not within `patience`, and what is still wrong.
pub(crate) async fn well(client: &Client, patience: Duration) -> anyhow::Result<View> {
    let until = Instant::now() + patience;
    loop {
        let view = View::ask(client).await;
        match view.ill() {
            None => return Ok(view),
            Some(ill) if Instant::now() >= until => {
                bail!("the cluster is not well after {} s: {ill}", patience.as_secs())
            }
            Some(_) => sleep(LOOK).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A leader of `group` on `node`, whose others are so far behind.
    fn leader(node: u32, group: u32, term: u64, behind: [Option<u64>; 2]) -> Replica {
        let others = (1..=3).filter(|other| *other != node).zip(behind).collect();
        Replica { node, group, term, leads: Some(others) }
    }

    fn view(replicas: Vec<Replica>) -> View {
        View { nodes: (1..=3).map(|node| (node, true)).collect(), groups: (0..=3).collect(), replicas }
    }

    const WELL: [Option<u64>; 2] = [Some(0), Some(3)];

    #[test]
    fn the_busiest_node_leads_the_most_shards_and_the_placement_group_is_none() {
        // Node 1 leads two groups, of which one is no shard.
        let of = |leaders: [u32; 4]| {
            view(
                (0..)
                    .zip(leaders)
                    .filter(|(_, node)| *node > 0)
                    .map(|(group, node)| leader(node, group, 1, WELL))
                    .collect(),
            )
        };
        assert_eq!(of([1, 1, 3, 3]).busiest(), Some(3));
        assert_eq!(of([1, 1, 3, 3]).led_by(3), [2, 3]);
        assert_eq!(of([3, 2, 1, 3]).busiest(), Some(1), "the first of equals");
        assert_eq!(of([1, 0, 0, 0]).busiest(), None);
    }

    #[test]
    fn of_two_leaders_the_one_of_the_higher_term_leads() {
        let view = view(vec![leader(1, 1, 7, WELL), leader(2, 1, 8, WELL)]);
        assert_eq!((view.led_by(1), view.led_by(2)), (vec![], vec![1]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let led = || (0..=3).map(|group| leader(1, group, 1, WELL)).collect::<Vec<_>>();
        assert_eq!(view(led()).ill(), None);
        assert!(View::default().ill().is_some());

        let mut silent = view(led());
        silent.nodes.insert(2, false);
        assert_eq!(silent.ill().as_deref(), Some("node 2 does not answer"));
        assert_eq!(view(led()[..3].to_vec()).ill().as_deref(), Some("shard 3 has no leader"));

        let mut behind = led();
        behind[2] = leader(1, 2, 1, [Some(0), Some(BEHIND + 1)]);
        assert_eq!(view(behind).ill().as_deref(), Some("node 3 is 2001 entries behind in shard 2"));
        let mut absent = led();
        absent[2] = leader(1, 2, 1, [None, Some(0)]);
        assert_eq!(view(absent).ill().as_deref(), Some("node 2 has nothing of shard 2 yet"));
    }
}

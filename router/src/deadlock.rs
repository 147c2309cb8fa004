//! Deadlocks: sessions of which each waits for the next, over all shards.
//!
//! A function of what the shards' leaders say of their waiters ([`Query::Waits`](wardlock_machine::Query::Waits)):
//! [`Seen`] is one look at all of them, [`stand`] what two looks have in common, [`find`] the circles in that.
//!
//! # When a circle is a deadlock
//! 1. *All its waits are there at one moment.* The shards are looked at one after the other, so one look may put together
//!    what never was at the same time. A wait and a grant have numbers that are never used again: what two looks show
//!    alike was there all the time from the end of the first to the beginning of the second.
//! 2. *None of its sessions gives anything back while it waits.* A session may have many threads; of one that waits for
//!    `a` another thread may release `b` any moment. So only a session that says that it does one thing at a time
//!    ([`SERIAL`](wardlock_machine::SERIAL)) counts as stuck when its wait is, and then only if all its waits are.
//! 3. *Nothing else helps.* A waiter goes on where the one in front goes on; the first in line where all go on whom it
//!    waits for, or any of them where one is enough. Whoever may go on is taken out, then whoever waits for those, until
//!    nothing changes. What is left can never go on by itself: each of it waits for another of it, so it has circles.
//!
//! Waits end by themselves in time, so what was a deadlock may be none when the victim hears of it. That no victim is
//! ever chosen without one is what is promised.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, VecDeque},
};

use wardlock_machine::{Blockers, BreakDeadlock, Circle, CircleStep, SessionId, ShardId, Token, Wait, limits, planted};

/// A wait's name: its shard and its number there.
pub type WaitId = (ShardId, u64);

/// One look at the waiters of all shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(pub BTreeMap<WaitId, Wait>);

impl Seen {
    /// Adds what a shard's leader says.
    pub fn add(&mut self, shard: ShardId, waits: Vec<Wait>) {
        self.0.extend(waits.into_iter().map(|wait| ((shard, wait.arrival), wait)));
    }
}

/// The waits, and of those whom they wait for, what both looks show: that was there all the time between them.
pub fn stand(before: &Seen, after: Seen) -> Seen {
    let both = after.0.into_iter().filter_map(|(id, mut wait)| {
        if planted!("one-look-shows-a-deadlock") {
            return Some((id, wait));
        }
        let blockers = blockers_of_both(&before.0.get(&id)?.blockers, wait.blockers);
        wait.blockers = blockers;
        Some((id, wait))
    });
    Seen(both.collect())
}

fn blockers_of_both(before: &Blockers, after: Blockers) -> Blockers {
    let common = |before: &[(SessionId, Token)], after: Vec<(SessionId, Token)>| {
        let before: BTreeSet<_> = before.iter().collect();
        after.into_iter().filter(|grant| before.contains(grant)).collect::<Vec<_>>()
    };
    match (before, after) {
        (Blockers::Waiter(before), Blockers::Waiter(after)) if *before == after => Blockers::Waiter(after),
        (Blockers::All(before), Blockers::All(after)) => Blockers::All(common(before, after)),
        // Of these the wait may end by any: one that has come or gone may be the one that helps.
        (Blockers::Any(before), Blockers::Any(after)) if *before == after => Blockers::Any(after),
        _ => Blockers::Nobody,
    }
}

/// A deadlock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deadlock {
    /// Whose wait is to end: of the lowest priority in the circle, and of these the youngest.
    pub victim: WaitId,
    /// A shortest circle with it.
    pub circle: Circle,
}

impl Deadlock {
    /// What ends the victim's wait.
    pub fn verdict(&self, seen: &Seen) -> Option<BreakDeadlock> {
        let wait = seen.0.get(&self.victim)?;
        let (key, session, arrival) = (wait.key.clone(), wait.session, wait.arrival);
        Some(BreakDeadlock { key, session, arrival, circle: self.circle.clone() })
    }
}

/// The deadlocks in what stands, one of each knot of circles: when its victim has gone, the next look tells what is left
/// of the others. In the order of the victims.
pub fn find(seen: &Seen) -> Vec<Deadlock> {
    let graph = Graph::new(seen);
    let mut found = Vec::new();
    for knot in graph.knots() {
        let serial = knot.iter().copied().filter(|wait| graph.waits[*wait].1.serial);
        // Nothing but serial sessions closes a circle: queues are in order.
        let Some(victim) = serial.max_by_key(|wait| graph.rank(*wait)) else { continue };
        let circle = graph.circle(victim, &knot);
        found.push(Deadlock { victim: *graph.waits[victim].0, circle });
    }
    found.sort_by_key(|deadlock| deadlock.victim);
    found
}

/// Who waits for whom, of those who never go on by themselves.
struct Graph<'a> {
    waits: Vec<(&'a WaitId, &'a Wait)>,
    /// For each wait those for which it waits, stuck ones only; empty for one that is not stuck.
    next: Vec<Vec<usize>>,
}

impl<'a> Graph<'a> {
    fn new(seen: &'a Seen) -> Graph<'a> {
        let waits: Vec<(&WaitId, &Wait)> = seen.0.iter().collect();
        let index = |id: WaitId| waits.binary_search_by_key(&&id, |(known, _)| known).ok();
        let mut of_session: BTreeMap<SessionId, Vec<usize>> = BTreeMap::new();
        for (at, (_, wait)) in waits.iter().enumerate() {
            of_session.entry(wait.session).or_default().push(at);
        }
        let mut stuck = vec![true; waits.len()];
        let is_stuck = |session: SessionId, stuck: &[bool]| {
            let serial = |at: usize| waits[at].1.serial || planted!("threads-count-as-stuck");
            of_session.get(&session).is_some_and(|all| all.iter().all(|at| stuck[*at]) && serial(all[0]))
        };
        let is_held = |at: usize, stuck: &[bool]| {
            let (id, wait) = waits[at];
            match &wait.blockers {
                Blockers::Nobody => false,
                Blockers::Waiter(arrival) => index((id.0, *arrival)).is_some_and(|before| stuck[before]),
                Blockers::All(grants) => grants.iter().any(|(session, _)| is_stuck(*session, stuck)),
                Blockers::Any(grants) => {
                    !grants.is_empty() && grants.iter().all(|(session, _)| is_stuck(*session, stuck))
                }
            }
        };
        // Each wait is looked at again whenever one that may hold it goes on.
        let mut held_by: Vec<Vec<usize>> = vec![Vec::new(); waits.len()];
        for (at, (id, wait)) in waits.iter().enumerate() {
            match &wait.blockers {
                Blockers::Nobody => {}
                Blockers::Waiter(arrival) => {
                    if let Some(before) = index((id.0, *arrival)) {
                        held_by[before].push(at);
                    }
                }
                Blockers::All(grants) | Blockers::Any(grants) => {
                    for before in grants.iter().filter_map(|(session, _)| of_session.get(session)).flatten() {
                        held_by[*before].push(at);
                    }
                }
            }
        }
        let mut doubtful: VecDeque<usize> = (0..waits.len()).collect();
        while let Some(at) = doubtful.pop_front() {
            if stuck[at] && !is_held(at, &stuck) {
                stuck[at] = false;
                doubtful.extend(&held_by[at]);
            }
        }
        let mut next = vec![Vec::new(); waits.len()];
        for (at, before) in held_by.iter().enumerate().filter(|(at, _)| stuck[*at]) {
            for waiting in before.iter().filter(|waiting| stuck[**waiting]) {
                let by_queue = matches!(waits[*waiting].1.blockers, Blockers::Waiter(_));
                if by_queue || is_stuck(waits[at].1.session, &stuck) {
                    next[*waiting].push(at);
                }
            }
        }
        Graph { waits, next }
    }

    /// Who is to go first: of the lowest priority, and of these the youngest.
    fn rank(&self, at: usize) -> impl Ord + use<> {
        let (id, wait) = self.waits[at];
        (Reverse(wait.priority), wait.since, *id)
    }

    /// The sets of waits in which each is reached from each, of two and more. (A wait is never for itself.)
    ///
    /// Tarjan's algorithm, without recursion: circles may be long.
    fn knots(&self) -> Vec<Vec<usize>> {
        const NEW: usize = usize::MAX;
        let (mut order, mut low) = (vec![NEW; self.waits.len()], vec![0; self.waits.len()]);
        let (mut stack, mut on_stack, mut count) = (Vec::new(), vec![false; self.waits.len()], 0);
        let mut knots = Vec::new();
        for root in 0..self.waits.len() {
            if order[root] != NEW {
                continue;
            }
            let mut path = vec![(root, 0)];
            while let Some((at, edge)) = path.pop() {
                if edge == 0 {
                    (order[at], low[at]) = (count, count);
                    count += 1;
                    stack.push(at);
                    on_stack[at] = true;
                }
                if let Some(to) = self.next[at].get(edge).copied() {
                    path.push((at, edge + 1));
                    if order[to] == NEW {
                        path.push((to, 0));
                    } else if on_stack[to] {
                        low[at] = low[at].min(order[to]);
                    }
                    continue;
                }
                if let Some((before, _)) = path.last() {
                    low[*before] = low[*before].min(low[at]);
                }
                if low[at] == order[at] {
                    let mut knot = Vec::new();
                    while let Some(top) = stack.pop() {
                        on_stack[top] = false;
                        knot.push(top);
                        if top == at {
                            break;
                        }
                    }
                    if knot.len() > 1 {
                        knots.push(knot);
                    }
                }
            }
        }
        knots
    }

    /// A shortest circle through a wait.
    fn circle(&self, from: usize, knot: &[usize]) -> Circle {
        let knot: BTreeSet<usize> = knot.iter().copied().collect();
        let mut came: BTreeMap<usize, usize> = BTreeMap::new();
        let mut queue = VecDeque::from([from]);
        'all: while let Some(at) = queue.pop_front() {
            for to in self.next[at].iter().filter(|to| knot.contains(to)) {
                if !came.contains_key(to) {
                    came.insert(*to, at);
                    queue.push_back(*to);
                }
                if *to == from {
                    break 'all;
                }
            }
        }
        let mut back = Vec::new();
        let mut at = from;
        while let Some(before) = came.get(&at) {
            back.push(*before);
            at = *before;
            if at == from {
                break;
            }
        }
        let length = back.len() as u32;
        let step = |at: usize| {
            let wait = self.waits[at].1;
            CircleStep { session: wait.session, holder: wait.holder.clone(), key: wait.key.clone() }
        };
        Circle { steps: back.into_iter().rev().take(limits::CIRCLE).map(step).collect(), length }
    }
}

#[cfg(test)]
mod tests;

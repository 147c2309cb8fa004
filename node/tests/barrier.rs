//! The shared read barrier against a model of how votes come about.
//!
//! The model has replicas whose votes are first in memory, then on disk, then granted, and that crash in
//! between; candidates of later terms; memberships of every shape; and one leader of term 5 whose rounds are
//! asked for at any moment and whose messages take any time. It knows when a later leader was elected. The
//! count and the word on a claim are the product's own.
//!
//! The claim: a round that succeeds began before any later leader was elected. That the model can see a
//! breach is shown by planted mistakes, each of which it finds.

use std::collections::{BTreeMap, BTreeSet};

use openraft::Membership;
use wardlock::{
    barrier::{Round, Standing, stands},
    raft::types::Home,
};
use wardlock_placement::{NodeId, ReplicaId};
use wardlock_wire::raft::Vote;

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plant {
    /// The word is given by the vote that the library has published, which lags.
    LaggingVote,
    /// A round that was under way when the read arrived answers it.
    EarlierRound,
    /// Only the first half of a joint membership is asked for a majority.
    OneHalf,
    /// Learners count as voters.
    Learners,
    /// The leader does not look at its own vote.
    OwnVoteUnread,
    /// One yes is enough, however many replicas there are.
    OneYes,
    /// A vote is granted before it is on disk. This is the consensus library's part of the bargain.
    GrantBeforeSave,
}

const PLANTS: [Plant; 7] = [
    Plant::LaggingVote,
    Plant::EarlierRound,
    Plant::OneHalf,
    Plant::Learners,
    Plant::OwnVoteUnread,
    Plant::OneYes,
    Plant::GrantBeforeSave,
];

/// xorshift64*: the seed decides everything.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

const TERM: u64 = 5;
const LEADER: u64 = 1;

fn vote(term: u64, replica: u64) -> Vote {
    Vote { term, replica: ReplicaId(replica), committed: false }
}

#[derive(Clone)]
struct Replica {
    memory: Vote,
    disk: Vote,
    /// What the library's metrics say.
    published: Vote,
    /// Whom its vote in memory goes to once it is saved.
    owes_grant: bool,
}

struct World {
    replicas: BTreeMap<u64, Replica>,
    /// Effective in the log of the leader, and in that of any candidate: neighbours in the chain.
    members: Vec<BTreeSet<u64>>,
    next_members: Vec<BTreeSet<u64>>,
    /// Granted votes, by term; whoever has a quorum of `next_members` is elected.
    granted: BTreeMap<u64, BTreeSet<u64>>,
    elected: bool,
    plant: Option<Plant>,
}

/// A round of the leader's under way.
struct Asking {
    round: Round,
    to_ask: Vec<u64>,
    /// A later leader was in office when the read arrived.
    too_late: bool,
}

fn majority(half: &BTreeSet<u64>, of: &BTreeSet<u64>) -> bool {
    2 * half.intersection(of).count() > half.len()
}

impl World {
    fn new(random: &mut Random, plant: Option<Plant>) -> World {
        let size = [3, 3, 5][random.below(3) as usize];
        let old: BTreeSet<u64> = (1..=size).collect();
        // Some voters leave, some come; in a joint membership both count.
        let first = 1 + random.below(4);
        let new: BTreeSet<u64> = (first..first + size).chain([LEADER]).collect();
        let chain = [vec![old.clone()], vec![old, new.clone()], vec![new]];
        let at = random.below(3) as usize;
        let next = (at + random.below(2) as usize).min(2);
        let (members, next_members) = if random.chance(50) { (at, next) } else { (next, at) };
        let (members, next_members) = (chain[members].clone(), chain[next_members].clone());
        let mut replicas: BTreeMap<u64, Replica> = (1..=9)
            .map(|id| {
                let old = vote(TERM - 1, 3);
                (id, Replica { memory: old, disk: old, published: old, owes_grant: false })
            })
            .collect();
        // The leader's election, by quorums of its membership; others have heard of it or not.
        let mut voted: BTreeSet<u64> = BTreeSet::from([LEADER]);
        while !members.iter().all(|half| majority(half, &voted)) {
            voted.insert(1 + random.below(9));
        }
        for (id, replica) in &mut replicas {
            if voted.contains(id) || random.chance(30) {
                let now = vote(TERM, LEADER);
                *replica = Replica { memory: now, disk: now, published: now, owes_grant: false };
            }
        }
        World { replicas, members, next_members, granted: BTreeMap::new(), elected: false, plant }
    }

    /// A candidate of a later term reaches a replica, itself among them.
    fn ask_for_vote(&mut self, random: &mut Random) {
        let (term, id) = (TERM + 1 + random.below(2), 1 + random.below(9));
        let replica = self.replicas.get_mut(&id).unwrap();
        if replica.memory.term < term {
            replica.memory = vote(term, 2 + term % 2);
            replica.owes_grant = true;
            if self.plant == Some(Plant::GrantBeforeSave) {
                self.grant(id);
            }
        }
    }

    fn save(&mut self, id: u64) {
        let replica = self.replicas.get_mut(&id).unwrap();
        replica.disk = replica.memory;
        self.grant(id);
    }

    fn grant(&mut self, id: u64) {
        let replica = self.replicas.get_mut(&id).unwrap();
        if std::mem::take(&mut replica.owes_grant) {
            let votes = self.granted.entry(replica.memory.term).or_default();
            votes.insert(id);
            self.elected |= self.next_members.iter().all(|half| majority(half, votes));
        }
    }

    fn crash(&mut self, id: u64) {
        let replica = self.replicas.get_mut(&id).unwrap();
        replica.memory = replica.disk;
        replica.published = replica.disk;
        replica.owes_grant = false;
    }

    fn word(&self, id: u64) -> Standing {
        let replica = &self.replicas[&id];
        let known = if self.plant == Some(Plant::LaggingVote) { replica.published } else { replica.disk };
        stands(Some(known), vote(TERM, LEADER))
    }

    fn ask(&self) -> Asking {
        let mut halves = self.members.clone();
        match self.plant {
            Some(Plant::OneHalf) => halves.truncate(1),
            Some(Plant::Learners) => halves = vec![(1..=9).collect()],
            // Of two, who stand for all.
            Some(Plant::OneYes) => halves = vec![],
            _ => {}
        }
        let nodes: BTreeMap<u64, Home> = (1..=9).map(|id| (id, Home(NodeId(id as u32)))).collect();
        let membership = Membership::new(halves.clone(), nodes.clone())
            .unwrap_or_else(|_| Membership::new(vec![BTreeSet::from([LEADER])], nodes).unwrap());
        let voters: BTreeSet<u64> = match self.plant {
            Some(Plant::Learners) => (1..=9).collect(),
            _ => self.members.iter().flatten().copied().collect(),
        };
        let to_ask = voters.into_iter().filter(|id| *id != LEADER).collect();
        Asking { round: Round::new(&membership, ReplicaId(LEADER)), to_ask, too_late: self.elected }
    }

    /// Whether the round has succeeded.
    fn hear(&self, asking: &mut Asking, id: u64) -> bool {
        let standing = self.word(id);
        asking.round.heard(ReplicaId(id), standing);
        let enough = match self.plant {
            Some(Plant::OneYes) => standing == Standing::Stands,
            _ => asking.round.has_quorum(),
        };
        enough && (self.plant == Some(Plant::OwnVoteUnread) || self.word(LEADER) == Standing::Stands)
    }
}

/// How one seed went.
#[derive(Default)]
struct Came {
    succeeded: bool,
    breached: bool,
}

fn run(seed: u64, plant: Option<Plant>) -> Came {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut world = World::new(&mut random, plant);
    let mut asking: Option<Asking> = None;
    let mut came = Came::default();
    for _ in 0..80 {
        let id = 1 + random.below(9);
        match random.below(12) {
            0..3 => world.ask_for_vote(&mut random),
            3..6 => world.save(id),
            6 => world.crash(id),
            7 => {
                let replica = world.replicas.get_mut(&id).unwrap();
                replica.published = replica.memory;
            }
            // A read arrives.
            8 => match &mut asking {
                Some(under_way) if plant == Some(Plant::EarlierRound) => under_way.too_late = world.elected,
                _ => asking = Some(world.ask()),
            },
            _ => {
                let Some(mut under_way) = asking.take() else { continue };
                if under_way.to_ask.is_empty() {
                    continue;
                }
                let next = random.below(under_way.to_ask.len() as u64) as usize;
                let peer = under_way.to_ask.swap_remove(next);
                if world.hear(&mut under_way, peer) {
                    came.succeeded = true;
                    came.breached |= under_way.too_late;
                } else {
                    asking = Some(under_way);
                }
            }
        }
    }
    came
}

#[test]
fn a_round_that_succeeds_began_before_any_later_leader_was_elected() {
    let mut succeeded = 0;
    for seed in 0..30_000 {
        let came = run(seed, None);
        assert!(!came.breached, "seed {seed}: a deposed leader was confirmed");
        succeeded += u32::from(came.succeeded);
    }
    assert!(succeeded > 5_000, "only {succeeded} rounds succeeded: the model shows nothing");
}

#[test]
fn every_planted_mistake_is_found() {
    for plant in PLANTS {
        let found = (0..30_000).find(|seed| run(*seed, Some(plant)).breached);
        assert!(found.is_some(), "{plant:?} goes unnoticed");
        println!("{plant:?}: seed {}", found.unwrap_or_default());
    }
}

#[test]
fn a_quorum_needs_each_half_and_no_learner() {
    let half = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<u64>>();
    let nodes: BTreeMap<u64, Home> = (1..=6).map(|id| (id, Home(NodeId(id as u32)))).collect();
    let joint = Membership::new(vec![half(&[1, 2, 3]), half(&[1, 4, 5])], nodes).unwrap();
    let mut round = Round::new(&joint, ReplicaId(1));
    round.heard(ReplicaId(2), Standing::Stands);
    round.heard(ReplicaId(6), Standing::Stands);
    assert!(!round.has_quorum(), "a majority of one half and a learner");
    round.heard(ReplicaId(4), Standing::Unknown);
    assert!(!round.has_quorum() && !round.is_lost());
    round.heard(ReplicaId(4), Standing::Stands);
    assert!(round.has_quorum());

    let mut round = Round::new(&joint, ReplicaId(1));
    round.heard(ReplicaId(4), Standing::Deposed);
    assert!(!round.is_lost(), "5 may still stand");
    round.heard(ReplicaId(5), Standing::Deposed);
    assert!(round.is_lost());

    let none = Membership::<u64, Home>::default();
    assert!(!Round::new(&none, ReplicaId(1)).has_quorum(), "a membership that is not known confirms nothing");
}

#[test]
fn a_word_goes_by_term_and_leader() {
    let claim = Vote { term: 5, replica: ReplicaId(1), committed: true };
    assert_eq!(stands(Some(Vote { committed: false, ..claim }), claim), Standing::Stands);
    assert_eq!(stands(Some(Vote { term: 6, ..claim }), claim), Standing::Deposed);
    assert_eq!(stands(Some(Vote { term: 4, ..claim }), claim), Standing::Unknown);
    assert_eq!(stands(Some(Vote { replica: ReplicaId(2), ..claim }), claim), Standing::Unknown);
    assert_eq!(stands(None, claim), Standing::Unknown);
}

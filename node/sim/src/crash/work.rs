//! The workload: groups that append, vote, truncate, commit, purge and save snapshots at random, and what each
//! of them should hold after each of its calls.
//!
//! All calls of all groups stand in one order, [`Work::issued`] the last of them and [`Work::confirmed`] the last
//! that was acknowledged. The log has one ordered stream of writes, so a crash leaves what some call in
//! between left: of every group, at once.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use futures_util::FutureExt;
use openraft::{
    EntryPayload,
    storage::{IOFlushed, RaftLogStorage},
    type_config::TypeConfigExt,
};
use wardlock::{
    disk::log::GroupLog,
    raft::types::{Entry, LogId, Proposal, Types, Vote, pos_from_wire, pos_to_wire, vote_from_wire},
};
use wardlock_placement::ReplicaId;
use wardlock_wire::raft as wire;

use crate::disk::Random;

/// How many groups share the log. The first idles most of the time and is moved instead.
pub(crate) const GROUPS: usize = 4;

/// What a group's log shows, without its committed position.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct View {
    pub(crate) vote: Option<Vote>,
    pub(crate) purged: Option<LogId>,
    pub(crate) entries: Vec<Entry>,
}

/// A snapshot as it was saved.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Saved {
    pub(crate) last: wire::LogPos,
    pub(crate) bytes: usize,
}

impl Saved {
    /// Its contents.
    pub(crate) fn data(&self) -> Vec<u8> {
        let mut random = Random::new(self.last.index << 20 | self.last.term);
        let mut data: Vec<u8> = (0..self.bytes.div_ceil(8)).flat_map(|_| random.any().to_le_bytes()).collect();
        data.truncate(self.bytes);
        data
    }

    pub(crate) fn meta(&self) -> wire::SnapshotMeta {
        wire::SnapshotMeta { last: Some(self.last), members_at: None, members: wire::Members::default() }
    }
}

/// What may be found at some instant: anything between two places of each list.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Moment {
    pub(crate) confirmed: usize,
    pub(crate) issued: usize,
    pub(crate) snapshots: [(usize, usize); GROUPS],
    pub(crate) committed: [(usize, usize); GROUPS],
}

/// What the workload did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Did {
    pub(crate) votes: u64,
    pub(crate) appends: u64,
    pub(crate) truncations: u64,
    pub(crate) purges: u64,
    pub(crate) installs: u64,
    pub(crate) commits: u64,
    pub(crate) snapshots: u64,
    /// Calls made while the log's writer was at the disk.
    pub(crate) amid: u64,
}

impl Did {
    pub(crate) fn add(&mut self, other: &Did) {
        self.votes += other.votes;
        self.appends += other.appends;
        self.truncations += other.truncations;
        self.purges += other.purges;
        self.installs += other.installs;
        self.commits += other.commits;
        self.snapshots += other.snapshots;
        self.amid += other.amid;
    }
}

/// What a step leaves for the driver, which alone may wait.
pub(crate) enum Todo {
    Nothing,
    /// Wait until this group's vote is answered.
    Vote(usize),
    /// Save this snapshot and purge the log up to it where that is asked for.
    Save {
        group: usize,
        saved: Saved,
        purge: bool,
    },
}

enum Answer {
    Append(tokio::sync::oneshot::Receiver<io::Result<()>>),
    Vote(usize, Pin<Box<dyn Future<Output = io::Result<()>> + Send>>),
}

impl Answer {
    fn poll(&mut self) -> Option<io::Result<()>> {
        match self {
            Answer::Append(durable) => match durable.try_recv() {
                Ok(answer) => Some(answer),
                Err(tokio::sync::oneshot::error::TryRecvError::Empty) => None,
                Err(error) => Some(Err(io::Error::other(error))),
            },
            Answer::Vote(_, saved) => match saved.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(answer) => Some(answer),
                Poll::Pending => None,
            },
        }
    }
}

#[derive(Default)]
struct Group {
    log: Option<GroupLog>,
    now: View,
    term: u64,
    committed: Option<LogId>,
    is_voting: bool,
}

impl Group {
    fn next_index(&self) -> u64 {
        let last = self.now.entries.last().map(|entry| entry.log_id).or(self.now.purged);
        last.map_or(0, |last| last.index + 1)
    }
}

/// The groups, their calls, and what they may expect.
pub(crate) struct Work {
    random: Random,
    groups: [Group; GROUPS],
    /// Each call's group, and what that group holds after it.
    pub(crate) calls: Vec<(usize, View)>,
    pub(crate) snapshots: [Vec<Option<Saved>>; GROUPS],
    pub(crate) committed: [Vec<Option<LogId>>; GROUPS],
    now: Moment,
    answers: VecDeque<(usize, Answer)>,
    /// Calls that were answered with an error.
    pub(crate) refused: u64,
    pub(crate) did: Did,
    /// What must never happen and did.
    pub(crate) broken: Option<String>,
    large_snapshots: bool,
}

impl Work {
    pub(crate) fn new(seed: u64) -> Work {
        Work {
            random: Random::new(seed),
            groups: Default::default(),
            calls: (0..GROUPS).map(|group| (group, View::default())).collect(),
            snapshots: std::array::from_fn(|_| vec![None]),
            committed: std::array::from_fn(|_| vec![None]),
            now: Moment { confirmed: GROUPS - 1, issued: GROUPS - 1, ..Moment::default() },
            answers: VecDeque::new(),
            refused: 0,
            did: Did::default(),
            broken: None,
            large_snapshots: seed.is_multiple_of(8),
        }
    }

    /// What may be found if the power goes now.
    pub(crate) fn moment(&mut self) -> Moment {
        self.hear();
        self.now
    }

    /// A log was opened, and this is what it holds: nothing else can be found from now on.
    pub(crate) fn adopt(&mut self, found: &[(View, Option<LogId>)], snapshots: &[Option<Saved>], logs: Vec<GroupLog>) {
        self.answers.clear();
        self.refused = 0;
        for (at, (((view, committed), snapshot), log)) in found.iter().zip(snapshots).zip(logs).enumerate() {
            let group = &mut self.groups[at];
            let last = view.entries.last().map(|entry| entry.log_id).or(view.purged);
            let seen = last.map_or(0, |last| *last.leader_id).max(view.vote.map_or(0, |vote| vote.leader_id.term));
            *group = Group {
                log: Some(log),
                now: view.clone(),
                term: group.term.max(seen).max(1),
                committed: *committed,
                is_voting: false,
            };
            self.calls.push((at, view.clone()));
            self.snapshots[at].push(snapshot.clone());
            self.committed[at].push(*committed);
            self.now.snapshots[at] = (self.snapshots[at].len() - 1, self.snapshots[at].len() - 1);
            self.now.committed[at] = (self.committed[at].len() - 1, self.committed[at].len() - 1);
        }
        self.now.issued = self.calls.len() - 1;
        self.now.confirmed = self.now.issued;
    }

    /// The log is about to be closed.
    pub(crate) fn leave(&mut self) {
        for group in &mut self.groups {
            group.log = None;
        }
    }

    /// Takes the answers that have come.
    pub(crate) fn hear(&mut self) {
        while let Some((call, answer)) = self.answers.front_mut()
            && let Some(heard) = answer.poll()
        {
            match heard {
                Ok(()) if self.refused > 0 => {
                    self.broken = Some(format!("call {call} was confirmed after an error"));
                }
                Ok(()) => self.now.confirmed = *call,
                Err(_) => self.refused += 1,
            }
            if let Some((_, Answer::Vote(group, _))) = self.answers.pop_front() {
                self.groups[group].is_voting = false;
            }
        }
        let waits_for_append = matches!(self.answers.front(), Some((_, Answer::Append(_))));
        let is_early = |(call, answer): &mut (usize, Answer)| {
            (matches!(answer, Answer::Append(_)) && answer.poll().is_some()).then_some(*call)
        };
        if waits_for_append && let Some(call) = self.answers.iter_mut().skip(1).find_map(is_early) {
            self.broken = Some(format!("call {call} was confirmed before an earlier one"));
        }
    }

    pub(crate) fn is_voting(&self, group: usize) -> bool {
        self.groups[group].is_voting
    }

    /// Votes and appends that nobody has answered yet.
    pub(crate) fn waits(&self) -> bool {
        !self.answers.is_empty()
    }

    pub(crate) fn one_in(&mut self, times: u64) -> bool {
        self.random.one_in(times)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.random.below(end)
    }

    /// One call of one group. Amid a call to the disk nothing may wait.
    pub(crate) fn step(&mut self, amid: bool) -> Todo {
        let at = if self.random.one_in(12) { 0 } else { 1 + self.random.below(GROUPS as u64 - 1) as usize };
        let group = &self.groups[at];
        if group.is_voting || group.log.is_none() {
            return Todo::Nothing;
        }
        self.did.amid += u64::from(amid);
        match self.random.below(14) {
            0 if !amid => return self.vote(at),
            1 | 2 => self.truncate(at),
            3 | 4 => self.commit(at),
            5 | 6 if !amid => return self.save(at),
            7 => self.purge(at),
            8 if !amid && self.random.one_in(6) => return self.install(at),
            _ => self.append(at),
        }
        Todo::Nothing
    }

    /// Calls amid a call to the disk: one, or what a follower does when a new leader corrects it.
    pub(crate) fn step_amid(&mut self) {
        let at = self.random.below(GROUPS as u64) as usize;
        if self.random.one_in(2) || self.groups[at].is_voting || self.groups[at].log.is_none() {
            self.step(true);
            return;
        }
        self.did.amid += 1;
        self.truncate(at);
        self.append(at);
        self.commit(at);
    }

    fn log(&self, at: usize) -> GroupLog {
        self.groups[at].log.clone().expect("a group without a log takes no steps")
    }

    fn issue(&mut self, at: usize, view: View) {
        self.calls.push((at, view.clone()));
        self.now.issued = self.calls.len() - 1;
        self.groups[at].now = view;
    }

    fn vote(&mut self, at: usize) -> Todo {
        let group = &mut self.groups[at];
        group.term += 1;
        let vote = vote_from_wire(wire::Vote { term: group.term, replica: ReplicaId(1), committed: false });
        let view = View { vote: Some(vote), ..group.now.clone() };
        let mut log = self.log(at);
        let mut answer = Answer::Vote(at, Box::pin(async move { log.save_vote(&vote).await }));
        let answered = answer.poll();
        if !matches!(answered, Some(Err(_))) {
            self.issue(at, view);
            self.did.votes += 1;
            self.groups[at].is_voting = true;
        }
        match answered {
            Some(Ok(())) => {
                self.now.confirmed = self.now.issued;
                self.groups[at].is_voting = false;
            }
            Some(Err(_)) => self.refused += 1,
            None => self.answers.push_back((self.now.issued, answer)),
        }
        Todo::Vote(at)
    }

    fn truncate(&mut self, at: usize) {
        let group = &self.groups[at];
        let floor = group.committed.map_or(0, |committed| committed.index + 1);
        let mut view = group.now.clone();
        let free = view.entries.iter().filter(|entry| entry.log_id.index >= floor).count();
        if free == 0 {
            return;
        }
        let dropped = 1 + self.random.below(free.min(3) as u64) as usize;
        view.entries.truncate(view.entries.len() - dropped);
        let last = view.entries.last().map(|entry| entry.log_id).or(view.purged);
        if self.went(self.log(at).truncate_after(last).now_or_never()) {
            self.issue(at, view);
            self.did.truncations += 1;
            // As after a new leader's word: what follows is of another term.
            self.groups[at].term += 1;
        }
    }

    fn commit(&mut self, at: usize) {
        let group = &self.groups[at];
        let floor = group.committed.map_or(0, |committed| committed.index + 1);
        let ahead: Vec<LogId> =
            group.now.entries.iter().map(|entry| entry.log_id).filter(|id| id.index >= floor).collect();
        if ahead.is_empty() {
            return;
        }
        let upto = ahead[self.random.below(ahead.len() as u64) as usize];
        self.mark(at, upto);
    }

    fn mark(&mut self, at: usize, upto: LogId) {
        if self.went(self.log(at).save_committed(Some(upto)).now_or_never()) {
            self.groups[at].committed = Some(upto);
            self.committed[at].push(Some(upto));
            self.now.committed[at].1 = self.committed[at].len() - 1;
            self.did.commits += 1;
        }
    }

    fn append(&mut self, at: usize) {
        let group = &self.groups[at];
        let (first, term) = (group.next_index(), group.term);
        let count = 1 + self.random.below(3);
        let bytes = if self.random.one_in(30) { 6_000 } else { self.random.below(600) as usize };
        let entries: Vec<Entry> = (first..first + count).map(|index| entry(term, index, bytes)).collect();
        let mut view = group.now.clone();
        view.entries.extend(entries.iter().cloned());
        let (done, durable) = Types::oneshot();
        if self.went(self.log(at).append(entries, IOFlushed::signal(done)).now_or_never()) {
            self.issue(at, view);
            self.answers.push_back((self.now.issued, Answer::Append(durable)));
            self.did.appends += 1;
        }
    }

    /// A snapshot of what is committed; sometimes one that comes late.
    fn save(&mut self, at: usize) -> Todo {
        let group = &self.groups[at];
        let Some(committed) = group.committed else { return Todo::Nothing };
        let applied = group.now.entries.iter().map(|entry| entry.log_id).filter(|id| *id <= committed);
        let applied: Vec<LogId> = applied.collect();
        if applied.is_empty() {
            return Todo::Nothing;
        }
        let last = applied[self.random.below(applied.len() as u64) as usize];
        let large = self.large_snapshots && self.random.one_in(6);
        let bytes = if large { 270_000 } else { self.random.below(1_500) as usize };
        let saved = Saved { last: pos_to_wire(last), bytes };
        Todo::Save { group: at, saved, purge: !self.random.one_in(3) }
    }

    /// A snapshot from the leader, past the end of the log.
    fn install(&mut self, at: usize) -> Todo {
        let group = &mut self.groups[at];
        group.term += 1;
        let last = wire::LogPos { term: group.term, index: group.next_index() + 10 };
        self.did.installs += 1;
        Todo::Save { group: at, saved: Saved { last, bytes: self.random.below(900) as usize }, purge: true }
    }

    /// A snapshot is about to be saved; answers its place.
    pub(crate) fn begin_save(&mut self, at: usize, saved: &Saved) {
        let current = self.snapshots[at][self.now.snapshots[at].0].clone();
        let reach = |saved: &Saved| (saved.last.term, saved.last.index);
        let is_late = current.as_ref().is_some_and(|current| reach(current) >= reach(saved));
        self.snapshots[at].push(if is_late { current } else { Some(saved.clone()) });
        self.now.snapshots[at].1 = self.snapshots[at].len() - 1;
    }

    /// The save has returned.
    pub(crate) fn end_save(&mut self, at: usize, purge: bool) {
        self.now.snapshots[at].0 = self.now.snapshots[at].1;
        self.did.snapshots += 1;
        if purge {
            self.purge(at);
        }
    }

    /// Purges what the durable snapshot covers.
    fn purge(&mut self, at: usize) {
        let (saved, begun) = self.now.snapshots[at];
        let group = &self.groups[at];
        let Some(upto) = self.snapshots[at][saved].as_ref().map(|saved| pos_from_wire(saved.last)) else { return };
        if saved != begun || group.log.is_none() || group.now.purged.is_some_and(|purged| purged.index >= upto.index) {
            return;
        }
        let mut view = View { purged: Some(upto), ..group.now.clone() };
        view.entries.retain(|entry| entry.log_id.index > upto.index);
        if group.committed.is_none_or(|committed| committed.index < upto.index) {
            self.mark(at, upto);
        }
        if self.went(self.log(at).purge(upto).now_or_never()) {
            self.issue(at, view);
            self.did.purges += 1;
        }
    }

    /// Whether the call was taken. One that waits for room is given up; a closed log takes none.
    fn went(&mut self, answer: Option<io::Result<()>>) -> bool {
        match answer {
            Some(Ok(())) => true,
            Some(Err(error)) => {
                if error.kind() != io::ErrorKind::BrokenPipe {
                    self.broken = Some(format!("a call that the log must take was refused: {error}"));
                }
                self.refused += 1;
                false
            }
            None => false,
        }
    }
}

/// An entry whose bytes say which it is.
pub(crate) fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    let byte = (term * 31 + index) as u8;
    let log_id = pos_from_wire(wire::LogPos { term, index });
    Entry { log_id, payload: EntryPayload::Normal(Proposal(vec![byte; bytes].into())) }
}

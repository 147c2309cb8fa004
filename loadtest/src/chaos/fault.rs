//! The faults that there are, and in which order they come.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::workload::Dice;

/// What can be done to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// SIGKILL, and a start some time later.
    Kill,
    /// SIGSTOP, and SIGCONT some time later.
    Pause,
    /// A drain and a start.
    Restart,
    /// SIGKILL of all nodes, and a start of all.
    KillAll,
    /// The same, and all disks lose what was not synced.
    PowerCut,
    /// SIGKILL, and a start by a clock that has run for another time, hours or days more or less.
    Clock,
    /// A node cut off from the other nodes, though not from its clients.
    Cut,
    /// The same in one direction: it hears and is not heard, or the other way round.
    OneWay,
    /// A node whose clients ask and hear nothing: their answers are lost.
    Mute,
    /// Everything to and from a node's peers comes late.
    Delay,
    /// A part of it is lost, a part comes twice.
    Loss,
    /// It comes in another order.
    Reorder,
    /// A disk that stalls again and again.
    SlowDisk,
    /// A disk with hardly any room.
    FullDisk,
}

/// All of them.
pub(super) const ALL: [Kind; 14] = [
    Kind::Kill,
    Kind::Pause,
    Kind::Restart,
    Kind::KillAll,
    Kind::PowerCut,
    Kind::Clock,
    Kind::Cut,
    Kind::OneWay,
    Kind::Mute,
    Kind::Delay,
    Kind::Loss,
    Kind::Reorder,
    Kind::SlowDisk,
    Kind::FullDisk,
];

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill",
            Kind::Pause => "pause",
            Kind::Restart => "restart",
            Kind::KillAll => "kill-all",
            Kind::PowerCut => "power-cut",
            Kind::Clock => "clock",
            Kind::Cut => "cut",
            Kind::OneWay => "one-way",
            Kind::Mute => "mute",
            Kind::Delay => "delay",
            Kind::Loss => "loss",
            Kind::Reorder => "reorder",
            Kind::SlowDisk => "slow-disk",
            Kind::FullDisk => "full-disk",
        }
    }

    /// Whether it takes a disk that is the node's own.
    pub(super) fn needs_disk(self) -> bool {
        matches!(self, Kind::SlowDisk | Kind::FullDisk | Kind::PowerCut)
    }

    /// Whether it takes clocks that are the node's own.
    pub(super) fn needs_clock(self) -> bool {
        self == Kind::Clock
    }

    /// Whether it leaves no node for a second one.
    fn stands_alone(self) -> bool {
        matches!(self, Kind::KillAll | Kind::PowerCut)
    }

    /// How long it lasts.
    fn length(self, dice: &mut Dice) -> Duration {
        let between =
            |dice: &mut Dice, least: f64, most: f64| Duration::from_secs_f64(least + (most - least) * dice.unit());
        match self {
            Kind::Restart => Duration::ZERO,
            Kind::KillAll | Kind::PowerCut => between(dice, 0.0, 1.0),
            // Around the silence after which others are elected and after which sessions end.
            Kind::Pause => between(dice, 0.3, 5.0),
            Kind::Cut | Kind::OneWay => between(dice, 0.5, 5.0),
            _ => between(dice, 1.0, 4.0),
        }
    }
}

/// One fault to come.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Planned {
    pub(super) kind: Kind,
    pub(super) length: Duration,
    /// Strikes the node that leads the most shards.
    pub(super) busiest: bool,
}

/// Faults in an order that a seed decides: each kind once before any comes again, sometimes two at once.
pub(super) struct Schedule {
    kinds: Vec<Kind>,
    bag: Vec<Kind>,
    pub(super) dice: Dice,
    overlap: f64,
}

impl Schedule {
    /// Of these kinds; so many percent of them strike together with another.
    pub(super) fn new(kinds: &[Kind], seed: u64, overlap: f64) -> Schedule {
        Schedule { kinds: kinds.to_vec(), bag: Vec::new(), dice: Dice::new(seed), overlap }
    }

    fn draw(&mut self) -> Option<Kind> {
        if self.bag.is_empty() {
            self.bag.clone_from(&self.kinds);
        }
        let at = self.dice.below(self.bag.len() as u64) as usize;
        (at < self.bag.len()).then(|| self.bag.swap_remove(at))
    }

    /// The next one, or the next two, which strike different nodes.
    pub(super) fn next(&mut self) -> Vec<Planned> {
        let mut next: Vec<Planned> = Vec::new();
        while let Some(kind) = self.draw() {
            let length = kind.length(&mut self.dice);
            let busiest = next.is_empty() && self.dice.percent(60.0);
            let first = next.is_empty();
            if !first && kind.stands_alone() {
                // It keeps its turn.
                self.bag.push(kind);
                break;
            }
            next.push(Planned { kind, length, busiest });
            if !first || kind.stands_alone() || !self.dice.percent(self.overlap) {
                break;
            }
        }
        next
    }
}

/// How often each kind was done, of those that were asked for.
pub(super) fn missing(asked: &[Kind], done: &BTreeMap<Kind, u32>, least: u32) -> Vec<String> {
    let count = |kind: &Kind| done.get(kind).copied().unwrap_or(0);
    let too_few = asked.iter().filter(|kind| count(kind) < least);
    too_few.map(|kind| format!("{} of {least} {} faults", count(kind), kind.name())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_the_order_and_no_kind_is_forgotten() {
        let run = |seed| {
            let mut schedule = Schedule::new(&ALL, seed, 30.0);
            (0..60).map(|_| schedule.next()).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        let all = run(7);
        let count = |kind| all.iter().flatten().filter(|planned| planned.kind == kind).count();
        let counts: Vec<usize> = ALL.iter().map(|kind| count(*kind)).collect();
        assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
        assert!(all.iter().any(|next| next.len() == 2));
        let with_all = all.iter().filter(|next| next.iter().any(|planned| planned.kind.stands_alone()));
        assert!(with_all.into_iter().all(|next| next.len() == 1), "nobody is left for another");
    }

    #[test]
    fn a_kind_that_came_too_seldom_is_named() {
        let done = [(Kind::Kill, 2), (Kind::Cut, 1)].into();
        assert!(missing(&[Kind::Kill, Kind::Cut], &done, 1).is_empty());
        let missing = missing(&[Kind::Kill, Kind::Pause, Kind::Cut], &done, 2);
        assert_eq!(missing, ["0 of 2 pause faults", "1 of 2 cut faults"]);
    }
}

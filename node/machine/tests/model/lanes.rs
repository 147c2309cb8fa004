//! One history, run by the model and by the machine in four ways at once.
//!
//! - *singly*: every command is a batch of its own; the model predicts each outcome and all that can be seen.
//! - *batched*: every entry is one batch. Its outcomes and effects must be those of the single commands.
//! - *following*: applied as by a follower, whom nobody asks, every entry cut in two at some place.
//! - *restored*: as *batched*, and now and then replaced by what its own snapshot restores to.
//!
//! After every entry all four have the same bytes.

use proptest::{prelude::*, test_runner::TestCaseResult};
use wardlock_machine::*;

use crate::{
    author::{self, Author},
    census::Census,
    model::{Header, Model},
    ops::{Entry, History, Op},
};

#[derive(Default)]
struct Lanes {
    singly: Machine,
    batched: Machine,
    following: Machine,
    restored: Machine,
    model: Model,
    dice: u64,
}

fn apply(machine: &mut Machine, header: &Header, commands: Vec<Command>) -> (Vec<Outcome>, Effects) {
    let (mut outcomes, mut effects) = (Vec::new(), Effects::default());
    machine.apply(header.term, batch(header, commands), &mut outcomes, &mut effects);
    (outcomes, effects)
}

fn batch(header: &Header, commands: Vec<Command>) -> Batch {
    Batch { at: header.at, wall: header.wall, epoch: header.epoch, commands }
}

/// Which request is settled in which order with those of others is free: see the model.
fn in_order(mut effects: Effects) -> Effects {
    effects.settled.sort_by(|a, b| (a.session, &a.key, a.request).cmp(&(b.session, &b.key, b.request)));
    effects
}

/// The effects of one command after those of another, as one batch tells them.
fn join(all: &mut Effects, more: Effects) {
    all.settled.extend(more.settled);
    all.lost.extend(more.lost);
    all.opened.extend(more.opened);
    all.closing.extend(more.closing);
    all.ended.extend(more.ended);
    all.hooks |= more.hooks;
}

impl Lanes {
    /// The model and the machine do one command.
    fn single(
        &mut self,
        header: &Header,
        command: &Command,
        census: &mut Census,
    ) -> Result<(Outcome, Effects), TestCaseError> {
        census.before(&self.model, command);
        let (mut outcomes, effects) = apply(&mut self.singly, header, vec![command.clone()]);
        prop_assert_eq!(outcomes.len(), 1, "one outcome for each command");
        let outcome = outcomes.remove(0);
        let (must, must_do) = self.model.step(header, command, &outcome);
        prop_assert_eq!(&outcome, &must, "the machine's outcome, the model's, of {:?}", command);
        prop_assert_eq!(&in_order(effects.clone()), &in_order(must_do), "the effects of {:?}", command);
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let seen = self.model.compare(&self.singly, self.dice >> 33);
        prop_assert!(seen.is_ok(), "after {command:?}: {seen:?}");
        census.after(&self.model, command, &outcome, &effects);
        Ok((outcome, effects))
    }

    /// The other lanes do the whole entry.
    fn others(
        &mut self,
        header: &Header,
        commands: Vec<Command>,
        cut: usize,
        singly: (Vec<Outcome>, Effects),
    ) -> TestCaseResult {
        let batched = apply(&mut self.batched, header, commands.clone());
        prop_assert_eq!(&batched, &singly, "in one batch: {:?}", commands);
        let restored = apply(&mut self.restored, header, commands.clone());
        prop_assert_eq!(&restored, &singly, "after a restore: {:?}", commands);
        let (first, rest) = commands.split_at(cut);
        self.following.follow(header.term, batch(header, first.to_vec()));
        self.following.follow(header.term, batch(header, rest.to_vec()));

        let bytes = self.singly.snapshot();
        prop_assert!(bytes == self.batched.snapshot(), "a batch left another state: {commands:?}");
        prop_assert!(bytes == self.restored.snapshot(), "after a restore another state: {commands:?}");
        prop_assert!(bytes == self.following.snapshot(), "a follower has another state: {commands:?}");
        Ok(())
    }

    fn restore(&mut self) -> TestCaseResult {
        let restored = Machine::restore(&self.restored.snapshot());
        prop_assert!(restored.is_ok(), "its own snapshot: {:?}", restored.map(|_| ()));
        self.restored = restored.expect("it was just checked");
        prop_assert!(self.restored == self.singly, "a restored machine is another");
        Ok(())
    }

    fn entry(&mut self, entry: &Entry, author: &mut Author, census: &mut Census) -> TestCaseResult {
        let header = author.header(entry, &self.model);
        let (mut commands, mut outcomes, mut effects) = (Vec::new(), Vec::new(), Effects::default());
        for op in &entry.ops {
            let command = author.command(op, &self.model);
            let (outcome, done) = self.single(&header, &command, census)?;
            if matches!(op, Op::Retry { .. }) {
                census.retried(&command, &outcome);
            }
            commands.push(command);
            outcomes.push(outcome);
            join(&mut effects, done);
        }
        let cut = entry.cut.index(commands.len() + 1);
        self.others(&header, commands, cut, (outcomes, effects))?;
        if entry.restore {
            census.restored(&self.model);
            self.restore()?;
        }
        Ok(())
    }
}

/// Runs a history and adds what happened to the census.
pub(crate) fn run(history: &History, census: &mut Census) -> TestCaseResult {
    let mut lanes = Lanes::default();
    for _ in 0..3 {
        let header = Header { at: Stamp(0), wall: WallMs(0), term: Term(1), epoch: lanes.model.epoch };
        let commands = author::prologue(&lanes.model);
        let (mut outcomes, mut effects) = (Vec::new(), Effects::default());
        for command in &commands {
            let (outcome, done) = lanes.single(&header, command, &mut Census::default())?;
            outcomes.push(outcome);
            join(&mut effects, done);
        }
        lanes.others(&header, commands, 0, (outcomes, effects))?;
    }
    let mut author = Author::default();
    census.history(history);
    for entry in &history.entries {
        lanes.entry(entry, &mut author, census)?;
    }
    lanes.restore()?;
    prop_assert!(lanes.batched == lanes.singly, "the batched machine's indexes differ");
    prop_assert!(lanes.following == lanes.singly, "the follower's indexes differ");
    census.freedoms(lanes.model.freedoms);
    Ok(())
}

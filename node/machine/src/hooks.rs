//! Webhooks: what is to be told to whom, how far that has come, and what could not be told.
//!
//! The machine delivers nothing. The leader of a webhook's shard does, and logs how far it has come: a [`Cursor`], which
//! is a watch's position in every shard that is watched, and the dead letters, which are the events that the target did
//! not take. So the next leader goes on where this one was: what lies behind the cursor is delivered again, and nothing
//! is left out.
//!
//! Each change of a webhook has a number, its [`HookEpoch`], from a counter of the shard, and progress is logged only by
//! whoever knows the last one (invariant 15). An earlier leader, a repeated message, and one that was sent before the
//! webhook was changed are all refused by that, and whoever is refused reads the webhook anew.
//!
//! Dead letters are bounded for each webhook and for the shard, the oldest of a webhook going first; what went that way
//! is counted.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::{
    command::*,
    config::Now,
    fields,
    ids::*,
    limits, planted,
    query::{Event, HookView, Pattern, What},
    requests::Requests,
    secret::Secret,
};

/// One webhook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Hook {
    url: String,
    patterns: Vec<Pattern>,
    secret: Secret,
    created: WallMs,
    /// Its last change, progress included.
    epoch: HookEpoch,
    /// Its last change that was none of progress.
    revised: HookEpoch,
    cursor: Cursor,
    /// What its target did not take, oldest first.
    dead: VecDeque<DeadLetter>,
    /// Dead letters that are to be delivered once more, in this order.
    again: VecDeque<DeadLetter>,
    delivered: u64,
    failed: u64,
    /// Dead letters that were not kept.
    lost: u64,
    /// Why the last attempt failed, where it did.
    error: Option<String>,
    /// Index: what the dead letters of both kinds count for.
    #[serde(skip)]
    dead_bytes: usize,
}

/// All that whoever delivers has to know of a webhook.
#[derive(Clone, Debug, PartialEq)]
pub struct HookWork {
    /// The webhook's last change, to be named with the next progress.
    pub epoch: HookEpoch,
    /// The last change that was none of progress: where it differs, what follows is another webhook's.
    pub revised: HookEpoch,
    /// Where to deliver to.
    pub url: String,
    /// What.
    pub patterns: Vec<Pattern>,
    /// Signed by this.
    pub secret: Secret,
    /// From where on.
    pub cursor: Cursor,
    /// Events behind the cursor that have become dead letters already.
    pub dead: Vec<(ShardId, Revision)>,
    /// What is to be delivered once more.
    pub again: Vec<DeadLetter>,
    /// Why the last attempt failed, where it did.
    pub error: Option<String>,
}

impl Cursor {
    /// What it counts for, where bytes are bounded.
    fn bytes(&self) -> usize {
        self.positions.len() * 16
    }

    /// Goes forward to another; false where that is of an older incarnation or would be too large.
    fn advance(&mut self, to: Cursor) -> bool {
        if to.incarnation < self.incarnation {
            return false;
        }
        if to.incarnation > self.incarnation {
            *self = to;
            return true;
        }
        let new = to.positions.keys().filter(|shard| !self.positions.contains_key(shard)).count();
        if self.positions.len() + new > limits::HOOK_SHARDS {
            return false;
        }
        for (shard, position) in to.positions {
            let mine = self.positions.entry(shard).or_default();
            *mine = if planted!("hook-cursor-goes-back") { position } else { position.max(*mine) };
        }
        true
    }
}

impl DeadLetter {
    /// Which event it is; no other of its webhook has the same.
    pub fn id(&self) -> (ShardId, Revision) {
        (self.shard, self.revision)
    }

    /// What it counts for, where bytes are bounded.
    pub fn weight(&self) -> usize {
        let value = |event: &Event| match &event.what {
            What::Configured { value: Some(value), .. } => value.len(),
            _ => 0,
        };
        let event = self.event.as_ref().map_or(0, |event| event.bytes() + value(event));
        limits::DEAD_FIXED_BYTES + self.error.len() + event
    }
}

impl Hook {
    /// What it counts for beside its dead letters.
    fn bytes(&self, name: &Name) -> usize {
        let patterns: usize = self.patterns.iter().map(|pattern| pattern.name.len() + 32).sum();
        let texts = name.as_str().len() + self.url.len() + self.secret.expose().len();
        limits::HOOK_FIXED_BYTES + texts + patterns + self.cursor.bytes()
    }

    fn letters(&self) -> impl Iterator<Item = &DeadLetter> {
        self.dead.iter().chain(&self.again)
    }

    /// Takes a letter out of those that are to be delivered once more.
    fn settle(&mut self, id: (ShardId, Revision)) {
        if let Some(at) = self.again.iter().position(|letter| letter.id() == id)
            && let Some(letter) = self.again.remove(at)
        {
            self.dead_bytes -= letter.weight();
        }
    }

    /// Keeps a dead letter, unless it is there. `room` is what the shard has left for it and for those of this webhook.
    fn bury(&mut self, letter: DeadLetter, room: usize) {
        if self.letters().any(|other| other.id() == letter.id()) {
            return;
        }
        self.dead_bytes += letter.weight();
        self.dead.push_back(letter);
        while self.dead_bytes > room || self.dead.len() + self.again.len() > limits::DEAD_LETTERS {
            let Some(oldest) = self.dead.pop_front().or_else(|| self.again.pop_front()) else { break };
            self.dead_bytes -= oldest.weight();
            self.lost += 1;
        }
    }

    fn view(&self, name: &Name) -> HookView {
        HookView {
            name: name.clone(),
            url: self.url.clone(),
            patterns: self.patterns.clone(),
            created: self.created,
            epoch: self.epoch,
            cursor: self.cursor.clone(),
            dead: self.dead.len() as u32,
            again: self.again.len() as u32,
            delivered: self.delivered,
            failed: self.failed,
            lost: self.lost,
            error: self.error.clone(),
        }
    }
}

/// What a request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Kept {
    Changed { epoch: HookEpoch, letters: u32 },
    NoHook,
    Limit(Limit),
}

impl From<Kept> for Outcome {
    fn from(kept: Kept) -> Outcome {
        match kept {
            Kept::Changed { epoch, letters } => Outcome::HookChanged { epoch, letters },
            Kept::NoHook => Outcome::NoHook,
            Kept::Limit(limit) => Outcome::Limit(limit),
        }
    }
}

/// The webhooks of a shard.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Hooks {
    hooks: BTreeMap<Name, Hook>,
    /// The last change of any of them.
    epoch: HookEpoch,
    answers: Requests<Kept>,
    /// Index: what they count for beside their dead letters.
    #[serde(skip)]
    bytes: usize,
    /// Index: what their dead letters count for.
    #[serde(skip)]
    dead_bytes: usize,
}

impl Hooks {
    pub(crate) fn len(&self) -> usize {
        self.hooks.len()
    }

    /// Those after a name, in the order of names.
    fn after(&self, after: Option<&str>) -> impl Iterator<Item = (&Name, &Hook)> {
        use std::ops::Bound;
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(Name::bound(after)));
        self.hooks.range((from, Bound::Unbounded))
    }

    pub(crate) fn view(&self, name: &Name) -> Option<HookView> {
        self.hooks.get(name).map(|hook| hook.view(name))
    }

    pub(crate) fn views(&self, after: Option<&str>) -> impl Iterator<Item = HookView> {
        self.after(after).map(|(name, hook)| hook.view(name))
    }

    /// The dead letters of a webhook, oldest first, those that are to be delivered once more in front.
    pub(crate) fn letters(&self, name: &Name) -> Option<impl Iterator<Item = &DeadLetter>> {
        self.hooks.get(name).map(|hook| hook.again.iter().chain(&hook.dead))
    }

    /// Each with its last change that was none of progress.
    pub(crate) fn revised(&self) -> impl Iterator<Item = (&Name, HookEpoch)> {
        self.hooks.iter().map(|(name, hook)| (name, hook.revised))
    }

    pub(crate) fn work(&self, name: &Name) -> Option<HookWork> {
        let hook = self.hooks.get(name)?;
        let behind = |letter: &&DeadLetter| {
            hook.cursor.positions.get(&letter.shard).is_none_or(|position| letter.revision > *position)
        };
        Some(HookWork {
            epoch: hook.epoch,
            revised: hook.revised,
            url: hook.url.clone(),
            patterns: hook.patterns.clone(),
            secret: hook.secret.clone(),
            cursor: hook.cursor.clone(),
            dead: hook.letters().filter(behind).map(DeadLetter::id).collect(),
            again: hook.again.iter().cloned().collect(),
            error: hook.error.clone(),
        })
    }

    /// Answers a request once: `decide` is asked only where it is new. Says whether a webhook was changed.
    fn once(&mut self, request: u128, at: &Now, decide: impl FnOnce(&mut Hooks) -> Kept) -> (Outcome, bool) {
        if let Some(kept) = self.answers.recall(request, at.stamp).filter(|_| !planted!("hook-no-dedup")) {
            return (kept.into(), false);
        }
        let before = self.epoch;
        let kept = decide(self);
        self.answers.keep(request, at.stamp, kept);
        (kept.into(), self.epoch != before)
    }

    fn next_epoch(&mut self) -> HookEpoch {
        self.epoch.0 += 1;
        self.epoch
    }

    /// Makes a webhook, or another of one that there is: its dead letters and counts stay.
    pub(crate) fn set(&mut self, ask: SetHook, at: &Now) -> (Outcome, bool) {
        if !fields::set_hook(&ask) {
            return (Outcome::Limit(Limit::Field), false);
        }
        self.once(ask.request, at, |hooks| {
            let SetHook { key: Key { name, .. }, url, patterns, secret, cursor, .. } = ask;
            let before = hooks.hooks.get(&name);
            let mut hook = before.cloned().unwrap_or_else(|| Hook {
                url: String::new(),
                patterns: Vec::new(),
                secret: Secret::new(""),
                created: at.wall,
                epoch: HookEpoch(0),
                revised: HookEpoch(0),
                cursor: Cursor::default(),
                dead: VecDeque::new(),
                again: VecDeque::new(),
                delivered: 0,
                failed: 0,
                lost: 0,
                error: None,
                dead_bytes: 0,
            });
            (hook.url, hook.patterns, hook.secret, hook.cursor, hook.error) = (url, patterns, secret, cursor, None);
            let bytes = hooks.bytes - before.map_or(0, |before| before.bytes(&name)) + hook.bytes(&name);
            if before.is_none() && hooks.hooks.len() >= limits::HOOKS {
                return Kept::Limit(Limit::Hooks);
            }
            if bytes > limits::HOOK_BYTES {
                return Kept::Limit(Limit::HookBytes);
            }
            let epoch = hooks.next_epoch();
            (hook.epoch, hook.revised) = (epoch, epoch);
            hooks.bytes = bytes;
            hooks.hooks.insert(name, hook);
            Kept::Changed { epoch, letters: 0 }
        })
    }

    pub(crate) fn drop_hook(&mut self, request: u128, key: &Key, at: &Now) -> (Outcome, bool) {
        if key.kind != Kind::Hook {
            return (Outcome::Limit(Limit::Field), false);
        }
        self.once(request, at, |hooks| {
            let Some(hook) = hooks.hooks.remove(&key.name) else { return Kept::NoHook };
            hooks.bytes -= hook.bytes(&key.name);
            hooks.dead_bytes -= hook.dead_bytes;
            Kept::Changed { epoch: hooks.next_epoch(), letters: hook.dead.len() as u32 }
        })
    }

    /// Has a webhook's dead letters delivered once more, or forgets them.
    pub(crate) fn settle(&mut self, ask: &SettleDead, at: &Now) -> (Outcome, bool) {
        if ask.key.kind != Kind::Hook {
            return (Outcome::Limit(Limit::Field), false);
        }
        self.once(ask.request, at, |hooks| {
            let Some(hook) = hooks.hooks.get_mut(&ask.key.name) else { return Kept::NoHook };
            let letters = hook.dead.len() as u32;
            if letters == 0 {
                return Kept::Changed { epoch: hook.epoch, letters };
            }
            let mut dead = std::mem::take(&mut hook.dead);
            match ask.redeliver {
                true => hook.again.append(&mut dead),
                false => {
                    let bytes: usize = dead.iter().map(DeadLetter::weight).sum();
                    hook.dead_bytes -= bytes;
                    hooks.dead_bytes -= bytes;
                }
            }
            hooks.epoch.0 += 1;
            (hook.epoch, hook.revised) = (hooks.epoch, hooks.epoch);
            Kept::Changed { epoch: hooks.epoch, letters }
        })
    }

    /// Logs how far the deliveries have come.
    pub(crate) fn advance(&mut self, ask: Advance, at: &Now) -> Outcome {
        if !fields::advance(&ask) {
            return Outcome::Limit(Limit::Field);
        }
        let name = ask.key.name;
        let Some(hook) = self.hooks.get_mut(&name) else { return Outcome::NoHook };
        if ask.epoch != hook.epoch && !planted!("hook-epoch-ignored") {
            return Outcome::StaleHook { current: hook.epoch };
        }
        let (before, mut cursor) = (hook.cursor.clone(), hook.cursor.clone());
        if !cursor.advance(ask.cursor) {
            return Outcome::Limit(Limit::Field);
        }
        let bytes = self.bytes - before.bytes() + cursor.bytes();
        if bytes > limits::HOOK_BYTES {
            return Outcome::Limit(Limit::HookBytes);
        }
        let rises = |(shard, position): (&ShardId, &Revision)| cursor.positions.get(shard) >= Some(position);
        let forward = cursor.incarnation > before.incarnation || before.positions.iter().all(rises);
        assert!(forward, "invariant 15: the cursor of webhook {name} goes back");
        (hook.cursor, self.bytes) = (cursor, bytes);
        self.dead_bytes -= hook.dead_bytes;
        ask.settled.into_iter().for_each(|id| hook.settle(id));
        let room = limits::DEAD_BYTES.min(limits::DEAD_BYTES_PER_SHARD - self.dead_bytes);
        for letter in ask.dead {
            hook.bury(DeadLetter { died: at.wall, ..letter }, room);
        }
        self.dead_bytes += hook.dead_bytes;
        hook.delivered = hook.delivered.saturating_add(ask.delivered.into());
        hook.failed = hook.failed.saturating_add(ask.failed.into());
        hook.error = ask.error;
        self.epoch.0 += 1;
        hook.epoch = self.epoch;
        Outcome::HookChanged { epoch: hook.epoch, letters: 0 }
    }

    /// Builds the indexes; whether the state could have come about. Asked of bytes from outside.
    pub(crate) fn restore(&mut self, now: Stamp) -> bool {
        let mut sound = self.epoch.0 < 1 << 62 && self.hooks.len() <= limits::HOOKS;
        let mut epochs = std::collections::BTreeSet::new();
        (self.bytes, self.dead_bytes) = (0, 0);
        for (name, hook) in &mut self.hooks {
            let ids: std::collections::BTreeSet<_> = hook.letters().map(DeadLetter::id).collect();
            sound &= fields::hook(&hook.url, &hook.patterns, &hook.secret, &hook.cursor)
                && hook.epoch > HookEpoch(0)
                && hook.epoch <= self.epoch
                && epochs.insert(hook.epoch)
                && hook.revised > HookEpoch(0)
                && hook.revised <= hook.epoch
                && hook.dead.len() + hook.again.len() <= limits::DEAD_LETTERS
                && ids.len() == hook.dead.len() + hook.again.len()
                && hook.letters().all(fields::dead_letter)
                && hook.error.as_deref().is_none_or(fields::label);
            hook.dead_bytes = hook.letters().map(DeadLetter::weight).sum();
            sound &= hook.dead_bytes <= limits::DEAD_BYTES;
            self.bytes += hook.bytes(name);
            self.dead_bytes += hook.dead_bytes;
        }
        sound
            && self.bytes <= limits::HOOK_BYTES
            && self.dead_bytes <= limits::DEAD_BYTES_PER_SHARD
            && self.answers.is_sound(now)
    }
}

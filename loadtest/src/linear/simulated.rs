//! Histories that are right, because they were made by a lock: clients, messages under way, and one lock that
//! takes one operation at a time, with sessions and leases that end late but never early.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::Duration,
};

use super::{At, History, Op, Session, Token, What};
use crate::workload::Dice;

/// How long a session lives after its last sign of life.
const TTL: u64 = 400;

/// The one true lock, and those who use it. Times are milliseconds.
struct World {
    dice: Dice,
    now: u64,
    serial: u64,
    events: BinaryHeap<Reverse<(u64, u64, usize)>>,
    happening: Vec<Event>,
    last: Token,
    /// The holder's session, token, and when its lease ends.
    holder: Option<(Session, Token, u64)>,
    lives: BTreeMap<Session, Life>,
    users: Vec<User>,
    made: History,
    left: usize,
}

#[derive(Clone, Copy, Default)]
struct Life {
    /// When the last sign of life that was answered was sent, and until when the lock's side lets it live.
    sent: u64,
    until: u64,
    over: bool,
}

#[derive(Clone, Copy, Default)]
struct User {
    session: Session,
    /// What it believes to hold.
    holds: Option<Token>,
    /// A grant that it gave up or lost.
    past: Option<Token>,
}

#[derive(Clone)]
enum Event {
    /// A user begins something.
    Begin(usize),
    /// An operation reaches the lock; its answer is lost or comes later.
    Happens { user: usize, op: Op, lost: bool },
    /// Its answer reaches the user.
    Returns { user: usize, op: Op },
    /// A session's or a grant's end may be due.
    Look,
}

/// A history of so many operations by so many users. The same seed makes the same.
pub(super) fn history(seed: u64, users: usize, ops: usize) -> History {
    let mut world = World {
        dice: Dice::new(seed),
        now: 1,
        serial: 0,
        events: BinaryHeap::new(),
        happening: Vec::new(),
        last: 0,
        holder: None,
        lives: BTreeMap::new(),
        users: vec![User::default(); users],
        made: History { name: "simulated".to_owned(), ..History::default() },
        left: ops,
    };
    for user in 0..users {
        world.reopen(user);
        world.after(0, 20, Event::Begin(user));
    }
    while let Some(Reverse((at, _, event))) = world.events.pop() {
        world.now = at;
        world.expire();
        let event = world.happening[event].clone();
        world.take(event);
    }
    let sessions = world.lives.iter().map(|(session, life)| (*session, ms(life.sent + TTL)));
    world.made.sessions = sessions.collect();
    world.made
}

fn ms(ms: u64) -> At {
    Duration::from_millis(ms)
}

impl World {
    fn after(&mut self, least: u64, spread: u64, event: Event) {
        let at = self.now + least + self.dice.below(spread);
        self.happening.push(event);
        self.serial += 1;
        self.events.push(Reverse((at, self.serial, self.happening.len() - 1)));
    }

    fn reopen(&mut self, user: usize) {
        let session = 1 + self.lives.len() as Session;
        self.lives.insert(session, Life { sent: self.now, until: self.now + TTL, over: false });
        self.users[user] = User { session, past: self.users[user].holds, holds: None };
    }

    /// Ends what may have ended, but seldom at once.
    fn expire(&mut self) {
        let (now, late) = (self.now, self.dice.percent(70.0));
        if late {
            return;
        }
        for life in self.lives.values_mut() {
            life.over |= life.until <= now;
        }
        if self.holder.is_some_and(|(session, _, lease)| lease <= now || self.lives[&session].over) {
            self.holder = None;
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Look => {}
            Event::Begin(user) => self.begin(user),
            Event::Happens { user, op, lost } => self.happens(user, op, lost),
            Event::Returns { user, mut op } => {
                op.returned = Some(ms(self.now));
                let state = &mut self.users[user];
                if state.session == op.session {
                    match op.what {
                        What::Granted { token, .. } | What::Holds { token } => state.holds = Some(token),
                        What::Released { .. } | What::Lost { .. } => (state.past, state.holds) = (state.holds, None),
                        _ => {}
                    }
                }
                self.made.ops.push(op);
                self.after(0, 15, Event::Begin(user));
            }
        }
    }

    fn begin(&mut self, user: usize) {
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        if self.dice.percent(4.0) {
            // It dies and comes back as another, or says nothing for a while.
            self.reopen(user);
        } else if self.dice.percent(3.0) {
            return self.after(TTL, TTL, Event::Begin(user));
        }
        let User { session, holds, past } = self.users[user];
        self.sign_of_life(session);
        let lease = self.dice.percent(30.0).then(|| ms(30 + self.dice.below(200)));
        let token = holds.or(past.filter(|_| self.dice.percent(30.0)));
        let what = match (token, self.dice.below(10)) {
            (_, 0..4) => What::Read { held: None },
            (Some(token), 4..6) => What::Renewed { token, lease },
            (Some(token), 6..10) => What::Released { token },
            _ => What::Granted { token: 0, lease },
        };
        let op = Op { session, invoked: ms(self.now), returned: None, what };
        let lost = self.dice.percent(5.0);
        self.after(0, 20, Event::Happens { user, op, lost });
    }

    /// One that is answered at once.
    fn sign_of_life(&mut self, session: Session) {
        let life = self.lives.get_mut(&session).expect("every session has a life");
        if life.until > self.now && !life.over {
            (life.sent, life.until) = (self.now, self.now + TTL);
        }
    }

    fn happens(&mut self, user: usize, mut op: Op, lost: bool) {
        let asked = op.what.clone();
        let over = self.lives[&op.session].over;
        let holder = self.holder;
        op.what = match op.what {
            What::Read { .. } => What::Read { held: holder.map(|(session, token, _)| (session, token)) },
            What::Renewed { token, .. } if holder.is_none_or(|holder| holder.1 != token) => What::Lost { token },
            What::Released { token } if holder.is_none_or(|holder| holder.1 != token) => What::Lost { token },
            What::Renewed { token, lease } => {
                let until = lease.map_or(u64::MAX, |lease| self.now + lease.as_millis() as u64);
                // Never shorter, as clients do it.
                self.holder = holder.map(|(session, token, before)| (session, token, before.max(until)));
                What::Renewed { token, lease }
            }
            What::Released { token } => {
                self.holder = None;
                What::Released { token }
            }
            // A session that has ended is told so, and nothing has happened.
            What::Granted { .. } if over => {
                self.reopen(user);
                return self.after(0, 15, Event::Begin(user));
            }
            What::Granted { lease, .. } => match holder {
                Some((session, token, _)) if session == op.session => What::Holds { token },
                Some((_, token, _)) => What::Refused { by: self.dice.percent(80.0).then_some(token) },
                None => {
                    self.last += 1 + self.dice.below(3);
                    let until = lease.map_or(u64::MAX, |lease| self.now + lease.as_millis() as u64);
                    self.holder = Some((op.session, self.last, until));
                    What::Granted { token: self.last, lease }
                }
            },
            other => other,
        };
        self.after(TTL, TTL, Event::Look);
        match lost {
            false => self.after(0, 20, Event::Returns { user, op }),
            true => {
                op.what = match asked {
                    What::Granted { .. } => What::Asked,
                    asked => asked,
                };
                self.made.ops.push(op);
                self.after(5, 30, Event::Begin(user));
            }
        }
    }
}

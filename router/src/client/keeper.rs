//! Keeps all sessions of a client alive: one task, however many they are.
//!
//! The task sleeps until the first session wants something: its next sign of life, its fall into
//! jeopardy, or its end. Signs of life go out at a third of the TTL, a little earlier at random so that
//! sessions opened together do not stay together; one is under way per session at a time, and has until
//! the session's deadline to be answered.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio::sync::Notify;
use wardlock_machine::SessionId;
use wardlock_wire::KeptAlive;

use super::{
    clock::{Boot, LOOK},
    core::Core,
    vital::{SessionState, Vital},
};
use crate::{Error, random};

/// Where new sessions are handed to the task.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    new: Mutex<Vec<Arc<Vital>>>,
    wake: Notify,
}

/// A session that is kept alive.
struct Kept {
    vital: Weak<Vital>,
    /// Its place in the order of what is due.
    due: Boot,
    /// When its next sign of life goes out; `None` while one is under way.
    beat: Option<Boot>,
}

#[derive(Default)]
struct Sessions {
    kept: random::Map<SessionId, Kept>,
    due: BTreeSet<(Boot, SessionId)>,
}

impl Keeper {
    /// Keeps a session alive until it is lost or nobody has it any more.
    pub(crate) fn keep(&self, vital: Arc<Vital>) {
        self.new.lock().unwrap_or_else(PoisonError::into_inner).push(vital);
        self.wake.notify_one();
    }

    /// The task.
    pub(crate) async fn run(&self, core: &Core) {
        let mut sessions = Sessions::default();
        let mut beating = FuturesUnordered::new();
        loop {
            let now = core.clock.now();
            for vital in std::mem::take(&mut *self.new.lock().unwrap_or_else(PoisonError::into_inner)) {
                sessions.insert(&vital, now);
            }
            while let Some(id) = sessions.next(now) {
                if let Some(vital) = sessions.visit(id, now) {
                    beating.push(beat(core, vital));
                }
            }
            let nap = sessions.due.first().map_or(Duration::MAX, |(due, _)| due.since(now)).min(LOOK);
            tokio::select! {
                biased;
                () = self.wake.notified() => {}
                Some((id, answer)) = beating.next() => {
                    sessions.answered(id, answer, core.clock.now());
                    while let Some(Some((id, answer))) = beating.next().now_or_never() {
                        sessions.answered(id, answer, core.clock.now());
                    }
                }
                () = tokio::time::sleep(nap), if !sessions.due.is_empty() => {}
            }
        }
    }
}

/// One sign of life. It does not keep the session from being dropped.
async fn beat(core: &Core, vital: Arc<Vital>) -> (SessionId, Result<(KeptAlive, Boot), Error>) {
    let id = vital.id;
    let patience = vital.deadline().since(core.clock.now());
    drop(vital);
    (id, core.keep_alive(id, patience).await)
}

/// When a session whose last sign of life was sent at `sent` sends the next.
fn next_beat(sent: Boot, ttl: Duration) -> Boot {
    sent + ttl.mul_f64(random::within(0.28..0.333))
}

impl Sessions {
    fn insert(&mut self, vital: &Arc<Vital>, now: Boot) {
        let beat = Some(next_beat(now, vital.ttl));
        self.kept.insert(vital.id, Kept { vital: Arc::downgrade(vital), due: now, beat });
        self.due.insert((now, vital.id));
    }

    /// Takes the next session that is due by `now`.
    fn next(&mut self, now: Boot) -> Option<SessionId> {
        let first = *self.due.first().filter(|(due, _)| *due <= now)?;
        self.due.remove(&first);
        Some(first.1)
    }

    /// Looks after a session that is due, and puts it back. Returns it if it wants a sign of life now.
    fn visit(&mut self, id: SessionId, now: Boot) -> Option<Arc<Vital>> {
        let kept = self.kept.get_mut(&id)?;
        let vital = kept.vital.upgrade();
        let Some((vital, state)) = vital.map(|vital| (vital.clone(), vital.look())) else {
            self.kept.remove(&id);
            return None;
        };
        if state == SessionState::Lost {
            self.kept.remove(&id);
            return None;
        }
        let beats = kept.beat.is_some_and(|beat| beat <= now);
        if beats {
            kept.beat = None;
        }
        let watched = if state == SessionState::Healthy { vital.jeopardy() } else { vital.deadline() };
        // A session due in the past would be visited again at once, for ever.
        kept.due = kept.beat.map_or(watched, |beat| beat.min(watched)).max(now + Duration::from_millis(1));
        self.due.insert((kept.due, id));
        beats.then_some(vital)
    }

    /// A sign of life was answered, or not.
    fn answered(&mut self, id: SessionId, answer: Result<(KeptAlive, Boot), Error>, now: Boot) {
        let Some(kept) = self.kept.get_mut(&id) else { return };
        let Some(vital) = kept.vital.upgrade() else { return };
        kept.beat = Some(match answer {
            Ok((KeptAlive::Alive, sent)) => {
                let margin = vital.deadline().since(now).as_secs_f64() / vital.ttl.as_secs_f64();
                metrics::histogram!("wardlock_session_keepalive_margin_ratio").record(margin);
                vital.extend(sent);
                next_beat(sent, vital.ttl)
            }
            Ok((KeptAlive::Ended | KeptAlive::Unknown, _)) => {
                vital.lose();
                now
            }
            Err(error) => {
                tracing::debug!(session = %id, %error, "no answer to a keep-alive");
                now + (vital.ttl / 20).clamp(Duration::from_millis(50), Duration::from_secs(1))
            }
        });
        self.due.remove(&(kept.due, id));
        kept.due = now;
        self.due.insert((now, id));
    }
}

//! A lock-delay is kept: where an exclusive grant was lost, nobody is granted the lock before its delay is over.

use std::{collections::BTreeMap, time::Duration};

use wardlock_machine::{Mode, Token};

use super::{At, Check, Verdict};
use crate::event::Event;

/// How much sooner than its delay a lock may open, by a leader's clock that is fast.
const SLACK: Duration = Duration::from_millis(50);

/// Exclusive grants with a delay, and until when locks are closed.
#[derive(Default)]
pub(super) struct LockDelay {
    delays: BTreeMap<(String, Token), Duration>,
    closed: BTreeMap<String, (Token, At)>,
}

impl Check for LockDelay {
    fn name(&self) -> &'static str {
        "lock-delays are kept"
    }

    fn event(&mut self, at: At, event: &Event) -> Verdict {
        match event {
            Event::Granted { name, mode, token, delay, .. } => {
                if *mode == Mode::Exclusive && *delay > 0 {
                    self.delays.insert((name.clone(), *token), Duration::from_millis(*delay));
                }
                // Later tokens were granted after the loss, and not before its holder reckoned with it.
                if let Some((lost, until)) = self.closed.get(name)
                    && token > lost
                    && at < *until
                {
                    return Err(format!("{name} is granted with token {token}, closed until {until:?} by {lost}"));
                }
            }
            Event::Releasing { name, token, .. } => {
                self.delays.remove(&(name.clone(), *token));
                if self.closed.get(name).is_some_and(|(lost, _)| lost == token) {
                    self.closed.remove(name);
                }
            }
            Event::Lost { name, token, .. } => {
                if let Some(delay) = self.delays.remove(&(name.clone(), *token)) {
                    self.closed.insert(name.clone(), (*token, (at + delay).saturating_sub(SLACK)));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

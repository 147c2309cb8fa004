//! Nothing acknowledged is lost: when the faults have ended, what holders believe in is there, and what they gave
//! back is not.

use std::collections::{BTreeMap, BTreeSet};

use wardlock_machine::Token;

use super::{At, Check, End, Verdict};
use crate::event::{Believes, Event};

/// What was acknowledged.
#[derive(Default)]
pub(super) struct Durable {
    held: BTreeMap<(String, Token), Believes>,
    gone: BTreeSet<(String, Token)>,
    /// What was still believed in when the reads of the end were done.
    certain: Vec<(String, Token)>,
}

impl Check for Durable {
    fn name(&self) -> &'static str {
        "acknowledged is durable"
    }

    fn event(&mut self, _: At, event: &Event) -> Verdict {
        match event {
            Event::Granted { name, token, believes, .. } => {
                self.held.insert((name.clone(), *token), believes.clone());
            }
            Event::Releasing { name, token, .. } | Event::Lost { name, token, .. } => {
                self.held.remove(&(name.clone(), *token));
            }
            Event::Released { name, token, done: true, .. } => {
                self.gone.insert((name.clone(), *token));
            }
            Event::Well => {
                let held = self.held.iter().filter(|(_, believes)| believes.now());
                self.certain = held.map(|(which, _)| which.clone()).collect();
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, end: &End) -> Verdict {
        for (name, token) in &self.certain {
            if !end.reads.get(name).is_some_and(|holders| holders.contains(token)) {
                return Err(format!("the grant of {name} with token {token} is lost: {:?}", end.reads.get(name)));
            }
        }
        for (name, holders) in &end.reads {
            if let Some(token) = holders.iter().find(|token| self.gone.contains(&(name.clone(), **token))) {
                return Err(format!("the release of {name} with token {token} is lost"));
            }
        }
        Ok(())
    }
}

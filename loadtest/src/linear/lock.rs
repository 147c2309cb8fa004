//! The lock that a history is compared with: what one correct lock would do, one operation at a time.

use std::collections::BTreeMap;

use super::{At, History, Object, Op, Session, Step, Token, What};

/// The state of the lock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// No new grant has a token as low as this.
    last: Token,
    holder: Option<Holder>,
    /// Nobody holds it, but since it was last known to be free or held somebody did of whom nobody heard.
    hidden: bool,
    /// How many of those whose outcome nobody knows have been granted it. Each is once at the most.
    unknown: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Holder {
    session: Session,
    /// `None` of a grant that nobody has told about yet; it is above [`State::last`] before it, which was raised
    /// by one for it.
    token: Option<Token>,
    /// From when on it may have ended by itself.
    ends: At,
}

/// When holdings may end, reckoned once for a history.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ends {
    sessions: BTreeMap<Session, At>,
    /// Of grants that were renewed: the end of the longest renewal.
    renewed: BTreeMap<Token, At>,
    /// When those asked of whom nobody knows whether they were granted, rising.
    asked: Vec<At>,
}

impl Ends {
    fn of(history: &History) -> Ends {
        let mut renewed = BTreeMap::new();
        for op in history.ops.iter().filter(|op| op.is_certain()) {
            if let What::Renewed { token, lease: Some(lease) } = op.what {
                let until = renewed.entry(token).or_default();
                *until = op.invoked.saturating_add(lease).max(*until);
            }
        }
        let mut asked: Vec<At> = history.ops.iter().filter(|op| op.what == What::Asked).map(|op| op.invoked).collect();
        asked.sort_unstable();
        Ends { sessions: history.sessions.clone(), renewed, asked }
    }

    fn session(&self, session: Session) -> At {
        self.sessions.get(&session).copied().unwrap_or_default()
    }

    fn grant(&self, op: &Op, token: Token, lease: Option<At>) -> At {
        let renewed = self.renewed.get(&token).copied().unwrap_or_default();
        let lease = lease.map_or(At::MAX, |lease| op.invoked.saturating_add(lease).max(renewed));
        self.session(op.session).min(lease)
    }
}

impl Object for What {
    const KIND: &'static str = "lock";
    type State = State;
    type Known = Ends;

    fn know(history: &History) -> Ends {
        Ends::of(history)
    }

    fn first(_: &Ends) -> Vec<State> {
        vec![State::default()]
    }

    fn is_told(&self) -> bool {
        *self != What::Asked
    }

    fn may_change(&self) -> bool {
        matches!(self, What::Granted { .. } | What::Asked | What::Released { .. })
    }

    fn rank(&self) -> Option<Token> {
        match *self {
            What::Granted { token, .. } => Some(token),
            _ => None,
        }
    }

    /// The tokens above this are those of grants to come.
    fn last(state: &State) -> Token {
        state.last
    }

    /// The grant that it speaks of.
    fn about(&self) -> Option<Token> {
        match *self {
            What::Granted { token, .. }
            | What::Holds { token }
            | What::Renewed { token, .. }
            | What::Released { token }
            | What::Lost { token }
            | What::Refused { by: Some(token) }
            | What::Read { held: Some((_, token)) } => Some(token),
            What::Asked | What::Refused { by: None } | What::Read { held: None } => None,
        }
    }

    fn matters(op: &Op, certain: &[&Op], tokens: &[Token]) -> Option<usize> {
        // Somebody may have seen a grant that its own client heard nothing of.
        let stranger = |token: Token| tokens.binary_search(&token).is_err();
        match op.what {
            // The last that is heard of a session's hidden grant; before it, the grant may matter. One that nobody has
            // seen anything of is left out: if it was granted, it was given back.
            What::Asked => certain.iter().rposition(|told| match told.what {
                What::Refused { by } => by.is_some_and(stranger),
                What::Holds { token } => told.session == op.session && stranger(token),
                What::Read { held: Some((holder, token)) } => holder == op.session && stranger(token),
                _ => false,
            }),
            // What nobody speaks of and nobody was refused for can be left out.
            What::Granted { token, .. } => certain
                .iter()
                .rposition(|told| told.what == What::Refused { by: None } || told.what.about() == Some(token)),
            _ => Some(usize::MAX),
        }
    }

    fn step(state: &State, op: &Op, ends: &Ends, horizon: At) -> Step<State> {
        state.step(op, ends, horizon)
    }

    fn is_past(state: &State, op: &Op, _: &Ends) -> bool {
        state.is_past(op)
    }

    fn words(&self, known: bool) -> String {
        super::shown::of_lock(self, known)
    }
}

impl State {
    fn step(&self, op: &Op, ends: &Ends, horizon: At) -> Step<State> {
        let free = self.holder.as_ref().is_none_or(|holder| holder.ends <= horizon);
        let token = self.holder.as_ref().and_then(|holder| holder.token);
        match op.what {
            What::Granted { token, lease } if free && token > self.last => {
                let holder = Holder { session: op.session, token: Some(token), ends: ends.grant(op, token, lease) };
                Step::To(State { last: token, holder: Some(holder), hidden: false, ..*self })
            }
            // A grant that nobody fetches is given back, at any time.
            What::Asked if free && self.one_more_asked(ends, horizon) => {
                let holder = Some(Holder { session: op.session, token: None, ends: op.invoked });
                Step::To(State { last: self.last + 1, holder, hidden: false, unknown: self.unknown + 1 })
            }
            What::Refused { by: None } if self.holder.is_some() || self.hidden => Step::Observed,
            What::Refused { by: None } if self.one_more_asked(ends, horizon) => {
                Step::To(State { last: self.last + 1, holder: None, hidden: true, unknown: self.unknown + 1 })
            }
            What::Refused { by: Some(by) } => self.seen(None, by),
            What::Holds { token } => self.seen(Some(op.session), token),
            What::Renewed { token: of, .. } if token == Some(of) => Step::Observed,
            What::Released { token: of } if token == Some(of) => Step::To(self.freed()),
            What::Lost { token: of } if token != Some(of) => Step::Observed,
            What::Lost { .. } if free => Step::To(self.freed()),
            What::Read { held: None } if self.holder.is_none() && !self.hidden => Step::Observed,
            What::Read { held: None } if free => Step::To(self.freed()),
            What::Read { held: Some((session, token)) } => self.seen(Some(session), token),
            _ => Step::Impossible,
        }
    }

    /// Whether its token has passed.
    fn is_past(&self, op: &Op) -> bool {
        match op.what {
            What::Granted { token, .. } => token <= self.last,
            What::Released { token } => match &self.holder {
                Some(holder) if token == self.last => holder.token.is_some_and(|held| held != token),
                _ => token <= self.last,
            },
            _ => false,
        }
    }

    /// Whether somebody of whom nobody knows whether it was granted can have been granted it by now.
    fn one_more_asked(&self, ends: &Ends, horizon: At) -> bool {
        ends.asked.partition_point(|asked| *asked <= horizon) > self.unknown
    }

    fn freed(&self) -> State {
        State { holder: None, hidden: false, ..*self }
    }

    /// Somebody is told that this grant holds the lock, and perhaps whose it is. One that was not known until then
    /// may still be given back unfetched at any time.
    fn seen(&self, session: Option<Session>, token: Token) -> Step<State> {
        let Some(holder) = &self.holder else { return Step::Impossible };
        if session.is_some_and(|session| session != holder.session) {
            return Step::Impossible;
        }
        match holder.token {
            Some(known) if known == token => Step::Observed,
            None if token >= self.last => {
                let holder = Holder { token: Some(token), ..holder.clone() };
                Step::To(State { last: token, holder: Some(holder), ..*self })
            }
            _ => Step::Impossible,
        }
    }
}

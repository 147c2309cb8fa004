//! What the model keeps of one attached session: who it is, and the answers that make its retries harmless.

use wardlock_machine::*;

use crate::model::Model;

/// What was decided, to be told again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kept {
    /// The grant of this token.
    Granted(Token),
    AlreadyHeld(Token),
    Renewed(Token),
    Held,
    WaitTimeout,
    Cancelled,
    Mismatch(Mode),
    Released,
    Expired,
    Foreign,
    Deadlock,
}

/// A kept answer.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    pub(crate) request: RequestId,
    pub(crate) kept: Kept,
    /// When a keyed one is forgotten: so long after it was first kept.
    pub(crate) until: Stamp,
}

/// What a request id says.
pub(crate) enum Known {
    New,
    Before(Kept),
    TooOld,
}

/// A session that is attached.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    pub(crate) id: SessionId,
    pub(crate) nonce: Nonce,
    pub(crate) holder: Holder,
    /// In the order in which they were kept.
    pub(crate) answers: Vec<Answered>,
    /// Native requests below are refused.
    pub(crate) low: u64,
    /// What it gave back, oldest first.
    pub(crate) given_back: Vec<Token>,
}

impl Guest {
    pub(crate) fn new(id: SessionId, nonce: Nonce, holder: Holder) -> Guest {
        Guest { id, nonce, holder, answers: Vec::new(), low: 0, given_back: Vec::new() }
    }

    pub(crate) fn gave_back(&mut self, token: Token) {
        self.given_back.push(token);
        if self.given_back.len() > limits::RELEASED_PER_SESSION {
            self.given_back.remove(0);
        }
    }

    fn is_below(&self, request: RequestId) -> bool {
        matches!(request, RequestId::Native { seq, .. } if seq < self.low)
    }

    fn raise(&mut self, low: u64) {
        self.low = self.low.max(low);
        let low = self.low;
        self.answers.retain(|answer| !matches!(answer.request, RequestId::Native { seq, .. } if seq < low));
    }

    fn known(&mut self, request: RequestId) -> Known {
        if let RequestId::Native { seq, low } = request {
            // Who sends a request waits for its answer, whatever it says it waits for.
            self.raise(low.min(seq));
        }
        match self.answers.iter().find(|answer| answer.request.is_same(&request)) {
            Some(answer) => Known::Before(answer.kept),
            None if self.is_below(request) => Known::TooOld,
            None => Known::New,
        }
    }

    fn keep(&mut self, request: RequestId, kept: Kept, now: Stamp) {
        if self.is_below(request) {
            return;
        }
        if let Some(answer) = self.answers.iter_mut().find(|answer| answer.request.is_same(&request)) {
            answer.kept = kept;
            return;
        }
        self.answers.push(Answered { request, kept, until: now.after(limits::KEY_LIFE) });
        let keyed = |answer: &Answered| matches!(answer.request, RequestId::Keyed { .. });
        if self.answers.iter().filter(|answer| keyed(answer)).count() > limits::KEYS_PER_SESSION {
            let oldest = self.answers.iter().position(keyed).expect("there are many");
            self.answers.remove(oldest);
        }
        let native = |answer: &Answered| match answer.request {
            RequestId::Native { seq, .. } => Some(seq),
            RequestId::Keyed { .. } => None,
        };
        if self.answers.iter().filter_map(native).count() > limits::ANSWERS_PER_SESSION {
            let lowest = self.answers.iter().filter_map(native).min().expect("there are many");
            self.raise(lowest + 1);
        }
    }
}

impl Model {
    pub(crate) fn known(&mut self, session: SessionId, request: RequestId) -> Known {
        self.guest_mut(session).map_or(Known::New, |guest| guest.known(request))
    }

    /// Keeps a final answer, as long as its session is attached.
    pub(crate) fn keep(&mut self, session: SessionId, request: RequestId, kept: Kept) {
        let now = self.now;
        if let Some(guest) = self.guest_mut(session) {
            guest.keep(request, kept, now);
        }
    }

    pub(crate) fn keep_and_tell(&mut self, session: SessionId, request: RequestId, kept: Kept, key: &Key) -> Outcome {
        self.keep(session, request, kept);
        self.tell(kept, key)
    }

    /// An answer with things as they are now: nobody is told that it holds what it does not.
    pub(crate) fn tell(&self, kept: Kept, key: &Key) -> Outcome {
        let grant = |token: Token| self.held.iter().find(|held| held.token() == token).map(|held| held.grant.clone());
        match kept {
            Kept::Granted(token) => grant(token).map_or(Outcome::Expired, Outcome::Granted),
            Kept::AlreadyHeld(token) => grant(token).map_or(Outcome::Expired, Outcome::AlreadyHeld),
            Kept::Renewed(token) => grant(token).map_or(Outcome::Expired, Outcome::Renewed),
            Kept::Held => Outcome::Held(self.blocked(key)),
            Kept::WaitTimeout => Outcome::WaitTimeout(self.blocked(key)),
            Kept::Cancelled => Outcome::Cancelled,
            Kept::Mismatch(mode) => Outcome::Mismatch { mode },
            Kept::Released => Outcome::Released,
            Kept::Expired => Outcome::Expired,
            Kept::Foreign => Outcome::Foreign,
            Kept::Deadlock => Outcome::Deadlock(Circle::default()),
        }
    }
}

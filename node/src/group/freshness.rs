//! How old a replica's applied state may be, and the stale reads that want to know.
//!
//! A replica cannot see by itself how far it is behind: hearing from a leader proves nothing, for that one may be
//! deposed, and clocks of two machines say nothing to each other. So it asks. At the time `t` of its *own* clock it
//! asks the shard's leader up to which index of the log that one has applied; the leader answers after a read round
//! that began when the question had come ([`Op::ReadIndex`](wardlock_wire::Op::ReadIndex)). The pair of `t` and the
//! index is a *proof*. Once the replica has applied up to the index, its state is no older than since `t`, for good:
//! state only grows. One proof serves every read that comes for as long as it is young enough; a read that wants a
//! younger state waits for the next proof, with all others that wait.
//!
//! # The promise
//! Whoever is told an age has in the answer all that was acknowledged before the question came, less that age. Where
//! the age is zero, the read is linearizable.
//!
//! # Why it holds
//! Let `W` be acknowledged, or seen by a linearizable read, more than `age` before the question came at `c`, so before
//! `t`, for the age that is said is at least `c - t`. The leader's round began after `t`. By the
//! [barrier's promise](crate::barrier) `W` is in the leader's applied state when the round ends, so below the index
//! that it answers: it reads the index after the round. The replica applies the same log in the same order, so from the
//! index on `W` is in its state, also where a snapshot brought it there. The state is read after the applied index
//! was. No clock but the replica's own is read, as a length of time, which is what one percent is added for: two
//! clocks that differ in speed by no more than that may tell the length, the asker's too.
//!
//! # Invariants
//! 1. A proof counts from when it was asked for, not from its answer.
//! 2. A proof counts once its index is applied here.
//! 3. What is proven never becomes older by a later proof.
//! 4. A process that starts has proven nothing.
//! 5. What waits is bounded in number and bytes, and by each read's patience.
//!
//! This file is a function of what it is told and of the time that it is told: it asks nobody and reads no clock.
//! [`crate::host`] asks for it.

use std::{collections::VecDeque, mem, time::Duration};

use wardlock_machine::{Query, planted};

/// A proof that is older than this is renewed while somebody reads, in the background.
const RENEW: Duration = Duration::from_millis(500);
/// How long a read that takes any age waits where none is known at all.
const FIRST: Duration = Duration::from_millis(300);
/// The most proofs whose index is not applied yet. A replica that catches up for long keeps the oldest: they come
/// true first.
const COMING: usize = 16;
/// The most reads that wait for a proof.
const WAITING: usize = 4_096;
/// The most bytes of these, as they are weighed.
const WAITING_BYTES: usize = 1 << 20;

/// A stale read on its way.
#[derive(Debug)]
pub struct StaleRead<W> {
    /// What is asked.
    pub query: Query,
    /// How old the answer may be at the most, in milliseconds.
    pub max_age_ms: Option<u64>,
    /// When it came, by the node's clock.
    pub came: Duration,
    /// Until when somebody waits for the answer.
    pub until: Duration,
    /// Who.
    pub reply: W,
}

/// What becomes of a read that has come.
#[derive(Debug)]
pub enum Asked<W> {
    /// It is answered now, with this age.
    Now(StaleRead<W>, Option<u64>),
    /// It waits for a proof.
    Waits,
    /// Too much waits already.
    Full(StaleRead<W>),
}

/// How a wait has ended: with an age to say, or the bound cannot be met in time.
pub type Settled = Result<Option<u64>, TooStale>;

/// The replica cannot show that its state is young enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooStale;

#[derive(Clone, Copy, Debug)]
struct Proof {
    asked: Duration,
    index: u64,
}

/// What one replica knows of its age.
#[derive(Debug)]
pub struct Freshness<W> {
    /// When the youngest proof was asked for whose index is applied.
    proven: Option<Duration>,
    /// In the order in which they were asked for.
    coming: VecDeque<Proof>,
    waiting: Vec<(StaleRead<W>, usize)>,
    /// What these weigh.
    bytes: usize,
    /// The next proof is wanted, though nobody waits for it.
    renew: bool,
    /// One is being asked for.
    asking: bool,
    /// Somebody asks for proofs.
    driven: bool,
}

impl<W> Default for Freshness<W> {
    fn default() -> Freshness<W> {
        Freshness {
            proven: None,
            coming: VecDeque::new(),
            waiting: Vec::new(),
            bytes: 0,
            renew: false,
            asking: false,
            driven: false,
        }
    }
}

impl<W> Freshness<W> {
    /// A read has come, of so many bytes, to a replica that has applied up to `applied`.
    pub fn ask(&mut self, read: StaleRead<W>, bytes: usize, applied: u64) -> Asked<W> {
        self.applied(applied);
        let age = self.age(read.came);
        let coming = self.youngest().map(|asked| read.came.saturating_sub(asked));
        self.renew |= !self.asking && coming.is_none_or(|age| age > renew_after(&read));
        if age.is_some_and(|age| is_met(&read, age)) {
            return Asked::Now(read, age);
        }
        if self.waiting.len() >= WAITING || self.bytes + bytes > WAITING_BYTES {
            return Asked::Full(read);
        }
        let until = match read.max_age_ms {
            Some(_) => read.until,
            None => read.until.min(read.came + FIRST),
        };
        self.bytes += bytes;
        self.waiting.push((StaleRead { until, ..read }, bytes));
        Asked::Waits
    }

    /// Whether a proof is to be asked for by somebody who is not there yet: by the caller, from now on.
    pub fn take_over(&mut self) -> bool {
        let begins = !self.driven && self.is_needed();
        self.driven |= begins;
        begins
    }

    /// Whether whoever asks for proofs has done so: nobody waits.
    pub fn hand_back(&mut self) -> bool {
        self.driven = self.is_needed();
        !self.driven
    }

    fn is_needed(&self) -> bool {
        self.renew || !self.waiting.is_empty()
    }

    /// Whether those who wait need a proof younger than those that were asked for; it is asked for now.
    pub fn begin(&mut self) -> bool {
        let youngest = self.youngest();
        let served = |read: &StaleRead<W>| youngest.is_some_and(|asked| is_met(read, said(read.came, asked)));
        self.asking = mem::take(&mut self.renew) || self.waiting.iter().any(|(read, _)| !served(read));
        self.asking
    }

    /// When the youngest proof was asked for, whether its index is applied or not.
    fn youngest(&self) -> Option<Duration> {
        self.coming.back().map(|proof| proof.asked).max(self.proven)
    }

    /// The leader has answered `index` to a question that was asked at `asked`, or that was answered at `answered`.
    pub fn proved(&mut self, asked: Duration, answered: Duration, index: u64) {
        self.asking = false;
        let asked = if planted!("stale-age-from-the-answer") { answered } else { asked };
        if self.coming.len() >= COMING {
            self.coming.pop_back();
        }
        self.coming.push_back(Proof { asked, index });
    }

    /// No leader has answered: whoever waits may do better elsewhere.
    pub fn failed(&mut self) {
        self.asking = false;
        for (read, _) in &mut self.waiting {
            read.until = Duration::ZERO;
        }
    }

    /// Ends the waits that a replica that has applied up to `applied` can end at `now`.
    pub fn settle(&mut self, now: Duration, applied: u64) -> Vec<(StaleRead<W>, Settled)> {
        self.applied(applied);
        let mut settled = Vec::new();
        let (proven, mut bytes) = (self.proven, self.bytes);
        for (read, weight) in self.waiting.extract_if(.., |(read, _)| {
            read.until <= now || proven.is_some_and(|asked| is_met(read, said(read.came, asked)))
        }) {
            bytes -= weight;
            let age = proven.map(|asked| said(read.came, asked));
            let outcome = match age {
                Some(age) if is_met(&read, age) => Ok(Some(age)),
                None if read.max_age_ms.is_none() => Ok(None),
                _ => Err(TooStale),
            };
            settled.push((read, outcome));
        }
        self.bytes = bytes;
        settled
    }

    /// When the next wait ends at the latest.
    pub fn next(&self) -> Option<Duration> {
        self.waiting.iter().map(|(read, _)| read.until).min()
    }

    /// How old the state is for whoever asked at `came`, in milliseconds.
    fn age(&self, came: Duration) -> Option<u64> {
        self.proven.map(|asked| said(came, asked))
    }

    fn applied(&mut self, applied: u64) {
        while let Some(proof) = self.coming.front()
            && (proof.index <= applied || planted!("stale-proof-before-applied"))
        {
            self.proven = self.proven.max(Some(proof.asked));
            self.coming.pop_front();
        }
    }
}

/// What is said of a state that is no older than since `asked` to whoever asked at `came`: with one percent for the
/// speed of clocks, and rounded up.
fn said(came: Duration, asked: Duration) -> u64 {
    let age = came.saturating_sub(asked);
    let age = age + age / 100;
    u64::try_from(age.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

fn is_met<W>(read: &StaleRead<W>, age: u64) -> bool {
    read.max_age_ms.is_none_or(|most| age <= most)
}

/// Well before a bound is reached, that readers who keep coming never wait.
fn renew_after<W>(read: &StaleRead<W>) -> Duration {
    read.max_age_ms.map_or(RENEW, |most| Duration::from_millis(most / 2).min(RENEW))
}

#[cfg(test)]
mod tests {
    use wardlock_machine::SessionId;

    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// One that came then and is patient for a second, and its number.
    fn read(number: u32, came: u64, max_age_ms: Option<u64>) -> StaleRead<u32> {
        let query = Query::Session { session: SessionId(1) };
        StaleRead { query, max_age_ms, came: at(came), until: at(came + 1_000), reply: number }
    }

    fn now<W>(asked: Asked<W>) -> Option<Option<u64>> {
        match asked {
            Asked::Now(_, age) => Some(age),
            Asked::Waits | Asked::Full(_) => None,
        }
    }

    fn settled(freshness: &mut Freshness<u32>, now: u64, applied: u64) -> Vec<(u32, Settled)> {
        freshness.settle(at(now), applied).into_iter().map(|(read, settled)| (read.reply, settled)).collect()
    }

    /// Asked for at `asked` and answered ten milliseconds later.
    fn prove(freshness: &mut Freshness<u32>, asked: u64, index: u64) {
        freshness.proved(at(asked), at(asked + 10), index);
    }

    #[test]
    fn the_age_counts_from_the_question_and_grows_by_a_percent_more_than_time() {
        let mut freshness = Freshness::default();
        prove(&mut freshness, 1_000, 7);
        assert_eq!(now(freshness.ask(read(1, 1_010, None), 1, 7)), Some(Some(11)), "invariant 1");
        assert_eq!(now(freshness.ask(read(1, 2_000, None), 1, 7)), Some(Some(1_010)));
        assert_eq!(now(freshness.ask(read(1, 1_001, None), 1, 7)), Some(Some(2)), "rounded up");
        assert_eq!(
            now(freshness.ask(read(1, 999, None), 1, 7)),
            Some(Some(0)),
            "it came before the proof was asked for"
        );
    }

    #[test]
    fn a_proof_counts_once_its_index_is_applied() {
        let mut freshness = Freshness::default();
        prove(&mut freshness, 1_000, 7);
        prove(&mut freshness, 2_000, 9);
        assert_eq!(now(freshness.ask(read(1, 2_100, None), 1, 6)), None, "invariant 2");
        assert_eq!(settled(&mut freshness, 2_100, 8), [(1, Ok(Some(1_111)))]);
        assert_eq!(now(freshness.ask(read(2, 2_100, None), 1, 9)), Some(Some(101)));
        // An earlier question that was answered late, or a longer way back in time, changes nothing.
        prove(&mut freshness, 1_500, 3);
        assert_eq!(now(freshness.ask(read(3, 2_100, None), 1, 9)), Some(Some(101)), "invariant 3");
    }

    #[test]
    fn a_bound_is_waited_for_and_refused_when_patience_ends() {
        let mut freshness = Freshness::default();
        prove(&mut freshness, 1_000, 7);
        assert_eq!(now(freshness.ask(read(1, 1_300, Some(400)), 1, 7)), Some(Some(303)));
        assert_eq!(now(freshness.ask(read(2, 1_300, Some(200)), 1, 7)), None);
        assert_eq!(now(freshness.ask(read(3, 1_300, Some(0)), 1, 7)), None);
        assert!(freshness.take_over() && !freshness.take_over(), "one asks for all");
        assert!(freshness.begin(), "no proof that was asked for is young enough");
        prove(&mut freshness, 1_301, 9);
        assert!(!freshness.begin(), "that one will do");
        assert_eq!(settled(&mut freshness, 1_320, 8), []);
        assert_eq!(settled(&mut freshness, 1_330, 9), [(2, Ok(Some(0))), (3, Ok(Some(0)))]);
        assert!(freshness.hand_back());

        assert_eq!(now(freshness.ask(read(4, 1_900, Some(100)), 1, 9)), None);
        assert!(freshness.take_over());
        assert_eq!(freshness.next(), Some(at(2_900)));
        assert_eq!(settled(&mut freshness, 2_899, 9), []);
        assert!(!freshness.hand_back());
        assert_eq!(settled(&mut freshness, 2_900, 9), [(4, Err(TooStale))]);
        assert_eq!(now(freshness.ask(read(5, 3_000, Some(100)), 1, 9)), None);
        freshness.failed();
        assert_eq!(settled(&mut freshness, 3_001, 9), [(5, Err(TooStale))], "others may do better");
    }

    #[test]
    fn whoever_takes_any_age_waits_only_where_none_is_known_and_not_for_long() {
        let mut freshness = Freshness::default();
        assert_eq!(now(freshness.ask(read(1, 1_000, None), 1, 50)), None, "invariant 4");
        assert!(freshness.take_over() && freshness.begin());
        assert_eq!(settled(&mut freshness, 1_299, 50), []);
        assert_eq!(settled(&mut freshness, 1_300, 50), [(1, Ok(None))]);
        assert_eq!(now(freshness.ask(read(2, 1_400, None), 1, 50)), None);
        freshness.failed();
        assert_eq!(settled(&mut freshness, 1_401, 50), [(2, Ok(None))]);
        prove(&mut freshness, 1_500, 50);
        assert!(freshness.hand_back());
        assert_eq!(now(freshness.ask(read(3, 9_000, None), 1, 50)), Some(Some(7_575)));
        assert!(freshness.take_over(), "the next reader is to be told less");
    }

    #[test]
    fn a_proof_is_renewed_before_it_is_too_old() {
        let mut freshness = Freshness::default();
        prove(&mut freshness, 1_000, 7);
        assert_eq!(now(freshness.ask(read(1, 1_240, Some(500)), 1, 7)), Some(Some(243)));
        assert!(!freshness.take_over(), "it is young");
        assert_eq!(now(freshness.ask(read(1, 1_300, Some(500)), 1, 7)), Some(Some(303)));
        assert!(freshness.take_over(), "it will soon be too old for those who ask so");
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut freshness = Freshness::default();
        for number in 0..WAITING as u32 {
            assert!(matches!(freshness.ask(read(number, 1_000, None), 1, 0), Asked::Waits));
        }
        assert!(matches!(freshness.ask(read(0, 1_000, None), 1, 0), Asked::Full(_)), "invariant 5");
        assert_eq!(settled(&mut freshness, 2_000, 0).len(), WAITING);
        assert!(matches!(freshness.ask(read(0, 2_000, None), WAITING_BYTES, 0), Asked::Waits));
        assert!(matches!(freshness.ask(read(0, 2_000, None), 1, 0), Asked::Full(_)), "invariant 5");
        for _ in 0..100 {
            prove(&mut freshness, 1_000, 7);
        }
        assert!(freshness.coming.len() <= COMING);
    }
}

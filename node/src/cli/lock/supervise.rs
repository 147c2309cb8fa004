//! What the child of `lock run` is told, and when: the decisions, without the process.
//!
//! The child must have ended before the servers can grant the lock to somebody else. While keep-alives
//! are answered the lock's *valid-until* moves ahead of the clock and nothing is decided. Where it stops
//! moving, the child gets TERM some time ahead of it, the *margin*, and KILL at it. Where it is to make room for
//! somebody else it gets TERM at once, and KILL when its time for that is over.
//!
//! # Promises
//! 1. At valid-until the child is told KILL, whatever came before.
//! 2. TERM is told once, at the latest a margin before valid-until (if anybody looked then).
//! 3. Once told, there is no way back: what keeps its lock after all was still told to end, and where the lock was
//!    the reason the exit code says *lost*.
//!
//! Times are lengths since some fixed instant of `CLOCK_BOOTTIME`, which runs while the machine sleeps.

use std::time::Duration;

use crate::cli::failure::Code;

/// The longest margin. More would end children for outages that a cluster often survives.
const MARGIN_MAX: Duration = Duration::from_secs(5);
/// The longest time without a look: timers stand still while the machine sleeps, the deadline does not.
const LOOK_MAX: Duration = Duration::from_millis(500);

/// What is known of the lock at one moment.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// The time.
    pub now: Duration,
    /// Until when nobody else can hold the lock. It moves back only where the lock is gone.
    pub valid_until: Duration,
    /// The client knows that the lock is gone: it was broken, or its session ended.
    pub lost: bool,
}

/// What to do to the child's process group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Send TERM, and CONT so that a stopped process hears it.
    Terminate,
    /// Send KILL.
    Kill,
}

/// How the child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It exited.
    Exited(u8),
    /// A signal ended it.
    Signaled(u8),
}

/// Decides over one child.
#[derive(Debug)]
pub struct Supervisor {
    margin: Duration,
    told: Option<Order>,
    /// The latest valid-until that was seen.
    valid_until: Duration,
    /// Set when the lock is known to be gone: when the child must be.
    last_moment: Option<Duration>,
    /// Set when somebody else is to have it: when the child must be gone.
    room_by: Option<Duration>,
    /// Something was told because of the lock.
    lost: bool,
}

impl Supervisor {
    /// For a lock that outlives its last keep-alive by `ttl`.
    pub fn new(ttl: Duration) -> Supervisor {
        Supervisor {
            margin: (ttl / 5).min(MARGIN_MAX),
            told: None,
            valid_until: Duration::ZERO,
            last_moment: None,
            room_by: None,
            lost: false,
        }
    }

    /// The child is to end for somebody else's sake, by then at the latest.
    pub fn make_room(&mut self, by: Duration) {
        self.room_by = Some(by);
    }

    /// What to do now, if anything. To be called at least as often as [`Supervisor::rest`] says.
    pub fn look(&mut self, view: View) -> Option<Order> {
        if (view.lost || view.valid_until < self.valid_until) && self.last_moment.is_none() {
            // Somebody else may hold it already; the margin is what the child gets to end cleanly.
            self.last_moment = Some(self.valid_until.max(view.valid_until).min(view.now + self.margin));
        }
        self.valid_until = self.valid_until.max(view.valid_until);
        let for_the_lock = if view.now >= self.kill_at() {
            Some(Order::Kill)
        } else if self.last_moment.is_some() || view.now >= self.terminate_at() {
            Some(Order::Terminate)
        } else {
            None
        };
        self.lost |= for_the_lock.is_some();
        let for_room = self.room_by.map(|by| if view.now >= by { Order::Kill } else { Order::Terminate });
        let order = for_the_lock.max(for_room)?;
        match (self.told, order) {
            (Some(Order::Kill), _) | (Some(Order::Terminate), Order::Terminate) => None,
            _ => {
                self.told = Some(order);
                Some(order)
            }
        }
    }

    /// How long to wait at most before the next look, after one at `now`.
    pub fn rest(&self, now: Duration) -> Duration {
        let next = match self.told {
            None => self.terminate_at(),
            Some(Order::Terminate) => self.room_by.map_or(self.kill_at(), |by| by.min(self.kill_at())),
            Some(Order::Kill) => return LOOK_MAX,
        };
        next.saturating_sub(now).clamp(Duration::from_millis(1), LOOK_MAX)
    }

    /// Whether the child was told to end because of the lock.
    pub fn lost(&self) -> bool {
        self.lost
    }

    /// Whether the child was told to end.
    pub fn told(&self) -> bool {
        self.told.is_some()
    }

    /// Whether a child that has ended may be buried, after a look: of its own accord, or told to and
    /// the rest of its group gone or killed too.
    pub fn may_bury(&self, has_company: impl FnOnce() -> bool) -> bool {
        match self.told {
            None | Some(Order::Kill) => true,
            Some(Order::Terminate) => !has_company(),
        }
    }

    /// The exit code of `lock run` and `elect run`.
    pub fn exit_code(&self, child: Ended) -> u8 {
        match (self.lost, child) {
            (true, _) => Code::Lost as u8,
            (false, Ended::Exited(code)) => code,
            (false, Ended::Signaled(signal)) => signal.saturating_add(128),
        }
    }

    fn terminate_at(&self) -> Duration {
        self.valid_until.saturating_sub(self.margin)
    }

    fn kill_at(&self) -> Duration {
        self.last_moment.unwrap_or(self.valid_until)
    }
}

#[cfg(test)]
mod tests {
    use super::{Order::*, *};

    fn at(now: u64, valid_until: u64, lost: bool) -> View {
        View { now: Duration::from_secs(now), valid_until: Duration::from_secs(valid_until), lost }
    }

    /// With a TTL of 10 s the margin is 2 s.
    fn decisions(views: &[(u64, u64, bool)]) -> Vec<Option<Order>> {
        let mut supervisor = Supervisor::new(Duration::from_secs(10));
        views.iter().map(|(now, until, lost)| supervisor.look(at(*now, *until, *lost))).collect()
    }

    #[test]
    fn a_lock_that_is_kept_alive_is_left_alone() {
        assert_eq!(decisions(&[(0, 10, false), (5, 10, false), (7, 17, false), (14, 24, false)]), [None; 4]);
    }

    #[test]
    fn without_an_answer_the_child_gets_term_ahead_of_the_deadline_and_kill_at_it() {
        let told = decisions(&[
            (0, 10, false),
            (7, 10, false),
            (8, 10, false),
            (9, 10, false),
            (10, 10, false),
            (11, 10, false),
        ]);
        assert_eq!(told, [None, None, Some(Terminate), None, Some(Kill), None]);
    }

    #[test]
    fn a_lock_that_was_taken_away_ends_the_child_now_and_kills_it_a_margin_later() {
        let told = decisions(&[(0, 10, false), (1, 10, true), (2, 10, true), (3, 10, true)]);
        assert_eq!(told, [None, Some(Terminate), None, Some(Kill)]);
        assert_eq!(
            decisions(&[(9, 10, true), (10, 10, true)]),
            [Some(Terminate), Some(Kill)],
            "never past valid-until"
        );
    }

    #[test]
    fn after_a_sleep_past_the_deadline_there_is_no_warning() {
        assert_eq!(decisions(&[(0, 10, false), (3600, 10, false)]), [None, Some(Kill)]);
    }

    #[test]
    fn a_lock_that_recovers_after_term_moves_the_kill_but_stays_lost() {
        let mut supervisor = Supervisor::new(Duration::from_secs(10));
        assert_eq!(supervisor.look(at(8, 10, false)), Some(Terminate));
        assert_eq!(supervisor.look(at(10, 19, false)), None, "the lock is still held");
        assert_eq!(supervisor.look(at(19, 19, false)), Some(Kill));
        assert_eq!(supervisor.exit_code(Ended::Exited(0)), 76);
    }

    #[test]
    fn the_exit_code_is_the_childs_unless_the_lock_was_lost() {
        let supervisor = Supervisor::new(Duration::from_secs(10));
        assert_eq!(supervisor.exit_code(Ended::Exited(3)), 3);
        assert_eq!(supervisor.exit_code(Ended::Signaled(15)), 143);
    }

    #[test]
    fn the_group_of_a_lost_lock_is_waited_for_until_it_is_killed() {
        let mut supervisor = Supervisor::new(Duration::from_secs(10));
        assert!(supervisor.may_bury(|| true), "what a command leaves behind is its own affair");
        supervisor.look(at(8, 10, false));
        assert!(!supervisor.may_bury(|| true));
        assert!(supervisor.may_bury(|| false));
        supervisor.look(at(10, 10, false));
        assert!(supervisor.may_bury(|| true));
    }

    #[test]
    fn who_makes_room_gets_term_at_once_and_kill_in_the_end_and_has_lost_nothing() {
        let mut supervisor = Supervisor::new(Duration::from_secs(10));
        assert_eq!(supervisor.look(at(1, 11, false)), None);
        supervisor.make_room(Duration::from_secs(4));
        assert_eq!(supervisor.look(at(1, 11, false)), Some(Terminate));
        assert_eq!(supervisor.rest(Duration::from_millis(3_900)), Duration::from_millis(100));
        assert_eq!(supervisor.look(at(3, 13, false)), None);
        assert!(!supervisor.may_bury(|| true), "its group is to make room too");
        assert_eq!(supervisor.exit_code(Ended::Signaled(15)), 143);
        assert_eq!(supervisor.look(at(4, 14, false)), Some(Kill));
        assert!(supervisor.told() && !supervisor.lost() && supervisor.may_bury(|| true));
    }

    #[test]
    fn who_makes_room_while_the_lock_is_lost_has_lost_it_and_is_killed_at_its_end() {
        let mut supervisor = Supervisor::new(Duration::from_secs(10));
        supervisor.make_room(Duration::from_secs(30));
        assert_eq!(supervisor.look(at(1, 11, false)), Some(Terminate));
        assert_eq!(supervisor.look(at(10, 11, false)), None);
        assert_eq!(supervisor.look(at(11, 11, false)), Some(Kill), "promise 1");
        assert_eq!(supervisor.exit_code(Ended::Exited(0)), 76);
    }

    #[test]
    fn a_deadline_that_moves_back_means_that_the_lock_is_gone() {
        let told = decisions(&[(1, 11, false), (2, 0, false), (3, 0, true), (4, 0, true)]);
        assert_eq!(told, [None, Some(Terminate), None, Some(Kill)]);
    }

    #[test]
    fn nobody_rests_past_a_decision_or_through_a_sleep() {
        let ms = Duration::from_millis;
        let mut supervisor = Supervisor::new(Duration::from_secs(10));
        supervisor.look(at(0, 10, false));
        assert_eq!(supervisor.rest(ms(0)), LOOK_MAX);
        assert_eq!(supervisor.rest(ms(7900)), ms(100));
        supervisor.look(at(8, 10, false));
        assert_eq!(supervisor.rest(ms(8000)), LOOK_MAX);
        assert_eq!(supervisor.rest(ms(9900)), ms(100));
    }

    #[test]
    fn the_margin_of_a_long_ttl_is_five_seconds() {
        let mut supervisor = Supervisor::new(Duration::from_secs(100));
        assert_eq!(supervisor.look(at(94, 100, false)), None);
        assert_eq!(supervisor.look(at(95, 100, false)), Some(Terminate));
    }
}

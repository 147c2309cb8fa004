//! Notices a peer that has fallen silent: killed, frozen, or cut off.
//!
//! A live peer's QUIC acknowledges what it is sent within some 25 ms, however busy its application is. Where something
//! was sent that wants an acknowledgement, and nothing at all has come back for [`SILENT`], the peer is taken for dead:
//! the connection is closed, its calls end as lost, and their callers go to another replica long before the idle
//! timeout. Whoever merely stalled is dialed again.
//!
//! It costs a look at the connection's counters every [`LOOK`] for each node that this process is connected to, and
//! nothing for an accepted client's.

use std::time::Duration;

use tokio::time::Instant;

/// How long a peer may owe every sign of life. Above the stalls of a busy host, below an election.
const SILENT: Duration = Duration::from_millis(400);
/// How often is looked.
const LOOK: Duration = Duration::from_millis(50);

/// Resolves once the peer is silent.
pub(super) async fn falls_silent(quic: &quinn::Connection) {
    let mut watch = Watch::new(Instant::now());
    loop {
        tokio::time::sleep(LOOK).await;
        let stats = quic.stats();
        // Of all that is sent these two want to be acknowledged, and the others go along with them.
        let asked = stats.frame_tx.stream + stats.frame_tx.ping;
        if watch.look(Instant::now(), asked, stats.udp_rx.datagrams) {
            return;
        }
    }
}

/// What was seen at the last look.
struct Watch {
    at: Instant,
    asked: u64,
    heard: u64,
    /// Since when the peer owes a sign of life.
    owes: Option<Instant>,
}

impl Watch {
    fn new(now: Instant) -> Watch {
        Watch { at: now, asked: 0, heard: 0, owes: None }
    }

    /// Whether the peer is silent, now that so much was asked of it and so much heard.
    fn look(&mut self, now: Instant, asked: u64, heard: u64) -> bool {
        // Who comes late himself has not listened meanwhile.
        let late = now.duration_since(self.at) > 2 * LOOK;
        self.owes = match self.owes {
            _ if heard > self.heard => None,
            Some(_) if late => Some(now),
            None if asked > self.asked => Some(now),
            owes => owes,
        };
        (self.at, self.asked, self.heard) = (now, asked, heard);
        self.owes.is_some_and(|since| now.duration_since(since) >= SILENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many looks the peer is silent, where each says how much was asked and heard since the last.
    fn silent_after(looks: impl IntoIterator<Item = (u64, u64, Duration)>) -> Option<usize> {
        let mut now = Instant::now();
        let mut watch = Watch::new(now);
        let (mut asked, mut heard) = (0, 0);
        looks.into_iter().position(|(asks, hears, later)| {
            (now, asked, heard) = (now + later, asked + asks, heard + hears);
            watch.look(now, asked, heard)
        })
    }

    #[test]
    fn a_peer_that_owes_a_sign_of_life_for_long_is_silent() {
        assert_eq!(silent_after((0..20).map(|n| (u64::from(n == 3), 0, LOOK))), Some(11));
        assert_eq!(silent_after((0..20).map(|_| (1, 0, LOOK))), Some(8), "asking again is no excuse");
    }

    #[test]
    fn who_answers_or_is_asked_nothing_is_not_silent() {
        assert_eq!(silent_after((0..100).map(|_| (0, 0, LOOK))), None);
        assert_eq!(silent_after((0..100).map(|n| (1, u64::from(n % 7 == 0), LOOK))), None);
        assert_eq!(silent_after([(1, 0, LOOK), (0, 1, LOOK)].into_iter().chain((0..50).map(|_| (0, 0, LOOK)))), None);
    }

    #[test]
    fn whoever_stalled_himself_listens_anew() {
        let stall = |n| if n % 6 == 5 { 5 * LOOK } else { LOOK };
        assert_eq!(silent_after((0..100).map(|n| (1, 0, stall(n)))), None);
    }
}

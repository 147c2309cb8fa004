//! Who waits for a lock, next in line first.
//!
//! Places are ordered by priority, then by arrival. The queue is one ordered ring of pointers: the next
//! in line and the last to come cost O(1), a place is found by bisection, and its position in line *is*
//! its index. Leaving from the middle moves at most half of the pointers.

use serde::{Deserialize, Serialize};

use crate::{ids::*, lock::Ask, planted, rare::Rare};

/// Where a waiter stands: higher priorities first, then first come, first served (invariant 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) priority: i32,
    /// From a counter of the shard's, so that no two waiters share a place.
    pub(crate) arrival: u64,
}

impl Ord for Place {
    fn cmp(&self, other: &Place) -> std::cmp::Ordering {
        if planted!("priority-ignored") {
            return self.arrival.cmp(&other.arrival);
        }
        other.priority.cmp(&self.priority).then(self.arrival.cmp(&other.arrival))
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Place) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// A queued request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Waiter {
    pub(crate) place: Place,
    pub(crate) ask: Ask,
    /// Since when, by the shard's clock.
    pub(crate) since: Stamp,
    /// Since when, for people.
    pub(crate) since_wall: WallMs,
    /// When it gives up.
    pub(crate) until: Stamp,
}

/// The waiters of one lock.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Queue(Rare<Box<Waiter>>);

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Next in line first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Waiter> {
        self.0.iter().map(Box::as_ref)
    }

    /// To place what was decoded.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Waiter> {
        self.0.row_mut().into_iter().flatten().map(Box::as_mut)
    }

    /// The next in line.
    pub(crate) fn front(&self) -> Option<&Waiter> {
        self.0.row().and_then(|row| row.front()).map(Box::as_ref)
    }

    /// The index at which `place` stands, or would.
    fn index(&self, place: Place) -> Result<usize, usize> {
        // Mostly the last to come stands last.
        let Some(row) = self.0.row() else { return Err(0) };
        if row.back().is_none_or(|last| last.place < place) {
            return Err(row.len());
        }
        row.binary_search_by(|waiter| waiter.place.cmp(&place))
    }

    /// Lines up and answers the position, from 1.
    pub(crate) fn push(&mut self, waiter: Waiter) -> u32 {
        let index = self.index(waiter.place).expect_err("invariant 4: no two waiters share a place");
        self.0.make().insert(index, Box::new(waiter));
        index as u32 + 1
    }

    /// The waiter at `place` with its position, from 1.
    pub(crate) fn find(&self, place: Place) -> Option<(u32, &Waiter)> {
        let index = self.index(place).ok()?;
        Some((index as u32 + 1, &self.0.row()?[index]))
    }

    /// The waiter at `place`, to change all but its place.
    pub(crate) fn find_mut(&mut self, place: Place) -> Option<(u32, &mut Waiter)> {
        let index = self.index(place).ok()?;
        Some((index as u32 + 1, &mut self.0.row_mut()?[index]))
    }

    pub(crate) fn remove(&mut self, place: Place) -> Option<Box<Waiter>> {
        let index = self.index(place).ok()?;
        self.0.row_mut()?.remove(index)
    }

    /// Turns the requests round while the places stay, to get their order wrong on purpose.
    pub(crate) fn turn_round(&mut self) {
        let asks: Vec<Ask> = self.iter().map(|waiter| waiter.ask.clone()).collect();
        self.iter_mut().zip(asks.into_iter().rev()).for_each(|(waiter, ask)| waiter.ask = ask);
    }

    /// Whether the order is what it must be; asked of bytes from outside.
    pub(crate) fn is_ordered(&self) -> bool {
        self.0.iter().zip(self.0.iter().skip(1)).all(|(a, b)| a.place < b.place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Mode;

    fn waiter(priority: i32, arrival: u64) -> Waiter {
        Waiter {
            place: Place { priority, arrival },
            ask: Ask {
                session: SessionId(1),
                seat: crate::seat::SeatAt::default(),
                request: RequestId::Keyed { key: 1 },
                mode: Mode::Exclusive,
                lease: None,
                lock_delay: crate::lock::Short::new(Millis(0)),
                extra: None,
            },
            since: Stamp(0),
            since_wall: WallMs(0),
            until: Stamp(1),
        }
    }

    #[test]
    fn higher_priorities_stand_first_and_equal_ones_in_order_of_arrival() {
        let mut queue = Queue::default();
        assert_eq!(queue.push(waiter(0, 1)), 1);
        assert_eq!(queue.push(waiter(0, 2)), 2);
        assert_eq!(queue.push(waiter(5, 3)), 1);
        assert_eq!(queue.push(waiter(5, 4)), 2);
        assert_eq!(queue.push(waiter(-1, 5)), 5);
        let arrivals: Vec<u64> = queue.iter().map(|w| w.place.arrival).collect();
        assert_eq!(arrivals, [3, 4, 1, 2, 5]);
        assert_eq!(queue.find(Place { priority: 0, arrival: 2 }).map(|found| found.0), Some(4));
        assert!(queue.remove(Place { priority: 5, arrival: 4 }).is_some());
        assert!(queue.remove(Place { priority: 5, arrival: 4 }).is_none());
        assert_eq!(queue.find(Place { priority: 0, arrival: 2 }).map(|found| found.0), Some(3));
        assert!(queue.is_ordered());
    }
}

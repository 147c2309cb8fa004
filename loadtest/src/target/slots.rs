//! One number for each session: what a peer knows it by.

use std::sync::atomic::{AtomicI64, Ordering};

use super::Failure;

/// Numbers of sessions; 0 where one is not open.
pub(super) struct Slots(Box<[AtomicI64]>);

impl Slots {
    /// Room for `count`, none of them open.
    pub(super) fn new(count: u32) -> Self {
        Self((0..count).map(|_| AtomicI64::new(0)).collect())
    }

    /// Opens one, or closes it with 0. Returns what it was.
    pub(super) fn set(&self, session: u32, number: i64) -> Result<i64, Failure> {
        let slot = self.0.get(session as usize).ok_or_else(|| Failure::new("session out of range"))?;
        Ok(slot.swap(number, Ordering::Relaxed))
    }

    /// The number of one that is open.
    pub(super) fn of(&self, session: u32) -> Result<i64, Failure> {
        let number = self.0.get(session as usize).map(|slot| slot.load(Ordering::Relaxed));
        number.filter(|number| *number != 0).ok_or_else(|| Failure::new("session not open"))
    }
}

/// The addresses in `scheme://HOST:PORT,HOST:PORT`, each with a port.
pub(super) fn addresses(scheme: &str, target: &str) -> anyhow::Result<Vec<String>> {
    let rest = target.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://"));
    let addresses: Vec<_> = rest.unwrap_or_default().trim_end_matches('/').split(',').map(str::to_owned).collect();
    let complete = |address: &String| {
        address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    anyhow::ensure!(
        addresses.iter().all(complete),
        "{target:?} is not {scheme}://HOST:PORT, with a comma between several; `wardlock-loadtest peers status` \
         prints what runs here"
    );
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_open_from_set_to_set() {
        let slots = Slots::new(1);
        assert!(slots.of(0).is_err());
        assert_eq!(slots.set(0, 7), Ok(0));
        assert_eq!(slots.of(0), Ok(7));
        assert_eq!(slots.set(0, 0), Ok(7));
        assert!(slots.of(0).is_err());
        assert!(slots.set(1, 7).is_err() && slots.of(1).is_err(), "out of range");
    }

    #[test]
    fn every_address_needs_a_port() {
        let two = addresses("etcd", "etcd://127.0.0.1:1,localhost:2").expect("complete");
        assert_eq!(two, ["127.0.0.1:1", "localhost:2"]);
        for bad in ["etcd://", "etcd://host", "etcd://a:1,", "redis://a:1", "etcd://a:66666", "etcd://:1"] {
            assert!(addresses("etcd", bad).is_err(), "{bad}");
        }
    }
}

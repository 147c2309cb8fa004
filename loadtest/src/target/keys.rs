//! What Wardlock calls a numbered lock and a grant of it.

use std::io::Write;

use wardlock_machine::{Key, LockId, Name, SessionId, Token};

use super::{Grant, PREFIX};

/// The longest name: the prefix and the digits of a `u64`.
pub(crate) const NAME_BYTES: usize = PREFIX.len() + 20;

/// A lock's name, without an allocation.
pub(crate) fn name_of(name: u64, into: &mut [u8; NAME_BYTES]) -> &str {
    let mut left = into.as_mut_slice();
    // The array has room for any number.
    let _ = write!(left, "{PREFIX}{name}");
    let length = NAME_BYTES - left.len();
    std::str::from_utf8(&into[..length]).unwrap_or(PREFIX)
}

/// The same, as a key.
pub(crate) fn key(name: u64) -> Key {
    let mut text = [0; NAME_BYTES];
    Key::lock(Name::new(name_of(name, &mut text)).expect("short and not empty"))
}

/// The key and the lock id of a grant.
pub(crate) fn held(name: u64, grant: Grant) -> (Key, LockId) {
    let key = key(name);
    let lock_id = LockId::new(SessionId(grant.id), Token(grant.token), &key);
    (key, lock_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_numbers_behind_a_prefix() {
        let mut text = [0; NAME_BYTES];
        assert_eq!(name_of(0, &mut text), "load/0");
        assert_eq!(name_of(u64::MAX, &mut text), "load/18446744073709551615");
        assert_eq!(key(42).name.as_str(), "load/42");
    }

    #[test]
    fn a_grant_leads_back_to_its_lock_id() {
        let (key, lock_id) = held(42, Grant { token: 7, id: 9 });
        assert_eq!(lock_id, LockId::new(SessionId(9), Token(7), &key));
    }
}

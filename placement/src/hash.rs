//! Names and sessions to points of the hash space, and those to groups.
//!
//! The hash is SipHash-1-3 under the cluster's own key. Of a name with a hash tag, `{orders}/42`, only
//! the tag is hashed; the rule is Redis Cluster's: the first `{`, the first `}` after it, and something
//! between them.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use crate::{GroupId, HashKey, ShardMap};

/// The part of a name that is hashed.
fn tag(name: &str) -> &str {
    let Some((_, rest)) = name.split_once('{') else { return name };
    match rest.split_once('}') {
        Some((tag, _)) if !tag.is_empty() => tag,
        _ => name,
    }
}

/// Where a name lies in the hash space.
pub fn hash_name(key: &HashKey, name: &str) -> u64 {
    let mut hasher = SipHasher13::new_with_key(&key.0);
    hasher.write(tag(name).as_bytes());
    hasher.finish()
}

/// Where a session's home lies in the hash space.
pub fn hash_session(key: &HashKey, session: u128) -> u64 {
    let mut hasher = SipHasher13::new_with_key(&key.0);
    hasher.write(&session.to_be_bytes());
    hasher.finish()
}

impl ShardMap {
    /// The group that owns this point of the hash space.
    pub fn owner(&self, hash: u64) -> Option<GroupId> {
        self.groups.iter().find(|(_, group)| group.range.is_some_and(|range| range.contains(hash))).map(|(id, _)| *id)
    }
}

//! Where in the hash space a name or a session falls.
//!
//! SipHash-1-3 with the cluster's key: outsiders who do not know the key cannot choose names that fall
//! on one shard. Of a name only the *hash tag* is hashed, by Redis Cluster's rule, so that `{orders}/1`
//! and `{orders}/2` share a shard. The kind of object does not enter: a lock and the configuration of
//! the same name share one too.
//!
//! The values are part of the durable format: a change would move every lock to another shard.

use siphasher::sip::SipHasher13;

use crate::map::HashKey;

/// The part of a name that is hashed: what stands between the first `{` and the first `}` after it, if
/// that is not empty; otherwise the whole name.
pub fn hash_tag(name: &str) -> &str {
    if let Some((_, after)) = name.split_once('{')
        && let Some((tag, _)) = after.split_once('}')
        && !tag.is_empty()
    {
        return tag;
    }
    name
}

/// The hash of a name, by its [tag](hash_tag).
pub fn hash_name(key: &HashKey, name: &str) -> u64 {
    SipHasher13::new_with_key(&key.0).hash(hash_tag(name).as_bytes())
}

/// The hash of a session id: where its home shard is.
pub fn hash_session(key: &HashKey, session: u128) -> u64 {
    SipHasher13::new_with_key(&key.0).hash(&session.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher;

    use super::*;

    #[test]
    fn the_tag_rule_is_redis_clusters() {
        for (name, tag) in [
            ("orders/42", "orders/42"),
            ("{orders}/42", "orders"),
            ("a/{orders}/42", "orders"),
            ("{}orders", "{}orders"),
            ("foo{}{bar}", "foo{}{bar}"),
            ("foo{{bar}}zap", "{bar"),
            ("foo{bar}{zap}", "bar"),
            ("foo}bar{", "foo}bar{"),
            ("foo}{bar}", "bar"),
            ("{open", "{open"),
            ("", ""),
            ("é{ü}", "ü"),
        ] {
            assert_eq!(hash_tag(name), tag, "of {name:?}");
        }
    }

    #[test]
    fn names_of_one_tag_share_a_hash() {
        let key = HashKey([3; 16]);
        assert_eq!(hash_name(&key, "{orders}/1"), hash_name(&key, "x{orders}/2"));
        assert_eq!(hash_name(&key, "{orders}/1"), hash_name(&key, "orders"));
        assert_ne!(hash_name(&key, "orders/1"), hash_name(&key, "orders/2"));
        assert_ne!(hash_name(&key, "orders"), hash_name(&HashKey([4; 16]), "orders"));
    }

    /// The standard library's default hasher is SipHash-1-3 with a key of zeros, written by others.
    #[test]
    fn it_is_siphash_1_3() {
        for name in ["", "a", "orders/42", "a name of more than a few words"] {
            let mut std = std::hash::DefaultHasher::new();
            std.write(name.as_bytes());
            assert_eq!(hash_name(&HashKey::default(), name), std.finish(), "of {name:?}");
        }
    }

    #[test]
    fn the_hashes_never_change() {
        let key = HashKey(*b"0123456789abcdef");
        assert_eq!(hash_name(&key, "orders/42"), 0xe344_c698_ff43_2483);
        assert_eq!(hash_session(&key, 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10), 0xab23_1706_3cac_5ed1);
    }
}

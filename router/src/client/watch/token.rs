//! Up to where a watch has been told: a revision for each shard, as one opaque text.

use std::{collections::BTreeMap, fmt, str::FromStr};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use wardlock_machine::{Cursor, Incarnation, Revision, ShardId};
use wardlock_placement::{GroupId, limits};

/// The form's version, the first byte.
const VERSION: u8 = 1;
/// The longest text that is looked at: more than any token of as many shards as there can be.
const TEXT_BYTES: usize = 32 * limits::SHARDS + 64;

/// Where a watch can be resumed, by any client or gateway of the cluster. As a text it is a matter between the
/// servers: it says nothing that lasts, and its form may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchToken {
    pub(crate) incarnation: Incarnation,
    pub(crate) positions: BTreeMap<GroupId, Revision>,
}

impl From<&WatchToken> for Cursor {
    fn from(token: &WatchToken) -> Cursor {
        let positions = token.positions.iter().map(|(group, at)| (ShardId(group.0), *at)).collect();
        Cursor { incarnation: token.incarnation, positions }
    }
}

impl From<&Cursor> for WatchToken {
    fn from(cursor: &Cursor) -> WatchToken {
        let positions = cursor.positions.iter().map(|(shard, at)| (GroupId(shard.0), *at)).collect();
        WatchToken { incarnation: cursor.incarnation, positions }
    }
}

/// Why a text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no token of a watch: it is taken from an event, a page or a list, whole")]
pub struct ParseTokenError;

#[derive(Serialize, Deserialize)]
struct Form {
    version: u8,
    incarnation: u16,
    positions: Vec<(u32, u64)>,
}

/// Not against malice, which a token gives no power: against a text that was cut or mistyped.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    let hash = bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    hash.to_le_bytes()
}

impl fmt::Display for WatchToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let positions = self.positions.iter().map(|(group, at)| (group.0, at.0)).collect();
        let form = Form { version: VERSION, incarnation: self.incarnation.0, positions };
        let mut bytes = postcard::to_allocvec(&form).map_err(|_| fmt::Error)?;
        bytes.extend(checksum(&bytes));
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for WatchToken {
    type Err = ParseTokenError;

    fn from_str(text: &str) -> Result<WatchToken, ParseTokenError> {
        if text.len() > TEXT_BYTES {
            return Err(ParseTokenError);
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| ParseTokenError)?;
        let (form, sum) = bytes.split_last_chunk::<4>().ok_or(ParseTokenError)?;
        if checksum(form) != *sum {
            return Err(ParseTokenError);
        }
        let (form, rest) = postcard::take_from_bytes::<Form>(form).map_err(|_| ParseTokenError)?;
        let positions: BTreeMap<GroupId, Revision> =
            form.positions.iter().map(|(group, at)| (GroupId(*group), Revision(*at))).collect();
        if form.version != VERSION || !rest.is_empty() || positions.len() != form.positions.len() {
            return Err(ParseTokenError);
        }
        Ok(WatchToken { incarnation: Incarnation(form.incarnation), positions })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_comes_back_as_it_went(
            incarnation in any::<u16>(),
            positions in proptest::collection::btree_map(any::<u32>(), any::<u64>(), 0..70),
        ) {
            let positions = positions.into_iter().map(|(group, at)| (GroupId(group), Revision(at))).collect();
            let token = WatchToken { incarnation: Incarnation(incarnation), positions };
            let text = token.to_string();
            prop_assert!(text.len() <= TEXT_BYTES);
            prop_assert_eq!(text.parse(), Ok(token));
            for cut in 0..text.len() {
                prop_assert_eq!(text[..cut].parse::<WatchToken>(), Err(ParseTokenError));
            }
        }

        #[test]
        fn any_other_text_is_refused(text in ".{0,80}") {
            prop_assert_eq!(text.parse::<WatchToken>(), Err(ParseTokenError));
        }
    }
}

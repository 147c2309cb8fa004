//! What is kept of a group beside its entries: vote, committed position, purge point.
//!
//! Marks have a table of their own, keyed by group. Votes and purge points are written in the same
//! transaction as the row in which they changed: a vote must survive the row that it came with. Committed
//! positions follow some commits later, for they only shorten a restart.

use serde::{Deserialize, Serialize};
use wardlock_placement::GroupId;
use wardlock_wire::raft::{LogPos, Vote};

use super::row::{Fault, checksum, unseal};

const VERSION: u8 = 1;

/// One group's marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marks {
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogPos>,
    /// Everything up to here is gone; a snapshot covers it.
    pub(super) purged: Option<LogPos>,
}

impl Marks {
    /// `version u8 · postcard · crc32c u32`, the checksum over the group too.
    pub(super) fn encode(&self, group: GroupId) -> Result<Vec<u8>, Fault> {
        let mut value = postcard::to_extend(self, vec![VERSION]).map_err(|e| Fault::Malformed(e.to_string()))?;
        let crc = checksum(u64::from(group.0), &value);
        value.extend_from_slice(&crc.to_le_bytes());
        Ok(value)
    }

    pub(super) fn decode(group: GroupId, value: &[u8]) -> Result<Marks, Fault> {
        let body = unseal(u64::from(group.0), value)?;
        let marks: Marks = match body.split_first() {
            Some((&VERSION, body)) => postcard::from_bytes(body).map_err(|e| Fault::Malformed(e.to_string()))?,
            Some((&version, _)) => return Err(Fault::Version(version)),
            None => return Err(Fault::Short),
        };
        // Behind the last of all numbers there is no next entry.
        if marks.purged.is_some_and(|purged| purged.index == u64::MAX) {
            return Err(Fault::Malformed(format!("purged up to entry {}", u64::MAX)));
        }
        Ok(marks)
    }

    /// The first index that is not purged.
    pub(super) fn floor(&self) -> u64 {
        self.purged.map_or(0, |purged| purged.index + 1)
    }
}

#[cfg(test)]
mod tests {
    use wardlock_placement::ReplicaId;

    use super::*;

    #[test]
    fn marks_belong_to_their_group_and_notice_damage() {
        let vote = Vote { term: 9, replica: ReplicaId(4), committed: true };
        let marks = Marks { vote: Some(vote), committed: None, purged: Some(LogPos { term: 3, index: 17 }) };
        let value = marks.encode(GroupId(5)).unwrap();
        assert_eq!(Marks::decode(GroupId(5), &value), Ok(marks));
        assert_eq!(Marks::decode(GroupId(6), &value), Err(Fault::Checksum));
        assert_eq!(Marks::decode(GroupId(5), &value[1..]), Err(Fault::Checksum));
        assert_eq!(marks.floor(), 18);
    }
}

//! Rows and marks as values, for whoever looks into a file from outside of the log: a test, a tool.

use wardlock_placement::GroupId;

use super::{
    marks::Marks,
    row::{self, Fault, Record, RowBuilder, read_row},
};

/// What a row says about one group. Entries are as they were encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Appended entries.
    Entries {
        /// Whose.
        group: GroupId,
        /// The first one's index.
        first: u64,
        /// In order.
        entries: Vec<Vec<u8>>,
    },
    /// Everything from this index on was dropped.
    Truncate {
        /// Whose.
        group: GroupId,
        /// The index.
        from: u64,
    },
    /// All live entries of the group; what older rows say about it no longer counts.
    Reset {
        /// Whose.
        group: GroupId,
        /// The first one's index.
        first: u64,
        /// In order.
        entries: Vec<Vec<u8>>,
    },
}

/// Reads a row.
pub fn read(row: u64, value: &[u8]) -> Result<Vec<Said>, Fault> {
    let said = |record| match record {
        Record::Entries(group, raw) => {
            Said::Entries { group, first: raw.first, entries: raw.iter().map(<[u8]>::to_vec).collect() }
        }
        Record::Truncate(group, from) => Said::Truncate { group, from },
        Record::Reset(group, raw) => {
            Said::Reset { group, first: raw.first, entries: raw.iter().map(<[u8]>::to_vec).collect() }
        }
    };
    read_row(row, value)?.map(|record| record.map(said)).collect()
}

/// Writes a row as the log does.
pub fn write(row: u64, said: &[Said]) -> Result<Vec<u8>, Fault> {
    let mut builder = RowBuilder::default();
    builder.start();
    for said in said {
        match said {
            Said::Entries { group, first, entries } => {
                builder.encoded(*group, *first, entries)?;
            }
            Said::Truncate { group, from } => builder.truncate(*group, *from),
            Said::Reset { group, first, entries } => {
                builder.reset(*group, *first, entries)?;
            }
        }
    }
    Ok(builder.finish(row).to_vec())
}

/// Puts the checksum behind bytes that stand under this key: a row's number, or a group's.
pub fn seal(key: u64, body: &[u8]) -> Vec<u8> {
    let mut sealed = body.to_vec();
    sealed.extend_from_slice(&row::checksum(key, body).to_le_bytes());
    sealed
}

/// Reads a group's marks and writes them again.
pub fn marks(group: GroupId, value: &[u8]) -> Result<Vec<u8>, Fault> {
    Marks::decode(group, value)?.encode(group)
}

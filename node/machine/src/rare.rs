//! A row that is mostly empty: one pointer while it is, so that what seldom has it stays small.

use std::collections::VecDeque;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// See the module. It is written as the row is.
#[derive(Clone, Debug)]
#[expect(clippy::box_collection, reason = "an empty row is to take eight bytes")]
pub(crate) struct Rare<T>(Option<Box<VecDeque<T>>>);

impl<T> Default for Rare<T> {
    fn default() -> Rare<T> {
        Rare(None)
    }
}

impl<T: PartialEq> PartialEq for Rare<T> {
    fn eq(&self, other: &Rare<T>) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<T> Rare<T> {
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |row| row.len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &T> {
        self.row().map_or_else(Default::default, VecDeque::iter)
    }

    /// The row, if there ever was anything in it.
    pub(crate) fn row(&self) -> Option<&VecDeque<T>> {
        self.0.as_deref()
    }

    /// The same, to change what is in it.
    pub(crate) fn row_mut(&mut self) -> Option<&mut VecDeque<T>> {
        self.0.as_deref_mut()
    }

    /// The row, to add to it.
    pub(crate) fn make(&mut self) -> &mut VecDeque<T> {
        self.0.get_or_insert_default()
    }
}

impl<T: Serialize> Serialize for Rare<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.iter())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Rare<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Rare<T>, D::Error> {
        let row = VecDeque::deserialize(from)?;
        Ok(Rare((!row.is_empty()).then(|| Box::new(row))))
    }
}

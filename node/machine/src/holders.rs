//! Who holds one lock, in the order of their tokens, which is the order of their grants.
//!
//! Most locks have one holder: it lies in the lock itself. Many are a row of pointers, so that one leaves
//! from amid ten thousand by moving pointers, not grants.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{ids::*, lock::Held};

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) enum Holders {
    #[default]
    None,
    One(Held),
    #[expect(clippy::vec_box, reason = "see the module")]
    Many(Vec<Box<Held>>),
}

impl Holders {
    pub(crate) fn len(&self) -> usize {
        match self {
            Holders::None => 0,
            Holders::One(_) => 1,
            Holders::Many(all) => all.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Holders::None)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Held> {
        let (one, many) = match self {
            Holders::None => (None, [].as_slice()),
            Holders::One(held) => (Some(held), [].as_slice()),
            Holders::Many(all) => (None, all.as_slice()),
        };
        one.into_iter().chain(many.iter().map(Box::as_ref))
    }

    /// To place what was decoded.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Held> {
        let (one, many) = match self {
            Holders::None => (None, [].as_mut_slice()),
            Holders::One(held) => (Some(held), [].as_mut_slice()),
            Holders::Many(all) => (None, all.as_mut_slice()),
        };
        one.into_iter().chain(many.iter_mut().map(Box::as_mut))
    }

    pub(crate) fn first(&self) -> Option<&Held> {
        match self {
            Holders::None => None,
            Holders::One(held) => Some(held),
            Holders::Many(all) => all.first().map(Box::as_ref),
        }
    }

    pub(crate) fn last(&self) -> Option<&Held> {
        match self {
            Holders::None => None,
            Holders::One(held) => Some(held),
            Holders::Many(all) => all.last().map(Box::as_ref),
        }
    }

    pub(crate) fn find(&self, token: Token) -> Option<&Held> {
        match self {
            Holders::None => None,
            Holders::One(held) => Some(held).filter(|held| held.token == token),
            Holders::Many(all) => index(all, token).map(|index| all[index].as_ref()),
        }
    }

    pub(crate) fn find_mut(&mut self, token: Token) -> Option<&mut Held> {
        match self {
            Holders::None => None,
            Holders::One(held) => Some(held).filter(|held| held.token == token),
            Holders::Many(all) => index(all, token).map(|index| all[index].as_mut()),
        }
    }

    /// Adds the youngest.
    pub(crate) fn push(&mut self, held: Held) {
        *self = match std::mem::take(self) {
            Holders::None => Holders::One(held),
            Holders::One(first) => Holders::Many(vec![Box::new(first), Box::new(held)]),
            Holders::Many(mut all) => {
                all.push(Box::new(held));
                Holders::Many(all)
            }
        }
    }

    pub(crate) fn remove(&mut self, token: Token) -> Option<Held> {
        match self {
            Holders::None => None,
            Holders::One(held) if held.token != token => None,
            Holders::One(_) => match std::mem::take(self) {
                Holders::One(held) => Some(held),
                _ => None,
            },
            Holders::Many(all) => {
                let held = index(all, token).map(|index| *all.remove(index));
                if all.is_empty() {
                    *self = Holders::None;
                }
                held
            }
        }
    }
}

fn index(all: &[Box<Held>], token: Token) -> Option<usize> {
    all.binary_search_by_key(&token, |held| held.token).ok()
}

impl Serialize for Holders {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.iter().collect::<Vec<_>>())
    }
}

impl<'de> Deserialize<'de> for Holders {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Holders, D::Error> {
        let mut all = Vec::<Box<Held>>::deserialize(from)?;
        Ok(match all.len() {
            0 => Holders::None,
            1 => Holders::One(*all.remove(0)),
            _ => Holders::Many(all),
        })
    }
}

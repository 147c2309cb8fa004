//! A text that is told to nobody.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The secret by which the deliveries of a webhook are signed. Neither its `Debug` form nor any answer of the machine
/// shows it; it has no `Display`. Log entries and snapshots hold it as it is: they lie in a directory that only the
/// node's own user may read.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes the text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text, for whoever signs by it or tells it to the one who gave it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a secret")
    }
}

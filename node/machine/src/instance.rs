//! An instance of a service: what it says of itself, and how it fares.

use serde::{Deserialize, Serialize};

use crate::{command::Metadata, fields};

/// How an instance fares, as it says itself or whoever watches over it. Nothing here probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Health {
    /// All is well.
    #[default]
    Passing,
    /// It works, and somebody should look.
    Warning,
    /// It is not to be used.
    Critical,
}

impl Health {
    /// Every one of them.
    pub const ALL: [Health; 3] = [Health::Passing, Health::Warning, Health::Critical];

    /// Whether the instance may be used.
    pub fn is_healthy(self) -> bool {
        self != Health::Critical
    }

    /// Its name, in answers and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Health::Passing => "passing",
            Health::Warning => "warning",
            Health::Critical => "critical",
        }
    }
}

/// What an instance says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceSpec {
    /// Where it is: a host name or an IP address, at most [`limits::ADDRESS_BYTES`](crate::limits::ADDRESS_BYTES).
    pub address: String,
    /// On which port; not 0.
    pub port: u16,
    /// What it can be chosen by: rising, each once, at most [`limits::TAGS`](crate::limits::TAGS).
    pub tags: Vec<String>,
    /// How large its share of what is sampled is, beside the others'. 0: only where nothing else is left.
    pub weight: u16,
    /// Shown to whoever looks.
    pub metadata: Metadata,
}

impl InstanceSpec {
    /// Whether a text can be an instance's address: an IP address, or a host name (letters, digits, hyphens and
    /// underscores, between dots).
    pub fn is_address(text: &str) -> bool {
        fields::address(text)
    }
}

/// How many instances fare how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByHealth {
    /// [`Health::Passing`].
    pub passing: u64,
    /// [`Health::Warning`].
    pub warning: u64,
    /// [`Health::Critical`].
    pub critical: u64,
}

impl ByHealth {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.passing + self.warning + self.critical
    }

    /// Those that may be used.
    pub fn healthy(&self) -> u64 {
        self.passing + self.warning
    }

    /// Those that fare so.
    pub fn of(&self, health: Health) -> u64 {
        match health {
            Health::Passing => self.passing,
            Health::Warning => self.warning,
            Health::Critical => self.critical,
        }
    }

    pub(crate) fn of_mut(&mut self, health: Health) -> &mut u64 {
        match health {
            Health::Passing => &mut self.passing,
            Health::Warning => &mut self.warning,
            Health::Critical => &mut self.critical,
        }
    }
}

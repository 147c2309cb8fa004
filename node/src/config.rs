//! What a node is told before it starts.
//!
//! A setting comes from its default, then the file, then the environment, then the flag: the later
//! wins. One struct, [`Fields`], is the file's schema, the flags and the environment's names at once,
//! so that the three cannot drift apart; [`Fields::check`] turns it into [`Settings`], where every
//! value is of a valid type and every relation between two of them holds.
//!
//! # Promises
//! 1. A field that does not exist, in the file or in the environment, is refused with its name.
//! 2. A value that is wrong is refused with its field's name, before anything is opened or created.
//! 3. No listener goes beyond loopback without mutual TLS: the node link always has it, and the HTTP
//!    gateway has it whenever its address is not a loopback one. DNS, which cannot have it, goes beyond only where
//!    that is said in a field of its own.

mod check;
mod fields;
mod peers;
mod settings;

pub use fields::Fields;
pub use peers::Peers;
pub use settings::{Disk, Settings, Timing};

use std::path::Path;

use figment::{
    Figment,
    providers::{Format, Serialized, Toml},
};

/// Why a node's configuration cannot be used. Nothing was opened or created.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read as text.
    #[error("cannot read {path}: {why}")]
    File {
        /// Which.
        path: String,
        /// What the system says.
        why: std::io::Error,
    },
    /// The file holds something that is no field, or a value of the wrong type. The message names it.
    #[error("{0}")]
    Shape(Box<figment::Error>),
    /// A value that cannot be, by itself or beside another.
    #[error("{field}: {why}")]
    Field {
        /// The field's name, as in the file.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The environment names a setting that there is not.
    #[error("{0}: there is no such setting (see `wardlock node --help`)")]
    Environment(String),
}

/// Lays the flags (which already carry the environment) over the file over the defaults.
///
/// # Errors
/// [`Error::File`] or [`Error::Shape`].
pub fn layer(file: Option<&Path>, flags: &Fields) -> Result<Fields, Error> {
    // Read here: a missing file would otherwise be an empty layer.
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|why| Error::File { path: path.display().to_string(), why })
    };
    layer_text(file.map(read).transpose()?.as_deref(), flags)
}

/// The same, of a file's text.
///
/// # Errors
/// [`Error::Shape`].
pub fn layer_text(text: Option<&str>, flags: &Fields) -> Result<Fields, Error> {
    let mut layers = Figment::from(Serialized::defaults(Fields::defaults()));
    if let Some(text) = text {
        layers = layers.merge(Toml::string(text));
    }
    // A list of peers replaces another; figment would make one of both.
    let mut flags = flags.clone();
    let peers = flags.peers.take();
    let layered = layers.merge(Serialized::defaults(flags)).extract();
    let mut fields: Fields = layered.map_err(|e| Error::Shape(Box::new(e)))?;
    fields.peers = peers.or(fields.peers);
    Ok(fields)
}

/// Refuses a `WARDLOCK_…` variable that is no setting, so that a misspelt one does not pass for set.
/// What `wardlock lock run` and Kubernetes put into the environment of every child is let through.
///
/// # Errors
/// [`Error::Environment`], with the variable's name.
pub fn check_environment<'a>(
    names: impl IntoIterator<Item = &'a str>,
    known: &std::collections::BTreeSet<String>,
) -> Result<(), Error> {
    const OTHERS: [&str; 8] = [
        "WARDLOCK_SERVER",
        "WARDLOCK_CERTS",
        "WARDLOCK_OUTPUT",
        "WARDLOCK_LOG",
        "WARDLOCK_NAME",
        "WARDLOCK_TOKEN",
        "WARDLOCK_SESSION",
        "WARDLOCK_EXPIRES_AT",
    ];
    for name in names {
        // A Kubernetes service called `wardlock` announces itself as WARDLOCK_SERVICE_HOST,
        // WARDLOCK_PORT, WARDLOCK_PORT_7401_UDP_ADDR and so on.
        let service_link = name.ends_with("_PORT") || name.contains("_PORT_") || name.contains("_SERVICE_");
        // Only a build that can make mistakes on purpose is asked for one.
        let mistake = cfg!(wardlock_planted) && name == "WARDLOCK_PLANT";
        let other = service_link || mistake || OTHERS.contains(&name);
        if name.starts_with("WARDLOCK_") && !other && !known.contains(name) {
            return Err(Error::Environment(name.to_owned()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_misspelt_variable_is_refused_and_a_service_link_is_not() {
        let known: BTreeSet<String> = ["WARDLOCK_SHARDS".to_owned()].into();
        let ok = ["WARDLOCK_SHARDS", "WARDLOCK_TOKEN", "WARDLOCK_PORT_7401_UDP_ADDR", "WARDLOCK_SERVICE_HOST", "HOME"];
        assert!(check_environment(ok, &known).is_ok());
        let error = check_environment(["WARDLOCK_SHARD"], &known).unwrap_err();
        assert!(error.to_string().starts_with("WARDLOCK_SHARD:"), "{error}");
        assert_eq!(check_environment(["WARDLOCK_PLANT"], &known).is_ok(), cfg!(wardlock_planted));
    }
}

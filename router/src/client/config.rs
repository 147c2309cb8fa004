//! Configuration: values by path, with their versions.

use std::{borrow::Cow, time::Duration};

use wardlock_machine::*;

use super::{Client, unexpected_answer};
use crate::{Error, random};

/// How long a call may take, where its caller does not say.
const PATIENCE: Duration = Duration::from_secs(5);

/// A path of the configuration, to be read or changed.
#[derive(Clone, Debug)]
#[must_use = "a path does nothing until it is read or changed"]
pub struct Config<'a> {
    client: &'a Client,
    path: Cow<'a, str>,
    expected: Option<Version>,
    patience: Duration,
}

/// Why a path has not been changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Nothing happened: somebody else changed it. Read it again.
    #[error("the path is at version {current}, not at the expected one")]
    VersionMismatch {
        /// Its version now; 0 where it has no value.
        current: Version,
    },
    /// Nothing happened: the path has no value.
    #[error("the path has no value")]
    Missing,
    /// Nothing happened: the version is not kept any more, was never made, or is a deletion.
    #[error("version {0} is not kept any more, was never made, or is a deletion")]
    NoSuchVersion(Version),
    /// Nothing happened: a value of this length, or its content type, is too long.
    #[error(
        "a value may have at most {max} bytes, its content type {label}",
        max = limits::CONFIG_VALUE_BYTES,
        label = limits::LABEL_BYTES
    )]
    TooLarge,
    /// Nothing happened: the path's shard has as much configuration as it may. Delete some.
    #[error("the path's shard has as much configuration as it may")]
    Full,
    /// The call itself failed; the error says whether anything may have happened.
    #[error(transparent)]
    Call(#[from] Error),
}

impl Client {
    /// The configuration at `path`.
    pub fn config<'a>(&'a self, path: impl Into<Cow<'a, str>>) -> Config<'a> {
        Config { client: self, path: path.into(), expected: None, patience: PATIENCE }
    }
}

impl Config<'_> {
    /// Changes only from this version, as [`ConfigView::version`] has it; 0 where the path must have no value.
    pub fn expecting(self, version: Version) -> Self {
        Config { expected: Some(version), ..self }
    }

    /// How long a call may take; 5 seconds where this is not said.
    pub fn patience(self, patience: Duration) -> Self {
        Config { patience, ..self }
    }

    /// What it is now; `None` where it has no value.
    pub async fn get(&self) -> Result<Option<ConfigView>, Error> {
        self.read(None).await
    }

    /// What it was at a version; `None` where that is not kept.
    pub async fn at(&self, version: Version) -> Result<Option<ConfigView>, Error> {
        self.read(Some(version)).await
    }

    /// The versions that are kept, newest first and without their values.
    pub async fn versions(&self) -> Result<Vec<ConfigView>, Error> {
        match self.client.read(Query::Versions { key: self.key()? }, self.patience).await? {
            Answer::Versions(versions) => Ok(versions),
            other => Err(unexpected_answer(other)),
        }
    }

    /// Gives it a value.
    pub async fn put(&self, content_type: impl Into<String>, value: &[u8]) -> Result<Configured, ConfigError> {
        let content_type = content_type.into();
        if value.len() > limits::CONFIG_VALUE_BYTES || content_type.len() > limits::LABEL_BYTES {
            return Err(ConfigError::TooLarge);
        }
        self.change(Change::Put(Content { content_type, value: Blob::new(value) })).await
    }

    /// Takes its value away. Its earlier versions stay for a while.
    pub async fn delete(&self) -> Result<Configured, ConfigError> {
        self.change(Change::Delete).await
    }

    /// Gives it the value again that it had at a version. That makes a new version.
    pub async fn rollback(&self, to: Version) -> Result<Configured, ConfigError> {
        self.change(Change::Rollback { to }).await
    }

    async fn read(&self, version: Option<Version>) -> Result<Option<ConfigView>, Error> {
        match self.client.read(Query::Config { key: self.key()?, version }, self.patience).await? {
            Answer::Config(view) => Ok(view),
            other => Err(unexpected_answer(other)),
        }
    }

    async fn change(&self, change: Change) -> Result<Configured, ConfigError> {
        let to = if let Change::Rollback { to } = change { Some(to) } else { None };
        let ask = Configure { request: random::any(), key: self.key()?, change, expected: self.expected };
        match self.client.write(Command::Configure(ask), self.patience).await? {
            Outcome::Configured(done) => Ok(done),
            Outcome::VersionMismatch { current } => Err(ConfigError::VersionMismatch { current }),
            Outcome::NoConfig => Err(to.map_or(ConfigError::Missing, ConfigError::NoSuchVersion)),
            Outcome::Limit(Limit::Field) => Err(ConfigError::TooLarge),
            Outcome::Limit(_) => Err(ConfigError::Full),
            other => Err(Error::Malformed(format!("a change of the configuration came to {other:?}")).into()),
        }
    }

    fn key(&self) -> Result<Key, Error> {
        Name::new(&self.path).map(Key::config).map_err(|error| Error::Malformed(error.to_string()))
    }
}

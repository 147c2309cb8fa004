//! Those who read and change the configuration: often the same few paths, often from the version that they have read.

use std::time::Duration;

use rand::RngExt;
use wardlock_machine::Version;
use wardlock_router::{Client, Config, ConfigError, Error};

use super::Life;
use crate::{
    event::{Event, Op},
    world::World,
};

/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How many paths all clients share.
pub const PATHS: u32 = 3;

/// The path with this number.
pub fn path(number: u32) -> String {
    format!("c/{number}")
}

/// Reads a path; its version, 0 where it has no value.
pub async fn read(client: &Client, world: &World, path: &str, patience: Duration) -> Option<u64> {
    let op = world.op();
    world.tell(Event::PathReadBegan { op, path: path.to_owned() });
    match client.config(path).patience(patience).get().await {
        Ok(found) => {
            let version = found.as_ref().map_or(0, |found| found.version.0);
            let value = found.and_then(|found| found.value).map(|value| String::from_utf8_lossy(&value).into_owned());
            world.tell(Event::PathRead { op, path: path.to_owned(), version, value });
            Some(version)
        }
        Err(error) => {
            world.tell(Event::PathReadFailed { op, path: path.to_owned(), why: error.to_string() });
            None
        }
    }
}

/// Reads a path, and mostly changes it then.
pub(super) async fn change(life: &mut Life, client: &Client) {
    let path = path(life.random.random_range(0..PATHS));
    let Some(version) = read(client, &life.world, &path, PATIENCE).await else { return };
    let config = client.config(path.as_str()).patience(PATIENCE);
    match life.random.random_range(0..10) {
        0..2 => {}
        2..6 => put(life, config.expecting(Version(version)), &path, Some(version)).await,
        6..9 => put(life, config, &path, None).await,
        _ => {
            let op = asked(life, &path, None, true);
            tell(life, op, &path, None, config.delete().await);
        }
    }
}

async fn put(life: &Life, config: Config<'_>, path: &str, expected: Option<u64>) {
    let op = asked(life, path, expected, false);
    // No two changes put the same value.
    let value = op.to_string();
    tell(life, op, path, Some(value.clone()), config.put("text/plain", value.as_bytes()).await);
}

fn asked(life: &Life, path: &str, expected: Option<u64>, deletes: bool) -> Op {
    let op = life.world.op();
    life.world.tell(Event::PathAsked { client: life.number, op, path: path.to_owned(), expected, deletes });
    op
}

fn tell(
    life: &Life,
    op: Op,
    path: &str,
    value: Option<String>,
    outcome: Result<wardlock_machine::Configured, ConfigError>,
) {
    let path = path.to_owned();
    life.world.tell(match outcome {
        Ok(done) => Event::PathChanged { op, path, version: done.version.0, value },
        Err(ConfigError::VersionMismatch { current }) => Event::PathMismatch { op, path, current: current.0 },
        Err(error) => {
            let known = !matches!(error, ConfigError::Call(Error::OutcomeUnknown));
            Event::PathRefused { op, path, why: error.to_string(), known }
        }
    });
}

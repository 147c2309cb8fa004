//! Those who read the configuration from any replica, all the time and through every fault: some take any age, some
//! none above a bound.

use std::time::Duration;

use rand::{RngExt, seq::IndexedRandom};
use tokio::time::sleep;
use wardlock_machine::{Answer, Key, Name, Query};

use super::{Life, Phase, millis, observers::connect, paths};
use crate::event::Event;

/// How long one call may take: some give up before a proof can come.
const PATIENCE: [u64; 3] = [100, 700, 2_000];
/// Bounds, in milliseconds; none takes any age.
const BOUNDS: [Option<u64>; 5] = [None, None, Some(0), Some(100), Some(800)];

/// Reads to the end of the run.
pub async fn read(mut life: Life) {
    let (client, _own) = connect(&mut life);
    while *life.phase.borrow() != Phase::Silent {
        let path = paths::path(life.random.random_range(0..paths::PATHS));
        let patience = Duration::from_millis(*PATIENCE.choose(&mut life.random).expect("there are some"));
        let max_age = *BOUNDS.choose(&mut life.random).expect("there are some");
        let key = Key::config(Name::new(&path).expect("paths are valid"));
        let op = life.world.op();
        life.world.tell(Event::StaleBegan { op, path: path.clone(), max_age });
        let query = Query::Config { key, version: None };
        let read = client.read_stale(query, max_age.map(Duration::from_millis), patience).await;
        life.world.tell(match read {
            Ok((Answer::Config(found), age)) => {
                let found = found.filter(|found| !found.deleted);
                let version = found.as_ref().map_or(0, |found| found.version.0);
                let value = found.and_then(|found| found.value);
                let value = value.map(|value| String::from_utf8_lossy(&value).into_owned());
                Event::StaleRead { op, path, version, value, age: age.map(|age| age.as_millis() as u64) }
            }
            other => Event::StaleFailed { op, path, why: format!("{other:?}") },
        });
        sleep(millis(&mut life.random, 60)).await;
    }
}

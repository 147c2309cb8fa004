//! Those who watch: locks, the configuration and services, over all shards, through every fault. Now and then they look away for
//! a while, or come back elsewhere with their token.

use std::{sync::Arc, time::Duration};

use rand::RngExt;
use tokio::time::{sleep, timeout};
use wardlock_machine::{Kind, What};
use wardlock_router::{Watch, WatchError, WatchToken, Watched};

use super::{Life, millis, observers::connect};
use crate::event::{Event, Told};

/// Watches to the end of the run.
pub async fn watch(mut life: Life) {
    let mut token = None;
    loop {
        // Each time over a connection of its own, as whoever comes back elsewhere.
        let (client, _own) = connect(&mut life);
        let mut watch = loop {
            let builder =
                client.watch().prefix(Kind::Config, "c/").prefix(Kind::Lock, "n/").prefix(Kind::Service, "s/");
            let builder = match &token {
                Some(token) => builder.since(WatchToken::clone(token)),
                None => builder,
            };
            match builder.open().await {
                Ok(watch) => break watch,
                Err(WatchError::Cluster(_)) => sleep(Duration::from_millis(200)).await,
                Err(error) => {
                    return life.world.tell(Event::WatchBroken { watcher: life.number, why: error.to_string() });
                }
            }
        };
        if token.is_none() {
            life.world.tell(Event::WatchOpened { watcher: life.number });
        }
        // Another watch of the same client is ahead of it, as in a gateway that many watch through.
        let ahead = async {
            if let Ok(mut other) = client.watch().prefix(Kind::Config, "").prefix(Kind::Lock, "n/").open().await {
                while other.next().await.is_ok() {}
            }
            std::future::pending().await
        };
        let looked = tokio::select! {
            biased;
            looked = look(&mut life, &mut watch) => looked,
            () = ahead => continue,
        };
        token = Some(match looked {
            Ok(token) => token,
            Err(error) => return life.world.tell(Event::WatchBroken { watcher: life.number, why: error.to_string() }),
        });
        life.connection += 1_000;
    }
}

/// Looks for a while, and looks away in between.
async fn look(life: &mut Life, watch: &mut Watch) -> Result<WatchToken, WatchError> {
    for _ in 0..life.random.random_range(1..6) {
        sleep(millis(&mut life.random, 3_000)).await;
        let length = millis(&mut life.random, 6_000);
        let looking = async {
            loop {
                match watch.next().await {
                    Ok(watched) => life.world.tell(told(life.number, &watched)),
                    Err(error) => break error,
                }
            }
        };
        if let Ok(error) = timeout(length, looking).await {
            return Err(error);
        }
    }
    Ok(watch.token())
}

fn told(watcher: u32, watched: &Watched) -> Event {
    let event = &watched.event;
    let told = match &event.what {
        What::Granted { lock_id, mode, .. } => Told::Granted { token: lock_id.token, mode: *mode },
        What::Ended { lock_id, .. } => Told::Ended { token: lock_id.token },
        What::Configured { version, deleted, value, .. } => {
            let value = value.as_ref().map(|value| String::from_utf8_lossy(value).into_owned());
            Told::Version { version: version.0, deleted: *deleted, value }
        }
        What::Registered { instance, session, .. } => {
            Told::Registered { instance: instance.to_string(), session: *session }
        }
        What::Deregistered { instance, reason } => {
            Told::Deregistered { instance: instance.to_string(), reason: *reason }
        }
        What::Health { instance, health } => Told::Health { instance: instance.to_string(), health: *health },
    };
    let (shard, revision, name) = (watched.shard.0, event.revision.0, Arc::from(event.key.name.as_str()));
    Event::Told { watcher, shard, revision, name, told }
}

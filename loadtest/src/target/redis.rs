//! Redis, as people use it for locks: one server, one key a lock.
//!
//! | here | there |
//! |---|---|
//! | session | a key of its own with a time to live; a keep-alive extends it and, in one script, the locks held by it |
//! | lock | the key `load/<number>`, with a time to live: the lock's own lease, or what its session was opened with |
//! | acquire | a script: where the key is free, count a token up and set the key to it and a random number |
//! | acquire, wait | the same again, every 10 to 20 ms: what waits is not known to the server, nor in any order |
//! | renew, release | a script that compares the value before it extends or deletes |
//! | read | `GET` |
//!
//! All calls share a few connections and are pipelined on each.
//!
//! # Promises
//! 1. There is no shared mode: a shared acquire fails rather than being exclusive.
//! 2. What a session's keep-alive extends is only what was acquired without a lease of its own.
//!
//! What Redis does not promise, with whatever settings of this module: a lock outlives neither its server's disk
//! nor, where replicas take over, a failover.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context;
use redis::{
    AsyncCommands, Client, FromRedisValue, RedisError, Script, ScriptInvocation,
    aio::{ConnectionManager, ConnectionManagerConfig},
};

use super::{
    About, Acquired, Failure, Grant, How, PATIENCE, PREFIX, Place,
    slots::{Slots, addresses},
};
use crate::proc;

/// Unless told: more gain nothing, Redis has one thread.
const CONNECTIONS: u32 = 2;
/// Calls handed to a connection and not yet written.
const DEPTH: usize = 4096;
/// Between two attempts; up to twice as much, by chance.
const POLL: Duration = Duration::from_millis(10);

const TAKE: &str = "\
if redis.call('exists', KEYS[1]) == 1 then return 0 end
local token = redis.call('incr', KEYS[2])
redis.call('set', KEYS[1], token .. ' ' .. ARGV[1], 'px', ARGV[2])
return token";
/// Compares with the random number alone where the token is not known: after an acquire without an answer.
const GIVE_BACK: &str = "\
local value = redis.call('get', KEYS[1])
if value and string.match(value, ' (.*)') == ARGV[1] then return redis.call('del', KEYS[1]) end
return 0";
const EXTEND: &str = "\
local value = redis.call('get', KEYS[1])
if value and string.match(value, ' (.*)') == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) end
return 0";
/// A session and what it holds: keys and their random numbers, after the session's key and the time to live.
const KEEP: &str = "\
if redis.call('pexpire', KEYS[1], ARGV[1]) == 0 then return 0 end
for i = 2, #KEYS do
  local value = redis.call('get', KEYS[i])
  if value and string.match(value, ' (.*)') == ARGV[i] then redis.call('pexpire', KEYS[i], ARGV[1]) end
end
return 1";

/// Counts tokens, of all locks together.
const TOKENS: &str = "load-tokens";

/// See the [module](self).
pub(crate) struct Redis {
    connections: Vec<ConnectionManager>,
    addresses: Vec<String>,
    /// Times to live, in milliseconds.
    sessions: Slots,
    /// What each session holds without a lease of its own: names, and the random numbers of their grants.
    held: Box<[Mutex<HashMap<u64, u64>>]>,
    take: Script,
    give_back: Script,
    extend: Script,
    keep: Script,
}

impl Redis {
    /// Connects.
    pub(crate) async fn connect(place: &Place, sessions: u32) -> anyhow::Result<Self> {
        let addresses = addresses("redis", &place.target)?;
        anyhow::ensure!(addresses.len() == 1, "one Redis is loaded, not {}", addresses.len());
        let client = Client::open(format!("redis://{}", addresses[0]))?;
        let configuration = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE))
            .set_pipeline_buffer_size(DEPTH);
        let mut connections = Vec::new();
        for _ in 0..place.connections.unwrap_or(CONNECTIONS) {
            let connection = ConnectionManager::new_with_config(client.clone(), configuration.clone()).await;
            connections.push(connection.with_context(|| format!("no Redis answers at {}", addresses[0]))?);
        }
        Ok(Self {
            connections,
            addresses,
            sessions: Slots::new(sessions),
            held: (0..sessions).map(|_| Mutex::default()).collect(),
            take: Script::new(TAKE),
            give_back: Script::new(GIVE_BACK),
            extend: Script::new(EXTEND),
            keep: Script::new(KEEP),
        })
    }

    pub(crate) async fn open(&self, session: u32, ttl: Duration) -> Result<(), Failure> {
        let ttl_ms = millis(ttl);
        let set: Result<(), _> = self.of(session.into()).pset_ex(session_key(session), 1, ttl_ms).await;
        set.map_err(failure)?;
        self.held(session)?.clear();
        self.sessions.set(session, i64::try_from(ttl_ms).unwrap_or(i64::MAX)).map(drop)
    }

    pub(crate) async fn close(&self, session: u32) -> Result<(), Failure> {
        self.sessions.set(session, 0)?;
        let held: Vec<_> = self.held(session)?.drain().collect();
        for (name, random) in held {
            let _: i64 = self.invoke(session, self.give_back.key(key(name)).arg(random)).await?;
        }
        self.of(session.into()).del(session_key(session)).await.map_err(failure)
    }

    pub(crate) async fn keep_alive(&self, session: u32) -> Result<bool, Failure> {
        let ttl_ms = self.sessions.of(session)?;
        let mut call = self.keep.prepare_invoke();
        call.key(session_key(session)).arg(ttl_ms);
        for (name, random) in self.held(session)?.iter() {
            call.key(key(*name)).arg(*random);
        }
        self.invoke(session, &call).await
    }

    pub(crate) async fn acquire(&self, session: u32, name: u64, how: How) -> Result<Acquired, Failure> {
        if how.shared {
            return Err(Failure::new("no shared mode"));
        }
        let ttl_ms = match how.lease {
            Some(lease) => millis(lease),
            None => u64::try_from(self.sessions.of(session)?).unwrap_or(1),
        };
        let random: u64 = rand::random();
        let mut call = self.take.prepare_invoke();
        call.key(key(name)).key(TOKENS).arg(random).arg(ttl_ms);
        let deadline = Instant::now() + how.wait;
        let mut queued = false;
        loop {
            match self.invoke::<u64>(session, &call).await {
                Ok(0) if how.wait.is_zero() => return Ok(Acquired::Held),
                Ok(0) => {}
                Ok(token) => {
                    if how.lease.is_none() {
                        self.held(session)?.insert(name, random);
                    }
                    return Ok(Acquired::Granted { grant: Grant { token, id: random.into() }, queued });
                }
                Err(failure) => {
                    self.withdraw(session, name, random);
                    return Err(failure);
                }
            }
            queued = true;
            let pause = POLL.mul_f64(1.0 + rand::random::<f64>());
            if Instant::now() + pause > deadline {
                return Ok(Acquired::TimedOut);
            }
            tokio::time::sleep(pause).await;
        }
    }

    pub(crate) async fn renew(&self, session: u32, name: u64, grant: Grant, lease: Duration) -> Result<bool, Failure> {
        let mut call = self.extend.prepare_invoke();
        call.key(key(name)).arg(grant.id as u64).arg(millis(lease));
        self.invoke(session, &call).await
    }

    pub(crate) async fn release(&self, session: u32, name: u64, grant: Grant) -> Result<bool, Failure> {
        self.held(session)?.remove(&name);
        self.invoke(session, self.give_back.key(key(name)).arg(grant.id as u64)).await
    }

    pub(crate) async fn read(&self, name: u64) -> Result<Option<u64>, Failure> {
        let value: Option<String> = self.of(name).get(key(name)).await.map_err(failure)?;
        let token = |value: String| value.split_once(' ')?.0.parse().ok();
        match value {
            None => Ok(None),
            Some(value) => token(value).map(Some).ok_or_else(|| Failure::new("a value that is none of ours")),
        }
    }

    pub(crate) fn shard_of(&self, _: u64) -> Option<(u32, Option<u32>)> {
        None
    }

    pub(crate) fn server_pids(&self) -> Vec<u32> {
        proc::listeners(proc::Transport::Tcp, self.addresses.iter().map(String::as_str))
    }

    pub(crate) fn about(&self) -> About {
        About {
            system: "redis".to_owned(),
            protocol: "resp".to_owned(),
            nodes: 1,
            shards: 1,
            connections: u32::try_from(self.connections.len()).unwrap_or(u32::MAX),
            consistency: "linearizable".to_owned(),
        }
    }

    async fn invoke<T: FromRedisValue>(&self, session: u32, call: &ScriptInvocation<'_>) -> Result<T, Failure> {
        call.invoke_async(&mut self.of(session.into())).await.map_err(failure)
    }

    /// Gives back, in the background, what an acquire without an answer may have been granted.
    fn withdraw(&self, session: u32, name: u64, random: u64) {
        let (mut connection, give_back) = (self.of(session.into()), self.give_back.clone());
        tokio::spawn(async move {
            // Where this fails too the key's time ends it.
            let _: Result<i64, _> = give_back.key(key(name)).arg(random).invoke_async(&mut connection).await;
        });
    }

    fn of(&self, number: u64) -> ConnectionManager {
        self.connections[(number % self.connections.len() as u64) as usize].clone()
    }

    fn held(&self, session: u32) -> Result<MutexGuard<'_, HashMap<u64, u64>>, Failure> {
        let held = self.held.get(session as usize).ok_or_else(|| Failure::new("session out of range"))?;
        Ok(held.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn key(name: u64) -> String {
    format!("{PREFIX}{name}")
}

fn session_key(session: u32) -> String {
    format!("load-session/{session}")
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}

fn failure(error: RedisError) -> Failure {
    if error.is_timeout() {
        Failure::new("timeout")
    } else if error.is_io_error() || error.is_connection_dropped() {
        Failure::new("connection lost")
    } else {
        Failure::new(error.category())
    }
}

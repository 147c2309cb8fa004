//! ZooKeeper, by its own recipe for locks.
//!
//! | here | there |
//! |---|---|
//! | session | a share in the session of one of a few connections |
//! | keep-alive | a question on that connection, which is what keeps a session alive there |
//! | acquire, no wait | creation of the ephemeral node `/load/<number>` |
//! | acquire, wait | an ephemeral, sequential node under `/load-queue/<number>/`; then a watch of the one before it |
//! | token | the transaction that created the node; in a queue the node's sequence number |
//! | release | deletion of the node |
//! | read | `sync` and `getData` (in a queue `getChildren`), one behind the other on one connection |
//!
//! A session of ZooKeeper *is* a connection: thousands of them would measure sockets. So many logical sessions
//! share one, which favours ZooKeeper. What one of them holds when it is closed stays held until it is released or
//! the last one on its connection is closed, which is when the session there is closed.
//!
//! # Promises
//! 1. A release is sent in the session that created the node or not at all: it cannot hit another's node.
//! 2. A waiter that has come first has seen its own node again: a session that ended in the queue is not granted.
//! 3. Tries and waits are never mixed: the two forms do not exclude each other, so the first acquire decides and
//!    the other kind fails.
//! 4. There is no shared mode: a shared acquire fails rather than being exclusive.
//!
//! A lock's own lease is not there either: a node lives as long as its session, and that is what is renewed.

mod connection;
mod wire;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use tokio::{net::TcpStream, sync::OnceCell, time::timeout};

use self::connection::{Answer, Connection};
use super::{
    About, Acquired, Failure, Grant, How, PATIENCE, PREFIX, Place,
    slots::{Slots, addresses},
};
use crate::proc;

/// To every member, unless told.
const CONNECTIONS: u32 = 8;
/// What begins the names of nodes in a queue; ten digits follow.
const TICKET: &str = "ticket-";
const QUEUES: &str = "load-queue";

/// See the [module](self).
pub(crate) struct Zookeeper {
    addresses: Arc<[String]>,
    per_member: u32,
    /// Made with the first session, whose length is theirs.
    connections: OnceLock<Vec<Shared>>,
    /// The sessions of the connections on which they were opened.
    sessions: Slots,
    form: OnceLock<Form>,
    /// Made by the first session.
    roots: OnceCell<()>,
    attempts: AtomicU64,
}

/// A connection and how many sessions are open on it.
struct Shared {
    connection: Connection,
    open: AtomicU32,
}

/// What nodes stand for locks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// One that is there or not.
    Try,
    /// Children that queue.
    Queue,
}

impl Zookeeper {
    /// Makes sure that every member is there.
    pub(crate) async fn connect(place: &Place, sessions: u32) -> anyhow::Result<Self> {
        let addresses: Arc<[String]> = addresses("zookeeper", &place.target)?.into();
        for address in addresses.iter() {
            let connected = timeout(PATIENCE, TcpStream::connect(address)).await;
            connected
                .map_err(anyhow::Error::from)
                .and_then(|connected| Ok(connected?))
                .with_context(|| format!("no ZooKeeper answers at {address}"))?;
        }
        Ok(Self {
            addresses,
            per_member: place.connections.unwrap_or(CONNECTIONS),
            connections: OnceLock::new(),
            sessions: Slots::new(sessions),
            form: OnceLock::new(),
            roots: OnceCell::new(),
            attempts: AtomicU64::new(0),
        })
    }

    pub(crate) async fn open(&self, session: u32, ttl: Duration) -> Result<(), Failure> {
        let connections = self.connections.get_or_init(|| {
            let count = self.addresses.len() * self.per_member as usize;
            let start = |number| Connection::start(Arc::clone(&self.addresses), number, ttl);
            (0..count).map(|number| Shared { connection: start(number), open: AtomicU32::new(0) }).collect()
        });
        let Shared { connection, open } = &connections[session as usize % connections.len()];
        self.roots
            .get_or_try_init(async || {
                make(connection, None, &format!("/{}", PREFIX.trim_end_matches('/'))).await?;
                make(connection, None, &format!("/{QUEUES}")).await
            })
            .await?;
        // An answer says that the connection is up.
        connection.ask(None, wire::EXISTS, wire::look("/", false)).await?;
        if self.sessions.set(session, connection.session())? == 0 {
            open.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    pub(crate) async fn close(&self, session: u32) -> Result<(), Failure> {
        let Shared { connection, open } = self.shared(session.into())?;
        let id = self.sessions.set(session, 0)?;
        if id != 0 && open.fetch_sub(1, Ordering::Relaxed) == 1 {
            connection.ask(Some(id), wire::CLOSE, Vec::new()).await?;
        }
        Ok(())
    }

    pub(crate) async fn keep_alive(&self, session: u32) -> Result<bool, Failure> {
        let id = self.sessions.of(session)?;
        let answer = self.of(session.into())?.ask(Some(id), wire::EXISTS, wire::look("/", false)).await?;
        match answer.error {
            wire::OK => Ok(true),
            wire::SESSION_EXPIRED => Ok(false),
            error => Err(failure(error)),
        }
    }

    pub(crate) async fn acquire(&self, session: u32, name: u64, how: How) -> Result<Acquired, Failure> {
        if how.shared {
            return Err(Failure::new("no shared mode"));
        }
        let connection = self.of(session.into())?;
        let by = By { session: self.sessions.of(session)?, attempt: self.attempts.fetch_add(1, Ordering::Relaxed) };
        let form = if how.wait.is_zero() { Form::Try } else { Form::Queue };
        if *self.form.get_or_init(|| form) != form {
            return Err(Failure::new("tries and waits cannot be mixed"));
        }
        let acquired = match form {
            Form::Try => attempt(connection, by, name).await,
            Form::Queue => queue(connection, by, name, how.wait).await,
        };
        if acquired.is_err() {
            let connection = connection.clone();
            tokio::spawn(async move { withdraw(&connection, by, name, form).await });
        }
        acquired
    }

    pub(crate) async fn renew(&self, session: u32, name: u64, grant: Grant, _: Duration) -> Result<bool, Failure> {
        let look = wire::look(&self.node(name, grant.token), false);
        let answer = self.of(session.into())?.ask(Some(id_of(grant)), wire::EXISTS, look).await?;
        match (answer.error, self.form()) {
            (wire::OK, Form::Queue) => Ok(true),
            (wire::OK, Form::Try) => Ok(token(wire::existing(answer.body)) == Ok(grant.token)),
            (wire::NO_NODE | wire::SESSION_EXPIRED, _) => Ok(false),
            (error, _) => Err(failure(error)),
        }
    }

    pub(crate) async fn release(&self, session: u32, name: u64, grant: Grant) -> Result<bool, Failure> {
        let delete = wire::delete(&self.node(name, grant.token));
        let answer = self.of(session.into())?.ask(Some(id_of(grant)), wire::DELETE, delete).await?;
        match answer.error {
            wire::OK => Ok(true),
            wire::NO_NODE | wire::SESSION_EXPIRED => Ok(false),
            error => Err(failure(error)),
        }
    }

    pub(crate) async fn read(&self, name: u64) -> Result<Option<u64>, Failure> {
        let form = self.form();
        let (path, kind) = match form {
            Form::Try => (format!("/{PREFIX}{name}"), wire::GET_DATA),
            Form::Queue => (queue_of(name), wire::GET_CHILDREN),
        };
        let sync = (wire::SYNC, wire::path(&path));
        let [synced, found] = self.of(name)?.ask_both(sync, (kind, wire::look(&path, false))).await?;
        if synced.error != wire::OK {
            return Err(failure(synced.error));
        }
        match (found.error, form) {
            (wire::OK, Form::Try) => token(wire::data(found.body).map(|(_, transaction)| transaction)).map(Some),
            (wire::OK, Form::Queue) => Ok(tickets(found)?.into_iter().min()),
            (wire::NO_NODE, _) => Ok(None),
            (error, _) => Err(failure(error)),
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
            system: "zookeeper".to_owned(),
            protocol: "zookeeper".to_owned(),
            nodes: u32::try_from(self.addresses.len()).unwrap_or(u32::MAX),
            shards: 1,
            connections: self.per_member,
            consistency: "linearizable".to_owned(),
        }
    }

    fn of(&self, number: u64) -> Result<&Connection, Failure> {
        self.shared(number).map(|shared| &shared.connection)
    }

    fn shared(&self, number: u64) -> Result<&Shared, Failure> {
        let connections = self.connections.get().ok_or_else(|| Failure::new("session not open"))?;
        Ok(&connections[(number % connections.len() as u64) as usize])
    }

    fn form(&self) -> Form {
        self.form.get().copied().unwrap_or(Form::Try)
    }

    fn node(&self, name: u64, token: u64) -> String {
        match self.form() {
            Form::Try => format!("/{PREFIX}{name}"),
            Form::Queue => ticket(name, token),
        }
    }
}

/// Whose a node is: its data.
#[derive(Clone, Copy)]
struct By {
    session: i64,
    attempt: u64,
}

impl By {
    fn data(self) -> [u8; 16] {
        (u128::from(self.session as u64) << 64 | u128::from(self.attempt)).to_be_bytes()
    }
}

async fn attempt(connection: &Connection, by: By, name: u64) -> Result<Acquired, Failure> {
    let create = wire::create(&format!("/{PREFIX}{name}"), &by.data(), wire::EPHEMERAL);
    let answer = connection.ask(Some(by.session), wire::CREATE, create).await?;
    match answer.error {
        wire::OK => {
            let created = wire::created(answer.body).map(|(_, transaction)| transaction);
            Ok(Acquired::Granted { grant: grant(by, token(created)?), queued: false })
        }
        wire::NODE_EXISTS => Ok(Acquired::Held),
        error => Err(failure(error)),
    }
}

async fn queue(connection: &Connection, by: By, name: u64, wait: Duration) -> Result<Acquired, Failure> {
    let token = enqueue(connection, by, name).await?;
    match timeout(wait, first(connection, name, token)).await {
        Ok(queued) => Ok(Acquired::Granted { grant: grant(by, token), queued: queued? }),
        Err(_) => {
            connection.ask(Some(by.session), wire::DELETE, wire::delete(&ticket(name, token))).await?;
            Ok(Acquired::TimedOut)
        }
    }
}

/// After an acquire without an answer: deletes its node, if it was created.
async fn withdraw(connection: &Connection, by: By, name: u64, form: Form) -> Result<(), Failure> {
    let paths = match form {
        Form::Try => vec![format!("/{PREFIX}{name}")],
        Form::Queue => {
            let found = connection.ask(None, wire::GET_CHILDREN, wire::look(&queue_of(name), false)).await?;
            tickets(found)?.into_iter().map(|token| ticket(name, token)).collect()
        }
    };
    for path in paths {
        let found = connection.ask(None, wire::GET_DATA, wire::look(&path, false)).await?;
        if found.error == wire::OK && wire::data(found.body).is_ok_and(|(data, _)| data[..] == by.data()) {
            connection.ask(Some(by.session), wire::DELETE, wire::delete(&path)).await?;
        }
    }
    Ok(())
}

/// Creates a node at the end of the queue, and the queue where it is not there.
async fn enqueue(connection: &Connection, by: By, name: u64) -> Result<u64, Failure> {
    let path = format!("{}/{TICKET}", queue_of(name));
    loop {
        let create = wire::create(&path, &by.data(), wire::EPHEMERAL_SEQUENTIAL);
        let answer = connection.ask(Some(by.session), wire::CREATE, create).await?;
        match answer.error {
            wire::OK => {
                let (path, _) = wire::created(answer.body).map_err(|wire::Malformed| malformed())?;
                return number(&path).ok_or_else(malformed);
            }
            wire::NO_NODE => make(connection, Some(by.session), &queue_of(name)).await?,
            error => return Err(failure(error)),
        }
    }
}

/// Makes a node that stays, unless it is there.
async fn make(connection: &Connection, session: Option<i64>, path: &str) -> Result<(), Failure> {
    let made = connection.ask(session, wire::CREATE, wire::create(path, &[], wire::PERSISTENT)).await?;
    match made.error {
        wire::OK | wire::NODE_EXISTS => Ok(()),
        error => Err(failure(error)),
    }
}

/// Until nobody is before `own` in the queue; whether somebody was.
async fn first(connection: &Connection, name: u64, own: u64) -> Result<bool, Failure> {
    let mut queued = false;
    loop {
        let found = connection.ask(None, wire::GET_CHILDREN, wire::look(&queue_of(name), false)).await?;
        if found.error != wire::OK {
            return Err(failure(found.error));
        }
        let tickets = tickets(found)?;
        if !tickets.contains(&own) {
            return Err(Failure::new("session gone"));
        }
        let Some(before) = tickets.into_iter().filter(|other| *other < own).max() else { return Ok(queued) };
        queued = true;
        let (seen, changed) = connection.watch(ticket(name, before)).await?;
        match seen.error {
            // Told by being dropped.
            wire::OK => drop(changed.await),
            wire::NO_NODE => {}
            error => return Err(failure(error)),
        }
    }
}

fn queue_of(name: u64) -> String {
    format!("/{QUEUES}/{name}")
}

/// Tokens are one more than the server's sequence numbers, so that none is 0.
fn ticket(name: u64, token: u64) -> String {
    format!("{}/{TICKET}{:010}", queue_of(name), token.saturating_sub(1))
}

fn number(path: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(path).ok()?.rsplit_once(TICKET)?.1;
    digits.parse::<u64>().ok()?.checked_add(1)
}

fn tickets(children: Answer) -> Result<Vec<u64>, Failure> {
    let names = wire::children(children.body).map_err(|wire::Malformed| malformed())?;
    names.iter().map(|name| number(name).ok_or_else(malformed)).collect()
}

fn grant(by: By, token: u64) -> Grant {
    Grant { token, id: u128::from(by.session as u64) }
}

fn id_of(grant: Grant) -> i64 {
    grant.id as u64 as i64
}

/// Transactions are never negative.
fn token(transaction: Result<i64, wire::Malformed>) -> Result<u64, Failure> {
    transaction.ok().and_then(|transaction| u64::try_from(transaction).ok()).ok_or_else(malformed)
}

fn malformed() -> Failure {
    Failure::new("malformed answer")
}

/// Of an error's number, as ZooKeeper's `KeeperException` counts them.
fn failure(error: i32) -> Failure {
    match error {
        wire::SESSION_EXPIRED => Failure::new("session gone"),
        error => Failure(format!("ZooKeeper error {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_leads_back_to_its_number() {
        assert_eq!(ticket(7, 1), "/load-queue/7/ticket-0000000000");
        assert_eq!(number(ticket(7, 4711).as_bytes()), Some(4711));
        assert_eq!(number(b"/load-queue/7/other"), None);
    }

    #[test]
    fn a_grant_leads_back_to_its_session() {
        assert_eq!(id_of(grant(By { session: i64::MIN + 3, attempt: 9 }, 1)), i64::MIN + 3);
    }
}

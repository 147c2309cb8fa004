//! What the commands share in asking a cluster and telling the answer.

use std::{process::ExitCode, time::Duration};

use serde_json::{Value, json};
use wardlock_machine::*;
use wardlock_router::{Client, LockError, Session, WatchError};
use wardlock_wire::KeptAlive;

use super::{
    connect::{self, PATIENCE},
    failure::{Code, Failure},
    output::{self, Format, Table},
    telling::telling,
    view,
};

/// How long leaving may hold a command up.
const LEAVING: Duration = Duration::from_secs(2);

/// A length of time for the machine.
pub(super) fn millis(length: Duration) -> Millis {
    Millis(u64::try_from(length.as_millis()).unwrap_or(u64::MAX))
}

/// Prints one answer in the form that was asked for.
///
/// # Errors
/// Where stdout cannot be written.
pub(super) fn say(output: Format, json: &Value, text: &str) -> Result<ExitCode, Failure> {
    match output {
        Format::Json => output::print_json(json)?,
        Format::Table => output::print(&format!("{text}\n"))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints one object.
///
/// # Errors
/// `absent`, where there is none.
pub(super) fn show(
    object: Option<&Object>,
    output: Format,
    table: fn(&Object) -> Table,
    absent: &str,
) -> Result<ExitCode, Failure> {
    let object = object.ok_or_else(|| Failure::error(absent))?;
    match output {
        Format::Json => output::print_json(&view::object(object))?,
        Format::Table => output::print(&table(object).lines())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// One lock or election, as it is now.
///
/// # Errors
/// Where the cluster does not answer.
pub(super) async fn object(client: &Client, key: Key) -> Result<Option<Object>, Failure> {
    client.object(key, PATIENCE).await.map_err(Failure::error)
}

/// Gives a grant back.
///
/// # Errors
/// [`Code::Lost`] where it was no longer held.
pub(super) async fn release(client: &Client, key: Key, lock_id: LockId, output: Format) -> Result<ExitCode, Failure> {
    let command = Command::Release { request: client.random_request(), key, lock_id };
    match client.write(command, PATIENCE).await.map_err(Failure::error)? {
        Outcome::Released => say(output, &json!({ "success": true }), "released"),
        outcome => Err(refused(outcome)),
    }
}

/// Opens a session that nobody keeps alive.
///
/// # Errors
/// Where the cluster does not answer or does not want to.
pub(super) async fn open(
    client: &Client,
    client_id: String,
    ttl: Duration,
    metadata: Metadata,
) -> Result<SessionId, Failure> {
    let session = client.new_session_id();
    let holder = Holder { client_id, ttl: millis(ttl), metadata };
    match client.write(Command::OpenSession { session, holder }, PATIENCE).await.map_err(Failure::error)? {
        Outcome::Opened { .. } => Ok(session),
        outcome => Err(refused(outcome)),
    }
}

/// Closes a session that is of no more use; it would end by itself.
pub(super) async fn close_quietly(client: &Client, session: SessionId) {
    // Its TTL ends it where this fails.
    let _ = client.write(Command::CloseSession { session }, PATIENCE).await;
}

/// Waits for `work` and keeps the session alive meanwhile.
///
/// # Errors
/// As `work`, or [`Code::Lost`] where the session ended.
pub(super) async fn while_kept_alive<T>(
    client: &Client,
    session: SessionId,
    ttl: Duration,
    work: impl Future<Output = Result<T, wardlock_router::Error>>,
) -> Result<T, Failure> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done.map_err(Failure::error),
            () = tokio::time::sleep(ttl / 3) => {
                let kept = tokio::select! {
                    done = &mut work => return done.map_err(Failure::error),
                    kept = client.keep_alive(session, ttl) => kept,
                };
                // Without an answer the work itself fails soon.
                if let Ok(KeptAlive::Ended | KeptAlive::Unknown) = kept {
                    return Err(Failure::new(Code::Lost, "the session ended while waiting"));
                }
            }
        }
    }
}

/// An outcome that is not what was wanted, for people and scripts.
pub(super) fn refused(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Held(blocked) => Failure::new(Code::NotAcquired, format!("not acquired: {}", blocked_by(&blocked))),
        Outcome::WaitTimeout(blocked) => {
            Failure::new(Code::NotAcquired, format!("not acquired in time: {}", blocked_by(&blocked)))
        }
        Outcome::Cancelled => Failure::new(Code::NotAcquired, "not acquired: the wait was cancelled"),
        Outcome::Deadlock(circle) => {
            let circle = output::printable(&circle.to_string());
            Failure::new(Code::NotAcquired, format!("not acquired: a deadlock: {circle}; give back what you hold"))
        }
        Outcome::Mismatch { mode } => {
            Failure::error(format!("others use it as {}: all must use it alike", view::mode(mode)))
        }
        Outcome::Expired => Failure::new(Code::Lost, "it is no longer held: others may have held it since"),
        Outcome::Foreign => Failure::error("this lock id is not of this name"),
        Outcome::Closing | Outcome::Ended => Failure::new(Code::Lost, "the session has ended"),
        Outcome::UnknownSession | Outcome::NotAttached => Failure::error("there is no such session"),
        Outcome::IdTaken => Failure::error("the session id is taken"),
        Outcome::Limit(limit) => Failure::error(format!("a limit of the cluster is reached: {limit:?}")),
        Outcome::TooOld => Failure::error("the request came too late to be repeated"),
        other => Failure::error(format!("the cluster answered {other:?}")),
    }
}

fn blocked_by(blocked: &Blocked) -> String {
    held_by(&blocked.holders, blocked.holder_count, blocked.waiters, blocked.lock_delay_until)
}

/// Who holds it, why, and since when; where nobody does, what else keeps it.
fn held_by(holders: &[Grant], count: u32, waiters: u32, lock_delay_until: Option<WallMs>) -> String {
    let Some(first) = holders.first() else {
        return match lock_delay_until {
            Some(until) => format!("closed until {} after it was lost", view::time(until)),
            None => format!("{waiters} wait already"),
        };
    };
    let who = output::printable(first.value.as_ref().unwrap_or(&first.holder));
    let why = first.metadata.get("reason").map(|why| format!(" ({})", output::printable(why))).unwrap_or_default();
    let more = match count {
        0 | 1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    format!("held by {who}{why}{more} for {}", view::age(first.acquired))
}

/// Waits for `work`, which queues for `key`, and tells a terminal who is in the way.
pub(super) async fn queueing<T>(client: &Client, key: &Key, work: impl Future<Output = T>) -> T {
    let line = async || {
        let object = object(client, key.clone()).await.ok()??;
        let by = held_by(&object.holders, object.holder_count, object.queue_count, object.lock_delay_until);
        Some(format!("waiting for {}, {by}", output::printable(key.name.as_str())))
    };
    telling(line, work).await
}

/// Opens a session that this process keeps alive.
///
/// # Errors
/// Where the cluster does not answer or does not want to.
pub(super) async fn open_kept(client: &Client, ttl: Duration, reason: Option<&str>) -> Result<Session, Failure> {
    let mut opening = client.session(connect::client_id()).ttl(ttl);
    for (key, value) in connect::metadata(reason)? {
        opening = opening.metadata(key, value);
    }
    opening.open().await.map_err(Failure::error)
}

/// Ends a session that is of no more use, for as long as a person waits for that or until `again`, a
/// second signal say. Its TTL ends it later where this fails.
pub(super) async fn leave(session: Session, again: impl Future) {
    tokio::select! {
        _ = tokio::time::timeout(LEAVING, session.close()) => {}
        _ = again => {}
    }
}

/// Why a lock that was asked for is not held, for people and scripts.
pub(super) fn not_held(error: LockError) -> Failure {
    match error {
        LockError::Held(blocked) => refused(Outcome::Held(blocked)),
        LockError::WaitTimeout(blocked) => refused(Outcome::WaitTimeout(blocked)),
        LockError::Mismatch(mode) => refused(Outcome::Mismatch { mode }),
        LockError::Cancelled => refused(Outcome::Cancelled),
        LockError::Deadlock(circle) => refused(Outcome::Deadlock(circle)),
        LockError::Expired | LockError::SessionLost => {
            Failure::new(Code::NotAcquired, format!("not acquired: {error}"))
        }
        other => Failure::error(other),
    }
}

/// Resolves when the cluster says that a grant is gone: an operator broke it, say. A session's own signs
/// of life do not tell that.
pub(super) async fn taken(client: &Client, key: Key, lock_id: LockId) {
    // The session's own deadline tells of an outage.
    let pause = || tokio::time::sleep(Duration::from_secs(1));
    'open: loop {
        let opening = client.watch().name(key.kind, key.name.as_str()).patience(PATIENCE);
        let Ok(mut watch) = opening.open().await else {
            pause().await;
            continue;
        };
        loop {
            // What came before the watch, or was missed by it.
            let Ok(object) = client.object(key.clone(), PATIENCE).await else {
                pause().await;
                continue;
            };
            let holders = object.map_or_else(Vec::new, |object| object.holders);
            // A page of holders may leave ours out.
            if holders.len() < limits::PAGE && !holders.iter().any(|grant| grant.lock_id == lock_id) {
                return;
            }
            loop {
                match watch.next().await {
                    Ok(watched) => match watched.event.what {
                        What::Ended { lock_id: ended, .. } if ended == lock_id => return,
                        _ => {}
                    },
                    Err(WatchError::Compacted { .. }) => break,
                    Err(_) => continue 'open,
                }
            }
        }
    }
}

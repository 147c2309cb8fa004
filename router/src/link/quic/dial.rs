//! Dialing: once, to learn who answers at an address; or for ever, to stay connected to a node.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{sync::Notify, time::Instant};
use wardlock_placement::NodeId;

use super::{
    ConnectError, Shared,
    code::{self, Code},
    connection::Connection,
    hello,
};
use crate::{
    link::Peer,
    tls::{SEED_NAME, node_name},
};

const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// How long the higher of two nodes leaves the dialing to the lower.
const COURTESY: Duration = Duration::from_millis(50);
/// QUIC repeats an unanswered first packet ever more slowly, so a peer that starts again is met sooner
/// by a fresh attempt.
const ATTEMPT: Duration = Duration::from_secs(1);
/// Every so many attempts one may take the whole handshake timeout, for networks and peers that are slow.
const PATIENT_EVERY: u32 = 4;
/// A connection that ends sooner than this counts as a failed attempt.
const STABLE: Duration = Duration::from_secs(1);
/// How many of a name's addresses are tried.
const ADDRESSES: usize = 8;

/// Stays connected to a node, until aborted.
pub(super) async fn keep(shared: Arc<Shared>, node: NodeId, address: String, changed: Arc<Notify>) {
    let mut backoff = BACKOFF_MIN;
    for attempt in 1u32.. {
        if shared.hello.node > Some(node) {
            tokio::time::sleep(COURTESY).await;
        }
        let connected = Instant::now();
        while shared.table.is_connected(node) {
            changed.notified().await;
        }
        if connected.elapsed() > STABLE {
            backoff = BACKOFF_MIN;
        }
        let patience = if attempt % PATIENT_EVERY == 0 { shared.config.handshake_timeout } else { ATTEMPT };
        match dial(&shared, &address, Some(node), patience).await {
            Ok(_) | Err(ConnectError::Stopping) => {}
            Err(error) => {
                if shared.complaints.may_speak() {
                    tracing::warn!(%node, address, %error, "cannot connect");
                }
            }
        }
        if !shared.table.is_connected(node) {
            tokio::time::sleep(backoff.mul_f64(rand::random_range(0.5..1.0))).await;
            backoff = (2 * backoff).min(BACKOFF_MAX);
        }
    }
}

/// Connects to whichever node answers at `address`, or to `node` only. The node is connected afterwards;
/// a connection that was there already is kept.
pub(super) async fn dial(
    shared: &Arc<Shared>,
    address: &str,
    node: Option<NodeId>,
    patience: Duration,
) -> Result<NodeId, ConnectError> {
    let resolved = tokio::net::lookup_host(address).await;
    let resolved = resolved.map_err(|source| ConnectError::Resolve { address: address.to_owned(), source })?;
    let mut last = ConnectError::Unreachable(format!("{address} resolves to no usable address"));
    for address in resolved.take(ADDRESSES) {
        match tokio::time::timeout(patience, connect(shared, address, node)).await {
            Ok(Ok(node)) => return Ok(node),
            Ok(Err(error)) => last = error,
            Err(_) => last = ConnectError::Unreachable(format!("{address} does not answer")),
        }
    }
    Err(last)
}

async fn connect(shared: &Arc<Shared>, address: SocketAddr, node: Option<NodeId>) -> Result<NodeId, ConnectError> {
    let name = node.map_or(SEED_NAME.to_owned(), node_name);
    let connecting = shared
        .quic
        .connect_with(shared.dialing.clone(), address, &name)
        .map_err(|error| ConnectError::Unreachable(error.to_string()))?;
    let quic = connecting.await?;
    // Until its hello is heard, whatever ends this attempt ends the connection too.
    let guard = CloseOnDrop(Some(quic.clone()));
    let certified = hello::certified(&quic)?.ok_or_else(|| ConnectError::Certificate("not a node's".into()))?;
    if shared.hello.node == Some(certified) {
        return Err(ConnectError::Myself);
    }
    if shared.table.is_connected(certified) {
        return Ok(certified);
    }
    let greeted = hello::dialed(&quic, &shared.hello, certified).await?;
    let peer = Peer { node: Some(certified), connection: shared.number() };
    Connection::start(shared, quic, peer, true, greeted, None).await?;
    guard.defuse();
    Ok(certified)
}

/// Closes a connection that did not come to be used.
pub(super) struct CloseOnDrop(pub(super) Option<quinn::Connection>);

impl CloseOnDrop {
    pub(super) fn defuse(mut self) {
        self.0 = None;
    }
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            code::close(&connection, Code::Late, "not needed, or not greeted in time");
        }
    }
}

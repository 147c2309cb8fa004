//! Accepting, within bounds.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use quinn::Incoming;
use tokio::sync::Semaphore;

use super::{
    ConnectError, Shared,
    code::Code,
    connection::Connection,
    dial::CloseOnDrop,
    hello::{self, Unacceptable},
};
use crate::link::Peer;

/// Accepts until the endpoint stops.
pub(super) async fn accept(shared: Arc<Shared>) {
    let handshakes = Arc::new(Semaphore::new(shared.config.handshakes));
    while let Some(incoming) = shared.quic.accept().await {
        let crowded = handshakes.available_permits() <= shared.config.handshakes / 2;
        if crowded && !incoming.remote_address_validated() && incoming.may_retry() {
            // Costs no state. It fails only for those who were asked already.
            let _ = incoming.retry();
            continue;
        }
        let Ok(permit) = handshakes.clone().try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            let from = incoming.remote_address();
            let patience = shared.config.handshake_timeout;
            let result = tokio::time::timeout(patience, greet(&shared, incoming)).await;
            drop(permit);
            let error = match result {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error,
                Err(_) => ConnectError::Unreachable("no hello in time".into()),
            };
            if shared.complaints.may_speak() {
                tracing::warn!(%from, %error, "refused a connection");
            }
        });
    }
}

async fn greet(shared: &Arc<Shared>, incoming: Incoming) -> Result<(), ConnectError> {
    let quic = incoming.accept()?.await?;
    let guard = CloseOnDrop(Some(quic.clone()));
    let node = match hello::certified(&quic) {
        Ok(node) => node,
        Err(error) => return Err(hello::refuse(&quic, Unacceptable(Code::Identity, error.to_string()))),
    };
    if node.is_some() && node == shared.hello.node {
        let why = "this is the same node".to_owned();
        return Err(hello::refuse(&quic, Unacceptable(Code::Identity, why)));
    }
    let place = match node {
        Some(_) => None,
        None => Some(Place::take(shared, &quic)?),
    };
    let greeted = hello::accepted(&quic, &shared.hello, node).await?;
    let peer = Peer { node, connection: shared.number() };
    Connection::start(shared, quic, peer, false, greeted, place).await?;
    guard.defuse();
    Ok(())
}

/// One client's place among those that there may be.
pub(super) struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(shared: &Arc<Shared>, quic: &quinn::Connection) -> Result<Place, ConnectError> {
        let most = shared.config.clients;
        let more = |taken: usize| (taken < most).then_some(taken + 1);
        match shared.clients.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(Place(shared.clients.clone())),
            Err(_) => Err(hello::refuse(quic, Unacceptable(Code::Crowded, format!("{most} clients are connected")))),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

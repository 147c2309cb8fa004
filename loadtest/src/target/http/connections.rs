//! A bounded number of kept-alive connections to one gateway, each with one request at a time.
//!
//! # Promises
//! 1. No more connections are open than were asked for; who finds none idle waits.
//! 2. A connection whose exchange did not end well is not used again.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header::HOST};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::Semaphore};

use crate::target::Failure;

/// The most bytes of an answer that are read.
const BYTES: usize = 1 << 20;

/// See the [module](self).
pub(super) struct Connections {
    gateway: String,
    count: u32,
    permits: Semaphore,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

impl Connections {
    /// To a `host:port`; they are made when they are needed.
    pub(super) fn new(gateway: &str, count: u32) -> Connections {
        let permits = Semaphore::new(count as usize);
        Connections { gateway: gateway.to_owned(), count, permits, idle: Mutex::default() }
    }

    /// How many there may be.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Sends a request once a connection is idle, and reads the answer.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let exchange = async {
            let _permit = self.permits.acquire().await.map_err(|_| Failure::new("closing"))?;
            let mut connection = self.connection().await?;
            let request = Request::builder().method(method).uri(path).header(HOST, &self.gateway);
            let request = request.body(Full::new(body)).map_err(|_| Failure::new("malformed request"))?;
            let lost = |_| Failure::new("connection lost");
            let response = connection.send_request(request).await.map_err(lost)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), BYTES).collect().await;
            let body = body.map_err(|_| Failure::new("answer cut off"))?.to_bytes();
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            Ok((status, body))
        };
        tokio::time::timeout(patience, exchange).await.unwrap_or_else(|_| Err(Failure::new("timeout")))
    }

    /// One that is idle and open, or a new one.
    async fn connection(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(mut idle) = idle else { break };
            if idle.ready().await.is_ok() {
                return Ok(idle);
            }
        }
        let stream = TcpStream::connect(&self.gateway).await;
        let stream = stream.map_err(|error| Failure(error.kind().to_string()))?;
        // Requests are small and complete: waiting for more would only delay them.
        stream.set_nodelay(true).map_err(|error| Failure(error.kind().to_string()))?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|_| Failure::new("connection lost"))?;
        // It ends with its sender; a fault shows in the next exchange.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}

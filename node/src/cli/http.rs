//! One GET over plain HTTP, bounded in time and size: how the command line finds a cluster by the
//! address of its gateway.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};

/// How long the whole exchange may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest answer.
const BODY_MAX: usize = 4 << 20;

/// Fetches a JSON document from `host:port`.
///
/// # Errors
/// One line on what went wrong.
pub(super) async fn get_json(address: &str, path: &str) -> Result<Value, String> {
    match timeout(PATIENCE, get(address, path)).await {
        Ok(fetched) => fetched,
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

async fn get(address: &str, path: &str) -> Result<Value, String> {
    let stream = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let request = hyper::Request::get(path)
        .header(hyper::header::HOST, address)
        .header(hyper::header::ACCEPT, "application/json")
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|e| e.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let status = response.status();
        let body = Limited::new(response.into_body(), BODY_MAX).collect().await.map_err(|e| e.to_string())?.to_bytes();
        if !status.is_success() {
            return Err(format!("it answers {status}"));
        }
        serde_json::from_slice(&body).map_err(|e| format!("its answer is not JSON: {e}"))
    };
    tokio::pin!(exchange);
    tokio::select! {
        answered = &mut exchange => answered,
        ended = connection => match ended {
            // The answer may have come with the connection's end.
            Ok(()) => exchange.await,
            Err(e) => Err(e.to_string()),
        },
    }
}

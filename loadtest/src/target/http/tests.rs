//! Against a gateway that answers by rote.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::target::Protocol;

/// Answers each request with what `respond` makes of its head and body. Returns its address and, later, how
/// many connections it was asked for.
async fn gateway(respond: fn(&str) -> (u16, &'static str)) -> (String, Arc<Mutex<u32>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let accepted = Arc::new(Mutex::new(0));
    let count = accepted.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            *count.lock().expect("not poisoned") += 1;
            tokio::spawn(serve(stream, respond));
        }
    });
    (address, accepted)
}

async fn serve(mut stream: TcpStream, respond: fn(&str) -> (u16, &'static str)) {
    let (mut buffer, mut request) = ([0; 4096], String::new());
    // Requests here are small, and the next one comes after the answer.
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        request.push_str(std::str::from_utf8(&buffer[..length]).expect("text"));
        let Some((head, body)) = request.split_once("\r\n\r\n") else { continue };
        let field = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if body.len() < field.map_or(0, |length| length.parse().expect("a length")) {
            continue;
        }
        let (status, answer) = respond(&request);
        request.clear();
        let text = format!("HTTP/1.1 {status} said\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
        if stream.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn rote(request: &str) -> (u16, &'static str) {
    let line = request.lines().next().unwrap_or_default();
    let (method, path) = line.trim_end_matches(" HTTP/1.1").split_once(' ').unwrap_or_default();
    match (method, path) {
        ("GET", "/api/v1/cluster") => (200, r#"{"shards":16,"nodes":[{"quic":"127.0.0.1:7401"}]}"#),
        ("POST", "/api/v1/sessions") => (201, r#"{"sessionId":"00000000000000000000000000000007"}"#),
        ("POST", "/api/v1/sessions/00000000000000000000000000000007/keepalive") => (410, r#"{"code":"session-ended"}"#),
        ("POST", "/api/v1/locks/load/1/acquire") if request.contains("\"shared\"") => (409, r#"{"code":"held"}"#),
        ("POST", "/api/v1/locks/load/1/acquire") => (200, r#"{"success":true,"fencingToken":9,"waitedMs":3}"#),
        ("POST", "/api/v1/locks/load/2/acquire") => (503, r#"{"code":"unavailable"}"#),
        ("POST", "/api/v1/locks/load/1/release") if request.contains("00000000000000000000000000000007-9-") => {
            (200, r#"{"success":true}"#)
        }
        ("POST", "/api/v1/locks/load/1/release") => (410, r#"{"code":"expired"}"#),
        ("GET", "/api/v1/locks/load/1") => (200, r#"{"fencingToken":9}"#),
        ("GET", "/api/v1/locks/load/2") => (404, r#"{"code":"lock-free"}"#),
        _ => (500, "not JSON"),
    }
}

async fn connect(gateway: &str, connections: u32) -> anyhow::Result<Http> {
    let place = Place {
        target: format!("http://{gateway}"),
        protocol: Protocol::Http,
        connections: Some(connections),
        certs: None,
        server_pid: Vec::new(),
    };
    Http::connect(&place, 1).await
}

#[tokio::test]
async fn answers_are_told_from_refusals_and_refusals_from_failures() {
    let (address, _) = gateway(rote).await;
    let http = connect(&address, 2).await.expect("connects");
    assert_eq!((http.about().nodes, http.about().shards), (1, 16));
    assert_eq!(http.acquire(0, 1, How::default()).await, Err(Failure::new("session not open")));
    http.open(0, Duration::from_secs(10)).await.expect("opens");
    let grant = Grant { token: 9, id: 7 };
    assert_eq!(http.acquire(0, 1, How::default()).await, Ok(Acquired::Granted { grant, queued: true }));
    assert_eq!(http.acquire(0, 1, How { shared: true, ..How::default() }).await, Ok(Acquired::Held));
    assert_eq!(http.acquire(0, 2, How::default()).await, Err(Failure::new("unavailable")));
    assert_eq!(http.release(0, 1, grant).await, Ok(true));
    assert_eq!(http.release(0, 1, Grant { token: 8, id: 7 }).await, Ok(false));
    assert_eq!(http.keep_alive(0).await, Ok(false));
    assert_eq!((http.read(1).await, http.read(2).await), (Ok(Some(9)), Ok(None)));
    assert_eq!(http.read(3).await, Err(Failure::new("status 500 without JSON")));
}

#[tokio::test]
async fn connections_are_kept_and_bounded() {
    let (address, accepted) = gateway(rote).await;
    let http = connect(&address, 2).await.expect("connects");
    for _ in 0..3 {
        let reads = futures_util::future::join_all((0..20).map(|_| http.read(1))).await;
        assert!(reads.iter().all(|read| *read == Ok(Some(9))), "{reads:?}");
    }
    assert_eq!(*accepted.lock().expect("not poisoned"), 2);
}

#[tokio::test]
async fn what_is_no_gateway_is_said_to_be_none() {
    for wrong in ["h:0", "nonsense"] {
        let error = connect(wrong, 1).await.err().expect(wrong).to_string();
        assert!(error.contains("http://HOST:PORT"), "{error}");
    }
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound").to_string();
    let error = connect(&free, 1).await.err().expect("nobody is there").to_string();
    assert!(error.contains("cannot reach") && error.contains("wardlock dev"), "{error}");
}

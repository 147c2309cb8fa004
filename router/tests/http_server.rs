//! The sockets: slow and idle connections, bounds, TLS, streams, and how it stops.

mod authority;
mod http_support;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use authority::Authority;
use http_support::*;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, timeout},
};
use wardlock_machine::*;
use wardlock_router::http::{MutualTls, ServeError, ServerConfig, serve, server::check};
use wardlock_router::tls::Identity;

struct Served {
    addr: SocketAddr,
    stop: oneshot::Sender<()>,
    done: JoinHandle<Result<(), ServeError>>,
}

async fn start(fake: &Fake, config: ServerConfig) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async {
        let _ = stopped.await;
    };
    let done = tokio::spawn(serve(listener, fake.gateway(), shutdown, config));
    Served { addr, stop, done }
}

fn quick() -> ServerConfig {
    let (header_timeout, drain) = (Duration::from_millis(300), Duration::from_millis(500));
    ServerConfig { header_timeout, drain, ..ServerConfig::default() }
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut text)).await.expect("the connection stays open");
    String::from_utf8_lossy(&text).into_owned()
}

async fn until(stream: &mut TcpStream, what: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains(what) {
        let read = timeout(Duration::from_secs(5), stream.read(&mut buffer)).await;
        let n = read.unwrap_or_else(|_| panic!("no {what:?} in {text:?}")).unwrap();
        assert!(n > 0, "closed before {what:?}: {text:?}");
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    text
}

#[tokio::test]
async fn a_slow_head_is_cut_off_while_others_are_served() {
    let served = start(&Fake::new(), quick()).await;
    let mut slow = TcpStream::connect(served.addr).await.unwrap();
    slow.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nx-").await.unwrap();
    let mut good = TcpStream::connect(served.addr).await.unwrap();
    good.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(rest(&mut good).await.starts_with("HTTP/1.1 200"));
    let started = Instant::now();
    assert!(!rest(&mut slow).await.contains("200"));
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_served_connection_is_kept_for_the_next_request() {
    let config = ServerConfig { idle_timeout: Duration::from_millis(1_200), ..quick() };
    let served = start(&Fake::new(), config).await;
    let mut kept = TcpStream::connect(served.addr).await.unwrap();
    let started = Instant::now();
    for _ in 0..2 {
        kept.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        until(&mut kept, "alive").await;
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    assert_eq!(rest(&mut kept).await, "", "an idle connection is closed in the end");
    assert!(started.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn heads_are_bounded_and_head_requests_have_no_body() {
    let served = start(&Fake::new(), quick()).await;
    let mut fat = TcpStream::connect(served.addr).await.unwrap();
    let head = format!("GET /livez HTTP/1.1\r\nhost: x\r\nx-fat: {}\r\n\r\n", "y".repeat(20_000));
    let _ = fat.write_all(head.as_bytes()).await;
    assert!(rest(&mut fat).await.starts_with("HTTP/1.1 431"));
    let mut head = TcpStream::connect(served.addr).await.unwrap();
    head.write_all(b"HEAD /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let answer = rest(&mut head).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n"), "{answer}");
    // The longest name, every byte of it escaped, is no longer than a head may be.
    let mut long = TcpStream::connect(served.addr).await.unwrap();
    let path = format!("DELETE /api/v1/locks/{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "%61".repeat(1024));
    long.write_all(path.as_bytes()).await.unwrap();
    assert!(rest(&mut long).await.starts_with("HTTP/1.1 405"));
}

#[tokio::test]
async fn an_announced_flood_is_refused_unread() {
    let served = start(&Fake::new(), quick()).await;
    let mut flood = TcpStream::connect(served.addr).await.unwrap();
    let head = "POST /api/v1/locks/a/acquire HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\nexpect: 100-continue\r\n\r\n";
    flood.write_all(head.as_bytes()).await.unwrap();
    assert!(until(&mut flood, "too-large").await.starts_with("HTTP/1.1 413"));
}

#[tokio::test]
async fn connections_beyond_the_cap_wait() {
    let served = start(&Fake::new(), ServerConfig { connections: 1, ..quick() }).await;
    let mut first = TcpStream::connect(served.addr).await.unwrap();
    first.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    until(&mut first, "alive").await;
    let mut second = TcpStream::connect(served.addr).await.unwrap();
    second.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let early = timeout(Duration::from_millis(50), second.read(&mut [0; 16])).await;
    assert!(early.is_err(), "the second is served while the first is there");
    drop(first);
    until(&mut second, "alive").await;
}

#[tokio::test]
async fn stopping_lets_requests_finish_and_streams_end() {
    let fake = Fake::new();
    let (_events, told) = tokio::sync::mpsc::unbounded_channel();
    let told = Told { events: told, token: "AQEBAQU0k7EF".parse().unwrap() };
    fake.watches.lock().unwrap().push_back(Ok(told));
    fake.answers(Answer::Object(None));
    let served = start(&fake, ServerConfig { drain: Duration::from_secs(5), ..quick() }).await;
    let mut stream = TcpStream::connect(served.addr).await.unwrap();
    stream.write_all(b"GET /api/v1/leader/e/observe HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    until(&mut stream, "event: leader").await;
    // A close of a session that is under way: its second look says that it is over.
    let ended = || Ok((Answer::Session(Err(SessionGone::Ended)), None));
    fake.views.lock().unwrap().extend([Err(wardlock_router::Error::Overloaded), ended()]);
    fake.will(Outcome::Closing);
    let mut busy = TcpStream::connect(served.addr).await.unwrap();
    let close = format!("DELETE /api/v1/sessions/{SESSION} HTTP/1.1\r\nhost: x\r\n\r\n");
    busy.write_all(close.as_bytes()).await.unwrap();
    while fake.asked().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    served.stop.send(()).unwrap();
    let (answer, events) = (rest(&mut busy).await, rest(&mut stream).await);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(events.ends_with("0\r\n\r\n"), "the stream ends as a stream should: {events:?}");
    timeout(Duration::from_secs(2), served.done).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(served.addr).await.is_err());
}

#[tokio::test]
async fn stopping_waits_no_longer_than_it_may() {
    let fake = Fake::new();
    let served = start(&fake, quick()).await;
    let mut waiter = TcpStream::connect(served.addr).await.unwrap();
    let body = format!(r#"{{"sessionId": "{SESSION}", "wait": 60}}"#);
    let head = format!("POST /api/v1/locks/a/acquire HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    waiter.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    while fake.asked().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    served.stop.send(()).unwrap();
    timeout(Duration::from_secs(3), served.done).await.unwrap().unwrap().unwrap();
    assert_eq!(fake.withdrawn.lock().unwrap().len(), 1, "the wait is given up");
}

#[tokio::test]
async fn hanging_up_withdraws_the_waiter() {
    let fake = Fake::new();
    let served = start(&fake, quick()).await;
    let mut waiter = TcpStream::connect(served.addr).await.unwrap();
    let body = format!(r#"{{"sessionId": "{SESSION}", "wait": 60}}"#);
    let head = format!("POST /api/v1/locks/a/acquire HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    waiter.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    while fake.asked().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(waiter);
    let withdrawn = async {
        while fake.withdrawn.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(3), withdrawn).await.expect("the waiter stays in the queue");
}

#[tokio::test]
async fn beyond_loopback_strangers_stay_out() {
    for (addr, allowed) in [
        ("127.0.0.1:80", true),
        ("[::1]:80", true),
        ("[::ffff:127.0.0.1]:80", true),
        ("0.0.0.0:80", false),
        ("[::]:80", false),
        ("10.0.0.1:80", false),
    ] {
        assert_eq!(check(addr.parse().unwrap(), None).is_ok(), allowed, "{addr}");
    }
    let open = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let refused = serve(open, Fake::new().gateway(), std::future::pending(), quick()).await;
    assert!(matches!(refused, Err(ServeError::NeedsTls(_))));

    let authority = Authority::new();
    let (chain, key) = authority.issue("localhost");
    let identity = Identity::from_der(vec![authority.cert()], chain, key).unwrap();
    let tls = MutualTls::new(&identity).unwrap();
    let served = start(&Fake::new(), ServerConfig { tls: Some(tls), ..quick() }).await;
    let (chain, key) = authority.issue("client");
    let known = authority.client().with_client_auth_cert(chain, key).unwrap();
    assert!(ask(known, served.addr).await.unwrap().starts_with("HTTP/1.1 200"));
    let stranger = Authority::new().issue("client");
    let stranger = authority.client().with_client_auth_cert(stranger.0, stranger.1).unwrap();
    assert!(ask(stranger, served.addr).await.is_err());
    assert!(ask(authority.client().with_no_client_auth(), served.addr).await.is_err());
}

async fn ask(config: rustls::ClientConfig, addr: SocketAddr) -> std::io::Result<String> {
    let stream = TcpStream::connect(addr).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

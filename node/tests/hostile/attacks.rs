//! What needs no certificate: datagrams and HTTP.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use quinn::{ClientConfig, crypto::rustls::QuicClientConfig};
use tokio::runtime::Runtime;
use wardlock::certs::{Holder, make_ca};
use wardlock_router::tls::{ALPN, Identity, node_name};

use crate::support::http::begin;

/// How many beginnings of handshakes are prepared. Twice as many as may be under way at once.
const INITIALS: usize = 512;
/// From how many addresses they come.
const SOCKETS: usize = 32;
/// How long the attacker pauses after a few datagrams: a thousand a second are a flood, as fast as one
/// processor can send them would measure who gets the processor.
const PAUSE: Duration = Duration::from_millis(3);

/// Datagrams for the nodes' ports.
pub(crate) struct Flood {
    initials: Vec<Vec<u8>>,
    sockets: Vec<UdpSocket>,
    nodes: Vec<SocketAddr>,
}

impl Flood {
    /// Lets a QUIC client of no authority dial somebody who never answers, and keeps its first words.
    pub(crate) fn prepare(runtime: &Runtime, nodes: &[String]) -> Flood {
        let hour = Duration::from_secs(3_600);
        let authority = make_ca("nobody's", hour).unwrap();
        let own = authority.issue(Holder::Client, hour, &[]).unwrap();
        let trusted = authority.issued().certificate.as_bytes();
        let identity = Identity::from_pem(trusted, own.certificate.as_bytes(), own.key().as_bytes()).unwrap();
        let tls = QuicClientConfig::try_from(identity.client_config(&[ALPN]).unwrap()).unwrap();
        let config = ClientConfig::new(Arc::new(tls));
        let sink = UdpSocket::bind("127.0.0.1:0").unwrap();
        sink.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let address = sink.local_addr().unwrap();
        let mut initials: Vec<Vec<u8>> = Vec::new();
        let _entered = runtime.enter();
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut buffer = [0; 2_000];
        while initials.len() < INITIALS {
            let dialing = endpoint.connect_with(config.clone(), address, &node_name(wardlock_placement::NodeId(1)));
            let length = sink.recv(&mut buffer).unwrap();
            drop(dialing);
            // A long header's type: an Initial, not a repetition of one.
            let is_new = initials.iter().all(|known| known[6..14] != buffer[6..14]);
            if length >= 1_200 && buffer[0] & 0xf0 == 0xc0 && is_new {
                initials.push(buffer[..length].to_vec());
            }
        }
        let sockets = (0..SOCKETS).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        Flood { initials, sockets, nodes: nodes.iter().map(|node| node.parse().unwrap()).collect() }
    }

    /// Sends until it is told to stop; how many it sent.
    pub(crate) fn run(&self, stop: &AtomicBool) -> u64 {
        let mut sent = 0;
        let mut garbage = [0u8; 1_200];
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..3 {
                let number = sent as usize;
                let socket = &self.sockets[number / 7 % SOCKETS];
                let node = self.nodes[number % self.nodes.len()];
                let initial = &self.initials[number / self.nodes.len() % INITIALS];
                // An Initial, the same cut or with a byte changed, and noise that looks like a short header.
                let _ = match number % 5 {
                    0..=2 => socket.send_to(initial, node),
                    3 => {
                        garbage[..1_200].copy_from_slice(&initial[..1_200]);
                        garbage[number * 31 % 1_200] ^= 0x55;
                        socket.send_to(&garbage[..1_200 - number % 900], node)
                    }
                    _ => {
                        garbage
                            .iter_mut()
                            .zip((0..=u8::MAX).cycle())
                            .for_each(|(byte, at)| *byte = at.wrapping_mul(number as u8) | 1);
                        garbage[0] = 0x40 | garbage[0] & 0x3f;
                        socket.send_to(&garbage[..number % 1_200], node)
                    }
                };
                sent += 1;
            }
            std::thread::sleep(PAUSE);
        }
        sent
    }
}

/// Connections that say nothing, that say it slowly, and that say too much. How many there were.
pub(crate) fn http(port: u16, stop: &AtomicBool) -> u64 {
    let connect = || TcpStream::connect(("127.0.0.1", port)).unwrap();
    let idle: Vec<TcpStream> = (0..1_000).map(|_| connect()).collect();
    let mut dripping: Vec<TcpStream> = (0..200).map(|_| connect()).collect();
    dripping.iter_mut().for_each(|stream| {
        let _ = stream.write_all(b"GET /api/v1/locks HTTP/1.1\r\nHost: h\r\n");
    });
    // Bodies that are announced and drip.
    let slow_head = [("content-length", "60000"), ("content-type", "application/json")];
    let mut bodies: Vec<TcpStream> =
        (0..100).map(|_| begin(port, "POST", "/api/v1/sessions", b"", &slow_head).unwrap()).collect();
    // Streams that nobody reads.
    let streams: Vec<TcpStream> =
        (0..50).map(|n| begin(port, "GET", &format!("/api/v1/leader/e{n}/observe"), b"", &[]).unwrap()).collect();
    let mut made = (idle.len() + dripping.len() + bodies.len() + streams.len()) as u64;
    while !stop.load(Ordering::Relaxed) {
        for stream in dripping.iter_mut().chain(&mut bodies) {
            let _ = stream.write_all(b"x");
        }
        for large in oversized() {
            refused(connect(), &large);
            made += 1;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    made
}

/// Requests that are too large in one way each.
fn oversized() -> Vec<Vec<u8>> {
    let post = |more: &str| format!("POST /api/v1/batch HTTP/1.1\r\nHost: h\r\n{more}\r\n");
    let long = "x".repeat(100_000);
    let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    let deep = format!(r#"{{"requests":{deep}}}"#);
    vec![
        format!("GET /api/v1/locks/{long} HTTP/1.1\r\nHost: h\r\n\r\n").into_bytes(),
        post(&format!("X-Long: {long}\r\n")).into_bytes(),
        post(&"X-Many: 1\r\n".repeat(1_000)).into_bytes(),
        post("Content-Length: 10000000\r\n").into_bytes(),
        post("Content-Length: 99999999999999999999\r\n").into_bytes(),
        [post("Transfer-Encoding: chunked\r\n").as_bytes(), &b"fffff\r\n"[..], &[b' '; 70_000]].concat(),
        format!("{}{deep}", post(&format!("Content-Length: {}\r\n", deep.len()))).into_bytes(),
        long.into_bytes(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
    ]
}

/// Sends it, and gets a refusal or nothing; never a success.
fn refused(mut stream: TcpStream, request: &[u8]) {
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    // The other side may have hung up before all was sent.
    if stream.write_all(request).is_err() {
        return;
    }
    let mut answer = [0; 64];
    let Ok(length) = stream.read(&mut answer) else { return };
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer:?}");
}

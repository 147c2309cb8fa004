//! The sockets: questions by UDP and TCP on the same port.
//!
//! All of it is one task, whoever awaits it; it starts none.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    time::{sleep, timeout},
};

use super::{
    Directory,
    answer::{Over, answer},
    zone::Zone,
};

/// The most bytes of a question.
const QUESTION_BYTES: usize = 4_096;
/// The most questions by UDP that are looked up at once. Beyond, they wait in the socket's buffer, or are lost there.
const UDP_AT_ONCE: usize = 512;
/// The most connections. Beyond, new ones are closed.
pub const CONNECTIONS: usize = 128;
/// How long a connection may be silent, or take for one message.
pub const IDLE: Duration = Duration::from_secs(10);
/// How long a socket that fails is left alone.
const PAUSE: Duration = Duration::from_millis(20);
/// How many ports are tried where any will do: one that is free for TCP may be taken for UDP.
const TRIES: usize = 8;

/// Both sockets.
#[derive(Debug)]
pub struct Listener {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Listener {
    /// Listens at an address; at any free port where that is 0.
    pub async fn bind(at: SocketAddr) -> io::Result<Listener> {
        let mut tries = 0;
        loop {
            let tcp = TcpListener::bind(at).await?;
            match UdpSocket::bind(tcp.local_addr()?).await {
                Ok(udp) => return Ok(Listener { udp, tcp }),
                Err(error) if at.port() != 0 || tries >= TRIES || error.kind() != ErrorKind::AddrInUse => {
                    return Err(error);
                }
                Err(_) => tries += 1,
            }
        }
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// Answers until it is dropped.
pub async fn serve<D: Directory>(listener: Listener, zone: Zone, directory: D) {
    tokio::join!(datagrams(&listener.udp, &zone, &directory), connections(&listener.tcp, &zone, &directory));
}

async fn datagrams<D: Directory>(socket: &UdpSocket, zone: &Zone, directory: &D) {
    let mut buffer = vec![0; QUESTION_BYTES];
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(()) = running.next(), if !running.is_empty() => {}
            received = socket.recv_from(&mut buffer), if running.len() < UDP_AT_ONCE => match received {
                Ok((length, from)) => {
                    let bytes = buffer[..length].to_vec();
                    running.push(async move {
                        if let Some(reply) = answer(zone, directory, &bytes, Over::Udp).await {
                            // Whoever does not hear it asks again.
                            let _ = socket.send_to(&reply, from).await;
                        }
                    });
                }
                // Of an earlier datagram, whose asker has gone.
                Err(_) => sleep(PAUSE).await,
            },
        }
    }
}

async fn connections<D: Directory>(listener: &TcpListener, zone: &Zone, directory: &D) {
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(()) = running.next(), if !running.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if running.len() < CONNECTIONS => running.push(converse(stream, zone, directory)),
                Ok(_) => {}
                // No more files, say.
                Err(_) => sleep(PAUSE).await,
            },
        }
    }
}

/// One connection: a question and its answer at a time.
async fn converse<D: Directory>(mut stream: TcpStream, zone: &Zone, directory: &D) {
    let _ = stream.set_nodelay(true);
    loop {
        let Ok(Some(question)) = timeout(IDLE, read(&mut stream)).await else { return };
        let Some(reply) = answer(zone, directory, &question, Over::Tcp).await else { return };
        let Ok(length) = u16::try_from(reply.len()) else { return };
        let message = [&length.to_be_bytes()[..], &reply].concat();
        if !matches!(timeout(IDLE, stream.write_all(&message)).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// `None` at the end, and where too much is announced.
async fn read(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let length = usize::from(stream.read_u16().await.ok()?);
    if length > QUESTION_BYTES {
        return None;
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await.ok()?;
    Some(bytes)
}

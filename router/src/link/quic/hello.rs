//! The first words: who the certificate says one is, and who one says one is.
//!
//! The dialer speaks first, on its urgent stream; the acceptor answers only what it accepts. So a dialer
//! that has heard a hello is connected, and one that is refused hears why.

use bytes::BytesMut;
use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use rustls_pki_types::CertificateDer;
use tokio::io::AsyncReadExt;
use wardlock_placement::NodeId;
use wardlock_wire::{
    Hello, Lane, Message, VERSION,
    frame::{self, Decoder},
};

use super::{
    ConnectError,
    code::{self, Code},
    lane,
};
use crate::tls::peer_node;

/// Both sides' urgent streams, and what has been learned.
pub(super) struct Greeted {
    pub(super) hello: Hello,
    pub(super) sending: SendStream,
    pub(super) receiving: RecvStream,
    /// What has arrived behind the hello.
    pub(super) buffer: BytesMut,
}

/// A refusal of ours: what the peer is told, and what the log is.
pub(super) struct Unacceptable(pub(super) Code, pub(super) String);

/// The node of the peer's verified certificate; `None` for a client.
pub(super) fn certified(connection: &Connection) -> Result<Option<NodeId>, ConnectError> {
    let chain = connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    let own = chain.as_deref().and_then(|chain| chain.first());
    let own = own.ok_or_else(|| ConnectError::Certificate("the peer showed none".into()))?;
    peer_node(own).map_err(|error| ConnectError::Certificate(error.to_string()))
}

/// Greets the node that was dialed.
pub(super) async fn dialed(connection: &Connection, own: &Hello, node: NodeId) -> Result<Greeted, ConnectError> {
    let sending = speak(connection, own).await?;
    let (hello, receiving, buffer) = listen(connection).await?;
    check(connection, &hello, own, Some(node))?;
    Ok(Greeted { hello, sending, receiving, buffer })
}

/// Greets whoever dialed.
pub(super) async fn accepted(
    connection: &Connection,
    own: &Hello,
    node: Option<NodeId>,
) -> Result<Greeted, ConnectError> {
    let (hello, receiving, buffer) = listen(connection).await?;
    check(connection, &hello, own, node)?;
    let sending = speak(connection, own).await?;
    Ok(Greeted { hello, sending, receiving, buffer })
}

async fn speak(connection: &Connection, own: &Hello) -> Result<SendStream, ConnectError> {
    let mut stream = connection.open_uni().await.map_err(ConnectError::from)?;
    let _ = stream.set_priority(lane::priority(Lane::Urgent));
    let mut bytes = BytesMut::from(&[Lane::Urgent as u8][..]);
    frame::encode(&Message::Hello(own.clone()), Lane::Urgent.frame_bytes(), &mut bytes)
        .map_err(|error| ConnectError::Refused(error.to_string()))?;
    match stream.write_all(&bytes).await {
        Ok(()) => Ok(stream),
        Err(error) => Err(ended(connection, &error)),
    }
}

async fn listen(connection: &Connection) -> Result<(Hello, RecvStream, BytesMut), ConnectError> {
    let mut stream = connection.accept_uni().await.map_err(ConnectError::from)?;
    let first = stream.read_u8().await.map_err(|error| ended(connection, &error))?;
    if Lane::from_number(first) != Some(Lane::Urgent) {
        return Err(refuse(connection, Unacceptable(Code::Protocol, "the first stream is not the urgent one".into())));
    }
    let decoder = Decoder::new(Lane::Urgent.frame_bytes());
    let mut buffer = BytesMut::new();
    loop {
        match decoder.next(&mut buffer) {
            Ok(Some(Message::Hello(hello))) => return Ok((hello, stream, buffer)),
            Ok(Some(_)) => {
                let why = "the first message is not a hello".into();
                return Err(refuse(connection, Unacceptable(Code::Protocol, why)));
            }
            Ok(None) => {}
            Err(error) => return Err(refuse(connection, Unacceptable(Code::Protocol, error.to_string()))),
        }
        match stream.read_buf(&mut buffer).await {
            Ok(0) => {
                let why = "the stream ended before the hello".into();
                return Err(refuse(connection, Unacceptable(Code::Protocol, why)));
            }
            Ok(_) => {}
            Err(error) => return Err(ended(connection, &error)),
        }
    }
}

fn check(connection: &Connection, hello: &Hello, own: &Hello, node: Option<NodeId>) -> Result<(), ConnectError> {
    compare(hello, own, node).map_err(|unacceptable| refuse(connection, unacceptable))
}

fn compare(hello: &Hello, own: &Hello, node: Option<NodeId>) -> Result<(), Unacceptable> {
    if hello.version != VERSION {
        let why = format!("versions differ: {} and {VERSION}", hello.version);
        return Err(Unacceptable(Code::Version, why));
    }
    if hello.cluster != own.cluster {
        let why = format!("clusters differ: {:?} and {:?}", hello.cluster, own.cluster);
        return Err(Unacceptable(Code::Cluster, why));
    }
    if hello.node != node {
        let name = |node: Option<NodeId>| node.map_or("a client".to_owned(), |node| format!("node {node}"));
        let why = format!("the hello says {}, the certificate {}", name(hello.node), name(node));
        return Err(Unacceptable(Code::Identity, why));
    }
    Ok(())
}

/// Tells the peer, and the caller.
pub(super) fn refuse(connection: &Connection, Unacceptable(code, why): Unacceptable) -> ConnectError {
    code::close(connection, code, &why);
    ConnectError::Refused(why)
}

/// Why the connection ended under a stream, where it did.
fn ended(connection: &Connection, error: &dyn std::error::Error) -> ConnectError {
    match connection.close_reason() {
        Some(reason) => reason.into(),
        None => ConnectError::Unreachable(error.to_string()),
    }
}

impl From<ConnectionError> for ConnectError {
    fn from(error: ConnectionError) -> ConnectError {
        match error {
            ConnectionError::ApplicationClosed(close) => {
                ConnectError::Refused(String::from_utf8_lossy(&close.reason).into_owned())
            }
            // Codes 0x100 and up are alerts of TLS: one side did not take the other's certificate.
            ConnectionError::TransportError(ref inner) if u64::from(inner.code) & !0xff == 0x100 => {
                ConnectError::Certificate(error.to_string())
            }
            ConnectionError::ConnectionClosed(ref inner) if u64::from(inner.error_code) & !0xff == 0x100 => {
                ConnectError::Certificate(error.to_string())
            }
            ConnectionError::LocallyClosed => ConnectError::Stopping,
            other => ConnectError::Unreachable(other.to_string()),
        }
    }
}

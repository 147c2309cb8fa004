//! One connection: its lanes, its pending calls, and the task that outlives neither.
//!
//! # Promises
//! 1. A connection ends as a whole: when a stream carries what is not the protocol, all of it is closed,
//!    and no other connection notices.
//! 2. At its end every pending call is completed, and then, once, the service hears of it.
//! 3. Only nodes have the lanes of logs and snapshots; a client that opens one is disconnected.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use quinn::{ConnectionError, RecvStream, SendStream};
use tokio::{io::AsyncReadExt, task::JoinSet};
use wardlock_wire::{Body, Lane, Message, frame::Decoder};

use super::{
    ConnectError, Shared,
    accept::Place,
    code::{self, Code},
    hello::Greeted,
    lane::{self, Outgoing},
    settings, silence,
};
use crate::link::{CallError, Peer, PendingReply, Replier, Service, pending::Pending};

/// How much a reader asks for at once.
const READ_BYTES: usize = 32 << 10;
/// An empty receive buffer larger than this is given back.
const KEEP_BYTES: usize = 1 << 20;
/// How long readers may take to deliver what had arrived when the connection ended.
const LAST_WORDS: Duration = Duration::from_millis(200);

pub(super) struct Connection {
    pub(super) peer: Peer,
    /// The peer's process.
    pub(super) boot: u64,
    /// Whether this side dialed.
    pub(super) dialed: bool,
    pub(super) since: Instant,
    quic: quinn::Connection,
    pending: Arc<Pending>,
    lanes: [Option<Arc<Outgoing>>; Lane::ALL.len()],
    /// An accepted client's, given back with the connection.
    _place: Option<Place>,
}

/// Which lanes two ends have.
fn has_lane(between_nodes: bool, lane: Lane) -> bool {
    between_nodes || matches!(lane, Lane::Urgent | Lane::Client)
}

impl Connection {
    /// Opens the remaining lanes, makes the connection known and starts its tasks.
    pub(super) async fn start(
        shared: &Arc<Shared>,
        quic: quinn::Connection,
        peer: Peer,
        dialed: bool,
        greeted: Greeted,
        place: Option<Place>,
    ) -> Result<Arc<Connection>, ConnectError> {
        if peer.node.is_some() {
            settings::trust_with_memory(&quic);
        }
        let between_nodes = peer.node.is_some() && shared.hello.node.is_some();
        let mut lanes = [const { None }; Lane::ALL.len()];
        let mut writers = Vec::with_capacity(Lane::ALL.len());
        let mut urgent = Some(greeted.sending);
        for lane in Lane::ALL.into_iter().filter(|lane| has_lane(between_nodes, *lane)) {
            // The urgent stream is first, and already carries the hello.
            let (stream, announced) = match urgent.take() {
                Some(stream) => (stream, true),
                None => (open(&quic, lane).await?, false),
            };
            let call_bytes = if shared.hello.node.is_some() { lane.frame_bytes() } else { lane.call_bytes() };
            let outgoing = Arc::new(Outgoing::new(lane, call_bytes, quic.clone(), announced));
            writers.push((outgoing.clone(), stream));
            lanes[lane as usize] = Some(outgoing);
        }
        let connection = Arc::new(Connection {
            peer,
            boot: greeted.hello.boot,
            dialed,
            since: Instant::now(),
            quic,
            pending: Pending::new(),
            lanes,
            _place: place,
        });
        shared.table.insert(shared, &connection);
        for (outgoing, stream) in writers {
            shared.writers.spawn_on(lane::write(outgoing, stream), &shared.runtime);
        }
        let running = run(shared.clone(), connection.clone(), greeted.receiving, greeted.buffer);
        shared.runtime.spawn(running);
        Ok(connection)
    }

    /// Asks the peer.
    pub(super) fn call(&self, lane: Lane, body: &Body) -> PendingReply {
        let Some(outgoing) = &self.lanes[lane as usize] else {
            return PendingReply::failed(CallError::NotSent("clients do not speak on this lane".into()));
        };
        let waiting = match self.pending.enter() {
            Ok(waiting) => waiting,
            Err(error) => return PendingReply::failed(error),
        };
        match outgoing.call(waiting.id(), body) {
            Ok(()) => PendingReply::sent(waiting),
            Err(error) => PendingReply::failed(CallError::NotSent(error.to_string())),
        }
    }

    /// Whether calls can be sent.
    pub(super) fn is_open(&self) -> bool {
        self.pending.is_open()
    }

    /// Ends it now.
    pub(super) fn close(&self, code: Code, reason: &str) {
        self.pending.retire();
        code::close(&self.quic, code, reason);
    }

    /// Takes no more calls, and lets what is queued leave.
    pub(super) fn finish(&self) {
        self.pending.retire();
        self.lanes.iter().flatten().for_each(|outgoing| outgoing.finish());
    }

    /// One message has arrived.
    fn dispatch(&self, service: &dyn Service, sink: &Arc<Outgoing>, message: Message) -> Result<(), &'static str> {
        match message {
            Message::Call { id, body } => {
                service.call(&self.peer, body, Replier::new(sink.clone(), id, self.peer.connection));
                Ok(())
            }
            Message::Reply { id, result } => {
                self.pending.complete(id, result.map_err(Into::into));
                Ok(())
            }
            Message::Hello(_) => Err("a second hello"),
        }
    }
}

async fn open(quic: &quinn::Connection, lane: Lane) -> Result<SendStream, ConnectionError> {
    let stream = quic.open_uni().await?;
    let _ = stream.set_priority(lane::priority(lane));
    Ok(stream)
}

/// Runs the connection to its end.
async fn run(shared: Arc<Shared>, connection: Arc<Connection>, urgent: RecvStream, buffer: BytesMut) {
    let mut readers = JoinSet::new();
    let mut seen = [false; Lane::ALL.len()];
    seen[Lane::Urgent as usize] = true;
    readers.spawn(read(shared.clone(), connection.clone(), Lane::Urgent, urgent, buffer));
    // The lane byte is read here, one stream after the other: its opener sends it at once.
    let silent = async {
        match connection.peer.node {
            Some(_) => silence::falls_silent(&connection.quic).await,
            None => std::future::pending().await,
        }
        connection.close(Code::Silent, "it has fallen silent");
        std::future::pending::<()>().await;
    };
    tokio::pin!(silent);
    let ended = loop {
        let accepted = tokio::select! {
            accepted = connection.quic.accept_uni() => accepted,
            () = &mut silent => continue,
        };
        let mut stream = match accepted {
            Ok(stream) => stream,
            Err(ended) => break ended,
        };
        let number = match stream.read_u8().await {
            Ok(number) => number,
            Err(_) => {
                connection.close(Code::Protocol, "a stream without a lane");
                continue;
            }
        };
        match Lane::from_number(number) {
            Some(lane) if connection.lanes[lane as usize].is_some() && !seen[lane as usize] => {
                seen[lane as usize] = true;
                readers.spawn(read(shared.clone(), connection.clone(), lane, stream, BytesMut::new()));
            }
            _ => connection.close(Code::Protocol, "a lane that is not open to this peer"),
        }
    };
    tracing::debug!(peer = ?connection.peer, %ended, "a connection has ended");
    // Readers end by themselves once they have delivered what had arrived.
    let delivered = async { while readers.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(LAST_WORDS, delivered).await;
    readers.shutdown().await;
    shared.table.remove(&connection);
    connection.lanes.iter().flatten().for_each(|outgoing| outgoing.close());
    connection.pending.end();
    shared.service.closed(&connection.peer);
}

/// Reads one lane to its end.
async fn read(shared: Arc<Shared>, connection: Arc<Connection>, lane: Lane, stream: RecvStream, buffer: BytesMut) {
    match frames(&shared, &connection, lane, stream, buffer).await {
        // The peer is stopping: it reads no more calls.
        Ok(()) => connection.pending.retire(),
        Err(why) => {
            if shared.complaints.may_speak() {
                tracing::warn!(peer = ?connection.peer, ?lane, why, "closing a connection that breaks the protocol");
            }
            connection.close(Code::Protocol, &why);
        }
    }
}

/// `Err` only where the peer broke the protocol.
async fn frames(
    shared: &Shared,
    connection: &Connection,
    lane: Lane,
    mut stream: RecvStream,
    mut buffer: BytesMut,
) -> Result<(), String> {
    let Some(sink) = &connection.lanes[lane as usize] else { return Ok(()) };
    // A client is never called, so all that it has to send is calls.
    let limit = if connection.peer.node.is_some() { lane.frame_bytes() } else { lane.call_bytes() };
    let decoder = Decoder::new(limit);
    loop {
        while let Some(message) = decoder.next(&mut buffer).map_err(|error| error.to_string())? {
            connection.dispatch(&*shared.service, sink, message)?;
        }
        if buffer.is_empty() && buffer.capacity() > KEEP_BYTES {
            buffer = BytesMut::new();
        }
        // Grows with what arrives, not with what a frame's length claims.
        buffer.reserve(READ_BYTES);
        match stream.read_buf(&mut buffer).await {
            Ok(0) if buffer.is_empty() => return Ok(()),
            Ok(0) => return Err("the stream ended within a frame".into()),
            // A stream that never runs dry must not keep the thread.
            Ok(_) => tokio::task::consume_budget().await,
            // Reset by the peer, or the connection has ended: neither leaves anything to read.
            Err(_) => return Ok(()),
        }
    }
}

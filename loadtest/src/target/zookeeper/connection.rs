//! One connection to a member: a real session, and any number of requests under way on it.
//!
//! # Promises
//! 1. Requests leave in the order in which they were asked, without waiting for answers; all that wait leave in
//!    one write.
//! 2. A connection that breaks is made anew, to the next member, for the same session; what was under way fails.
//! 3. A request that names its session is sent in that session or not at all.
//! 4. A watch ends when its node changes, and when nobody can tell any more: look again.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    super::{Failure, PATIENCE},
    wire::{self, Identity},
};

/// Requests that wait to be written.
const DEPTH: usize = 4096;
/// Requests in one write.
const BATCH: usize = 256;
/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(100);

/// A request.
struct Ask {
    /// The session that it must be sent in, if that matters.
    session: Option<i64>,
    kind: i32,
    body: Vec<u8>,
    /// Dropped when the node at this path changes.
    watch: Option<(String, oneshot::Sender<()>)>,
    answer: oneshot::Sender<Result<Answer, Failure>>,
}

/// What came back.
pub(super) struct Answer {
    /// [`wire::OK`], or what is wrong.
    pub(super) error: i32,
    pub(super) body: Bytes,
}

/// See the [module](self). A clone is the same connection.
#[derive(Clone)]
pub(super) struct Connection {
    asked: mpsc::Sender<Ask>,
    session: Arc<AtomicI64>,
}

impl Connection {
    /// Starts its task, which ends with the last clone. `addresses` are tried in turn from `first` on.
    pub(super) fn start(addresses: Arc<[String]>, first: usize, ttl: Duration) -> Self {
        let (asked, asks) = mpsc::channel(DEPTH);
        let session = Arc::new(AtomicI64::new(0));
        let timeout_ms = i32::try_from(ttl.as_millis()).unwrap_or(i32::MAX);
        tokio::spawn(run(addresses, first, timeout_ms, asks, Arc::clone(&session)));
        Self { asked, session }
    }

    /// The number of its session; 0 before there is one.
    pub(super) fn session(&self) -> i64 {
        self.session.load(Ordering::Relaxed)
    }

    /// One question, one answer.
    pub(super) async fn ask(&self, session: Option<i64>, kind: i32, body: Vec<u8>) -> Result<Answer, Failure> {
        within(async {
            let answered = self.send(session, kind, body, None).await?;
            receive(answered).await
        })
        .await
    }

    /// Two questions, one behind the other, and both answers.
    pub(super) async fn ask_both(&self, one: (i32, Vec<u8>), other: (i32, Vec<u8>)) -> Result<[Answer; 2], Failure> {
        within(async {
            let one = self.send(None, one.0, one.1, None).await?;
            let other = self.send(None, other.0, other.1, None).await?;
            Ok([receive(one).await?, receive(other).await?])
        })
        .await
    }

    /// Looks at a node; the receiver's sender is dropped when it changes.
    pub(super) async fn watch(&self, path: String) -> Result<(Answer, oneshot::Receiver<()>), Failure> {
        let body = wire::look(&path, true);
        let (changes, changed) = oneshot::channel();
        within(async {
            let answered = self.send(None, wire::GET_DATA, body, Some((path, changes))).await?;
            Ok((receive(answered).await?, changed))
        })
        .await
    }

    async fn send(
        &self,
        session: Option<i64>,
        kind: i32,
        body: Vec<u8>,
        watch: Option<(String, oneshot::Sender<()>)>,
    ) -> Result<Answered, Failure> {
        let (answer, answered) = oneshot::channel();
        let ask = Ask { session, kind, body, watch, answer };
        self.asked.send(ask).await.map_err(|_| Failure::new("connection lost"))?;
        Ok(answered)
    }
}

type Answered = oneshot::Receiver<Result<Answer, Failure>>;

async fn receive(answered: Answered) -> Result<Answer, Failure> {
    answered.await.unwrap_or_else(|_| Err(Failure::new("connection lost")))
}

async fn within<T>(asking: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    timeout(PATIENCE, asking).await.unwrap_or_else(|_| Err(Failure::new("timeout")))
}

/// What is under way on one connection.
#[derive(Default)]
struct UnderWay {
    next: i32,
    /// In the order of their answers.
    asked: VecDeque<(i32, oneshot::Sender<Result<Answer, Failure>>)>,
    watched: HashMap<String, Vec<oneshot::Sender<()>>>,
}

/// Why a connection ended.
enum End {
    /// Nobody will ask any more.
    Closed,
    Broken,
}

async fn run(
    addresses: Arc<[String]>,
    first: usize,
    timeout_ms: i32,
    mut asks: mpsc::Receiver<Ask>,
    session: Arc<AtomicI64>,
) {
    let mut identity = Identity { timeout_ms, ..Identity::default() };
    for number in first.. {
        if let Ok(stream) = timeout(PATIENCE, attach(&addresses[number % addresses.len()], &mut identity)).await
            && let Some(stream) = stream
        {
            session.store(identity.session, Ordering::Relaxed);
            let under_way = Mutex::new(UnderWay::default());
            let (reader, writer) = stream.into_split();
            let end = tokio::select! {
                end = read(reader, &identity, &under_way) => end,
                end = write(writer, &identity, &under_way, &mut asks) => end,
            };
            if matches!(end, End::Closed) {
                return;
            }
            // Dropped with what is under way: whoever waits learns that the connection is lost.
        }
        if asks.is_closed() && asks.is_empty() {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Connects, for the session in `identity` or, where that is gone, a new one.
async fn attach(address: &str, identity: &mut Identity) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let mut buffer = BytesMut::new();
    wire::connect(&mut buffer, identity);
    stream.write_all(&buffer).await.ok()?;
    buffer.clear();
    let frame = loop {
        // Nothing follows the answer until something is asked.
        match wire::next_frame(&mut buffer).ok()? {
            Some(frame) => break frame,
            None if stream.read_buf(&mut buffer).await.ok()? == 0 => return None,
            None => {}
        }
    };
    let connected = wire::connected(frame).ok()?;
    if connected.session == 0 {
        *identity = Identity { timeout_ms: identity.timeout_ms, ..Identity::default() };
        return None;
    }
    *identity = connected;
    Some(stream)
}

async fn write(
    mut writer: OwnedWriteHalf,
    identity: &Identity,
    under_way: &Mutex<UnderWay>,
    asks: &mut mpsc::Receiver<Ask>,
) -> End {
    let idle = Duration::from_millis(u64::try_from(identity.timeout_ms).unwrap_or(0)) / 3;
    let mut batch = Vec::with_capacity(BATCH);
    let mut out = BytesMut::new();
    loop {
        out.clear();
        let closing = match timeout(idle, asks.recv_many(&mut batch, BATCH)).await {
            Err(_) => {
                wire::ping(&mut out);
                false
            }
            Ok(count) => {
                let mut under_way = under_way.lock().unwrap_or_else(PoisonError::into_inner);
                for ask in batch.drain(..) {
                    under_way.begin(ask, identity.session, &mut out);
                }
                count == 0
            }
        };
        if closing {
            wire::request(&mut out, 0, wire::CLOSE, &[]);
        }
        if writer.write_all(&out).await.is_err() {
            return End::Broken;
        }
        if closing {
            return End::Closed;
        }
    }
}

async fn read(mut reader: OwnedReadHalf, identity: &Identity, under_way: &Mutex<UnderWay>) -> End {
    let patience = Duration::from_millis(u64::try_from(identity.timeout_ms).unwrap_or(0)) * 2 / 3;
    let mut buffer = BytesMut::with_capacity(1 << 16);
    loop {
        match timeout(patience, reader.read_buf(&mut buffer)).await {
            Ok(Ok(1..)) => {}
            _ => return End::Broken,
        }
        let mut under_way = under_way.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let taken = match wire::next_frame(&mut buffer) {
                Ok(Some(frame)) => under_way.take(frame),
                Ok(None) => break,
                Err(wire::Malformed) => None,
            };
            if taken.is_none() {
                return End::Broken;
            }
        }
        buffer.reserve(1 << 12);
    }
}

impl UnderWay {
    fn begin(&mut self, ask: Ask, session: i64, out: &mut BytesMut) {
        if ask.session.is_some_and(|asked| asked != session) {
            let _ = ask.answer.send(Ok(Answer { error: wire::SESSION_EXPIRED, body: Bytes::new() }));
            return;
        }
        // Positive, and never 0.
        self.next = self.next.checked_add(1).unwrap_or(1);
        wire::request(out, self.next, ask.kind, &ask.body);
        self.asked.push_back((self.next, ask.answer));
        if let Some((path, changes)) = ask.watch {
            let watching = self.watched.entry(path).or_default();
            // Who stopped waiting left without a word.
            watching.retain(|changes| !changes.is_closed());
            watching.push(changes);
        }
    }

    /// Delivers a frame; `None` where it makes no sense.
    fn take(&mut self, mut frame: Bytes) -> Option<()> {
        let header = wire::header(&mut frame).ok()?;
        match header.xid {
            wire::PING => {}
            wire::NEWS => {
                let path = wire::news(frame).ok()?;
                // Told by being dropped.
                self.watched.remove(std::str::from_utf8(&path).ok()?);
            }
            xid => {
                let (asked, answer) = self.asked.pop_front()?;
                if asked != xid {
                    return None;
                }
                let _ = answer.send(Ok(Answer { error: header.error, body: frame }));
            }
        }
        Some(())
    }
}

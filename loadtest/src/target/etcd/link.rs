//! One connection to a member: calls, a stream of keep-alives, watches.

use std::{collections::VecDeque, time::Duration};

use anyhow::Context;
use futures_util::{StreamExt, stream};
use http::uri::PathAndQuery;
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use super::{
    super::{Failure, PATIENCE},
    wire::{DELETED, Lease, LeaseKept, NO_PUTS, Watch, WatchCreate, Watched},
};

const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
/// Streams of keep-alives: a member answers those of one stream one after the other, and a member that does not
/// lead asks the leader for each.
const STREAMS: usize = 8;
/// Keep-alives on their way on one stream.
const DEPTH: usize = 1024;
/// What may be on its way to us unread, on one stream and on the connection.
const WINDOW: u32 = 1 << 20;

/// Why a call was not answered as hoped.
pub(super) enum Error {
    /// The lease that it names is not there.
    NotFound,
    /// Anything else.
    Failed(Failure),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound => Failure::new("session gone"),
            Error::Failed(failure) => failure,
        }
    }
}

/// See the [module](self). A clone is the same connection.
#[derive(Clone)]
pub(super) struct Link {
    channel: Channel,
    keep_alives: [mpsc::Sender<Ask>; STREAMS],
}

/// A keep-alive: which lease, and who wants to know what is left of it.
type Ask = (i64, oneshot::Sender<Result<bool, Failure>>);

impl Link {
    /// Connects, and starts the tasks of its keep-alives, which end with the last clone.
    pub(super) async fn connect(address: &str) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .with_context(|| format!("{address:?} is no address"))?
            .connect_timeout(PATIENCE)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW);
        let channel = endpoint.connect().await;
        let channel = channel.map_err(|error| anyhow::anyhow!("no etcd answers at {address}: {}", root(&error)))?;
        let keep_alives = std::array::from_fn(|_| {
            let (keep_alives, asked) = mpsc::channel(DEPTH);
            tokio::spawn(keep_alive(channel.clone(), asked));
            keep_alives
        });
        Ok(Self { channel, keep_alives })
    }

    /// One question, one answer.
    pub(super) async fn call<Q, A>(&self, method: &'static str, question: Q) -> Result<A, Failure>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.ask(method, question).await.map_err(Failure::from)
    }

    /// The same where "not found" is an answer.
    pub(super) async fn ask<Q, A>(&self, method: &'static str, question: Q) -> Result<A, Error>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone());
        let call = async {
            grpc.ready().await.map_err(|_| Error::Failed(Failure::new("no node answers")))?;
            let path = PathAndQuery::from_static(method);
            let answer = grpc.unary(Request::new(question), path, ProstCodec::default()).await;
            answer.map(tonic::Response::into_inner).map_err(|status| match status.code() {
                Code::NotFound => Error::NotFound,
                _ => Error::Failed(failure(&status)),
            })
        };
        match tokio::time::timeout(PATIENCE, call).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::Failed(Failure::new("timeout"))),
        }
    }

    /// Begins a lease anew; `false` where it is gone.
    pub(super) async fn keep_alive(&self, lease: i64) -> Result<bool, Failure> {
        let (answer, answered) = oneshot::channel();
        let asking = async {
            // etcd counts up the lower half of the numbers of leases.
            let stream = &self.keep_alives[lease as usize % STREAMS];
            stream.send((lease, answer)).await.ok()?;
            answered.await.ok()
        };
        match tokio::time::timeout(PATIENCE, asking).await {
            Ok(answer) => answer.unwrap_or_else(|| Err(Failure::new("connection lost"))),
            Err(_) => Err(Failure::new("timeout")),
        }
    }

    /// Until a key is deleted, at this revision or later.
    pub(super) async fn deleted(&self, key: String, start_revision: i64) -> Result<(), Failure> {
        let create = Some(WatchCreate { key, start_revision, filters: vec![NO_PUTS] });
        // The server takes the end of our half for the end of the watch: it is kept open.
        let asked = stream::once(std::future::ready(Watch { create })).chain(stream::pending());
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.map_err(|_| Failure::new("no node answers"))?;
        let path = PathAndQuery::from_static(WATCH);
        let codec = ProstCodec::<Watch, Watched>::default();
        let watched = grpc.streaming(Request::new(asked), path, codec).await;
        let mut watched = watched.map_err(|status| failure(&status))?.into_inner();
        while let Some(news) = watched.message().await.map_err(|status| failure(&status))? {
            if news.events.iter().any(|event| event.kind == DELETED) {
                return Ok(());
            }
            if news.canceled {
                return Err(Failure::new("watch cancelled"));
            }
        }
        Err(Failure::new("connection lost"))
    }
}

/// Keeps one stream of keep-alives open while there are any. A member answers them in order.
async fn keep_alive(channel: Channel, mut asked: mpsc::Receiver<Ask>) {
    let mut waiting = VecDeque::new();
    while let Some(first) = asked.recv().await {
        waiting.push_back(first);
        let why = stream_of_them(&channel, &mut asked, &mut waiting).await;
        for (_, answer) in waiting.drain(..) {
            // Who stopped waiting does not want to know.
            let _ = answer.send(Err(why.clone()));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Serves until the stream breaks.
async fn stream_of_them(channel: &Channel, asked: &mut mpsc::Receiver<Ask>, waiting: &mut VecDeque<Ask>) -> Failure {
    // `waiting` never holds more than fit: a send cannot find it full.
    let (send, mut requests) = mpsc::channel(DEPTH);
    for (id, _) in waiting.iter() {
        let _ = send.try_send(Lease { id: *id });
    }
    let mut grpc = Grpc::new(channel.clone());
    if grpc.ready().await.is_err() {
        return Failure::new("no node answers");
    }
    let requests = stream::poll_fn(move |context| requests.poll_recv(context));
    let path = PathAndQuery::from_static(KEEP_ALIVE);
    let codec = ProstCodec::<Lease, LeaseKept>::default();
    // Headers come with the first answer.
    let mut answers = match grpc.streaming(Request::new(requests), path, codec).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return failure(&status),
    };
    loop {
        tokio::select! {
            answer = answers.message() => match answer {
                Ok(Some(LeaseKept { id, ttl_s })) => match waiting.pop_front() {
                    Some((asked_for, answer)) if asked_for == id => drop(answer.send(Ok(ttl_s > 0))),
                    _ => return Failure::new("keep-alives out of order"),
                },
                Ok(None) => return Failure::new("connection lost"),
                Err(status) => return failure(&status),
            },
            ask = asked.recv(), if waiting.len() < DEPTH => {
                let Some(ask) = ask else { return Failure::new("connection closed") };
                let _ = send.try_send(Lease { id: ask.0 });
                waiting.push_back(ask);
            }
        }
    }
}

/// etcd's own words where it has any: they are few and constant.
fn failure(status: &Status) -> Failure {
    match status.message().strip_prefix("etcdserver: ") {
        Some(words) => Failure::new(words),
        None if status.code() == Code::Unavailable => Failure::new("no node answers"),
        None => Failure::new(status.code().description()),
    }
}

/// The innermost cause: those around it say "transport error".
fn root(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

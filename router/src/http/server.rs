//! The gateway's sockets: who may connect, how long they may take, and how it stops.
//!
//! # Promises
//! 1. Beyond loopback it speaks mutual TLS or not at all.
//! 2. A new connection that sends no complete head in [`ServerConfig::header_timeout`] is closed, and so is one
//!    whose TLS handshake takes longer. One that was served before may be silent for
//!    [`ServerConfig::idle_timeout`], the next head included. Bodies have a time of their own in the gateway.
//! 3. There are at most [`ServerConfig::connections`]; further ones wait in the kernel's queue.
//! 4. Once told to stop, it accepts nothing, ends the event streams, lets requests finish for
//!    [`ServerConfig::drain`], then closes what is left.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper::{
    body::Incoming,
    rt::{Sleep, Timer},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{
    rt::TokioIo,
    server::graceful::{GracefulShutdown, Watcher},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{Backend, Gateway};
use crate::tls::{Identity, TlsError};

/// The most bytes of a request's head: the longest name, every byte escaped, and room for headers. Of these
/// hyper takes a hundred; to set another number would cost an allocation for each request.
const HEAD_BYTES: usize = 16 * 1024;

/// How the gateway listens.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Needed beyond loopback.
    pub tls: Option<MutualTls>,
    /// How long the first head, and before it a TLS handshake, may take. 10 s.
    pub header_timeout: Duration,
    /// How long a connection is kept for its next request. Longer spares clients a handshake, shorter frees
    /// the slots of dead ones; less than the header timeout counts as the header timeout. 75 s.
    pub idle_timeout: Duration,
    /// The most connections at once. 4,096.
    pub connections: usize,
    /// How long requests may go on after the order to stop. 10 s.
    pub drain: Duration,
}

impl Default for ServerConfig {
    fn default() -> ServerConfig {
        ServerConfig {
            tls: None,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            connections: 4_096,
            drain: Duration::from_secs(10),
        }
    }
}

/// TLS that asks clients for a certificate and takes none but those of its authority. There is no other way to
/// make one, so holding it proves that strangers stay out.
#[derive(Clone, Debug)]
pub struct MutualTls(Arc<rustls::ServerConfig>);

impl MutualTls {
    /// With this identity, for clients of its authority.
    pub fn new(identity: &Identity) -> Result<MutualTls, TlsError> {
        Ok(MutualTls(Arc::new(identity.server_config(&[b"http/1.1"])?)))
    }
}

/// Why the gateway does not listen.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Anybody could take, break and read every lock.
    #[error("{0} is not loopback: the HTTP gateway listens there only with mutual TLS")]
    NeedsTls(SocketAddr),
    /// The listening socket failed.
    #[error("the gateway's listening socket")]
    Listener(#[from] io::Error),
}

/// Whether the gateway may listen at `addr`. Call it before binding, for an early answer; [`serve`] asks again.
pub fn check(addr: SocketAddr, tls: Option<&MutualTls>) -> Result<(), ServeError> {
    match addr.ip().to_canonical().is_loopback() || tls.is_some() {
        true => Ok(()),
        false => Err(ServeError::NeedsTls(addr)),
    }
}

/// Serves until `shutdown` ends, then drains.
pub async fn serve<B: Backend>(
    listener: TcpListener,
    gateway: Gateway<B>,
    shutdown: impl Future<Output = ()>,
    config: ServerConfig,
) -> Result<(), ServeError> {
    check(listener.local_addr()?, config.tls.as_ref())?;
    let acceptor = config.tls.as_ref().map(|tls| TlsAcceptor::from(Arc::clone(&tls.0)));
    let slots = Arc::new(Semaphore::new(config.connections.min(Semaphore::MAX_PERMITS)));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accept = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (listener.accept().await, slot)
        };
        let (accepted, slot) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Of that connection, or of this process's supply of descriptors: either passes.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let (gateway, acceptor, watcher) = (gateway.clone(), acceptor.clone(), graceful.watcher());
        let patience = Patience::new(&config);
        connections.spawn(async move {
            connection(stream, acceptor, gateway, watcher, patience).await;
            drop(slot);
        });
    }
    drop(listener);
    gateway.stopping().cancel();
    if tokio::time::timeout(config.drain, graceful.shutdown()).await.is_err() {
        tracing::warn!(left = connections.len(), "connections are closed with requests in them");
    }
    connections.shutdown().await;
    Ok(())
}

/// Serves one connection that is open already, to its end, as [`serve`] does those that it accepts.
pub async fn serve_stream<B, S>(stream: S, gateway: Gateway<B>, config: &ServerConfig)
where
    B: Backend,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    exchange(stream, gateway, GracefulShutdown::new().watcher(), Patience::new(config)).await;
}

async fn connection<B: Backend>(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    gateway: Gateway<B>,
    watcher: Watcher,
    patience: Patience,
) {
    // Small answers must not wait for the acknowledgement of earlier ones.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    match acceptor {
        None => exchange(stream, gateway, watcher, patience).await,
        Some(acceptor) => match tokio::time::timeout(patience.first, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => exchange(stream, gateway, watcher, patience).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        },
    }
}

async fn exchange<B, S>(stream: S, gateway: Gateway<B>, watcher: Watcher, patience: Patience)
where
    B: Backend,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (header_timeout, served) = (patience.first, Arc::clone(&patience.served));
    let answer = service_fn(move |request: hyper::Request<Incoming>| {
        served.store(true, Ordering::Relaxed);
        let gateway = gateway.clone();
        async move { Ok::<_, Infallible>(gateway.handle(request).await) }
    });
    let served = http1::Builder::new()
        .timer(patience)
        .header_read_timeout(header_timeout)
        .max_buf_size(HEAD_BYTES)
        // Answers are small: copied together they cost the kernel less than two pieces do.
        .writev(false)
        .serve_connection(TokioIo::new(stream), answer);
    if let Err(error) = watcher.watch(served).await {
        tracing::debug!(%error, "a connection ended badly");
    }
}

/// The timer of one connection: what hyper sets for a head becomes longer once a request was served. hyper
/// itself has one time for both and starts it with the silence before the head.
///
/// hyper sets it anew for each request. The alarm behind it stays where it is while the time that counts only
/// moves away from it, so that a busy connection moves an alarm once in a while and not with each request.
struct Patience {
    alarm: Arc<Alarm>,
    first: Duration,
    more_when_idle: Duration,
    served: Arc<AtomicBool>,
}

impl Patience {
    fn new(config: &ServerConfig) -> Patience {
        let first = config.header_timeout;
        let more_when_idle = config.idle_timeout.saturating_sub(first);
        Patience { alarm: Arc::default(), first, more_when_idle, served: Arc::default() }
    }

    fn more(&self) -> Duration {
        if self.served.load(Ordering::Relaxed) { self.more_when_idle } else { Duration::ZERO }
    }
}

impl Timer for Patience {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(Until { due: (deadline + self.more()).into(), alarm: Arc::clone(&self.alarm) })
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into()
    }
}

/// What wakes the connection, not later than the last point in time that was waited for.
type Alarm = Mutex<Option<Pin<Box<tokio::time::Sleep>>>>;

/// Waits for a point in time. One at a time waits by an alarm.
struct Until {
    due: tokio::time::Instant,
    alarm: Arc<Alarm>,
}

impl Future for Until {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut alarm = self.alarm.lock().unwrap_or_else(PoisonError::into_inner);
        let sleep = alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(self.due)));
        if sleep.deadline() > self.due {
            sleep.as_mut().reset(self.due);
        }
        while sleep.as_mut().poll(context).is_ready() {
            if sleep.deadline() >= self.due {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(self.due);
        }
        Poll::Pending
    }
}

impl Sleep for Until {}

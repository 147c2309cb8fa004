//! The UDP socket, as the QUIC library drives it.
//!
//! A datagram costs a system call to send, and one to receive together with whatever else has arrived. A
//! socket is known to be empty as soon as a read returns fewer datagrams than it had room for, so that no
//! second call has to find that out: of a client, whose datagrams come one by one, that is half of its reads.
//!
//! The poller is asked about reading only. Asked about writing, too, it wakes the thread for each datagram that
//! the kernel has sent and let go of, to say that there is room, which there nearly always is: on a machine
//! that is not busy every second wake-up was one of these. Where there is none, a second registration waits.

use std::{
    fmt,
    future::Future,
    io::{self, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use quinn::{
    AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller,
    udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState},
};
use tokio::io::{Interest, unix::AsyncFd};

/// How long a sender waits for room where the kernel cannot be asked to tell.
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// The tokio runtime, with sockets of this module.
#[derive(Debug)]
pub(super) struct LinkRuntime;

impl Runtime for LinkRuntime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        TokioRuntime.spawn(future);
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let state = UdpSocketState::new((&socket).into())?;
        let io = Arc::new(registered(socket, Interest::READABLE)?);
        Ok(Arc::new(Socket { state, io, full: Arc::default() }))
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

#[derive(Debug)]
struct Socket {
    io: Arc<AsyncFd<UdpSocket>>,
    state: UdpSocketState,
    /// A send found no room since somebody last waited for it.
    full: Arc<AtomicBool>,
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable { io: self.io.clone(), full: self.full.clone(), waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.state.send(self.io.get_ref().into(), transmit);
        if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            self.full.store(true, Relaxed);
        }
        sent
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        about: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        // Fewer than there was room for: that was all.
        let room = buffers.len().min(BATCH_SIZE);
        loop {
            let mut ready = ready!(self.io.poll_read_ready(context))?;
            let mut received = None;
            // "Would block" tells tokio to wait for the kernel's next word. Had a datagram arrived after the
            // read, that word has been given or will be: tokio forgets no readiness that is newer than the
            // one which it saw before this call.
            let _ = ready.try_io(|io| {
                let count = self.state.recv(io.get_ref().into(), buffers, about)?;
                received = Some(count);
                if count < room { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            // Errors on a socket that is connected to nobody are old news of some peer's.
            if let Some(count) = received {
                return Poll::Ready(Ok(count));
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

#[expect(deprecated, reason = "its caution is about types that give their descriptor away: a socket keeps its own")]
fn registered(socket: UdpSocket, interest: Interest) -> io::Result<AsyncFd<UdpSocket>> {
    AsyncFd::with_interest(socket, interest)
}

/// Waits until a datagram may be sent. Nearly always one may, and then this costs a look at a flag.
struct Writable {
    io: Arc<AsyncFd<UdpSocket>>,
    full: Arc<AtomicBool>,
    waiting: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>>,
}

impl UdpPoller for Writable {
    fn poll_writable(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waiting.is_none() && !self.full.load(Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let (io, full) = (self.io.clone(), self.full.clone());
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(room(io, full)));
        let ready = waiting.as_mut().poll(context);
        if ready.is_ready() {
            self.waiting = None;
        }
        ready
    }
}

/// Resolves once the kernel has room. A descriptor of its own is registered for as long as that takes.
async fn room(io: Arc<AsyncFd<UdpSocket>>, full: Arc<AtomicBool>) -> io::Result<()> {
    let own = io.get_ref().try_clone().and_then(|own| registered(own, Interest::WRITABLE));
    // Before the wait: a send that finds no room again says so again.
    full.store(false, Relaxed);
    match own {
        Ok(own) => own.writable().await.map(drop),
        // Out of descriptors: an error would end the connection's driver and leave the connection.
        Err(_) => {
            tokio::time::sleep(FULL_PAUSE).await;
            Ok(())
        }
    }
}

impl fmt::Debug for Writable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Writable").field(&self.io).finish()
    }
}

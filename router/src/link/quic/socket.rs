//! The UDP socket, as the QUIC library drives it.
//!
//! A datagram costs a system call to send, and one to receive together with whatever else has arrived. A
//! socket is known to be empty as soon as a read returns fewer datagrams than it had room for, so that no
//! second call has to find that out: of a client, whose datagrams come one by one, that is half of its reads.

use std::{
    fmt,
    future::Future,
    io::{self, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use quinn::{
    AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller,
    udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState},
};
use tokio::io::Interest;

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
        Ok(Arc::new(Socket { state, io: Arc::new(tokio::net::UdpSocket::from_std(socket)?) }))
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

#[derive(Debug)]
struct Socket {
    io: Arc<tokio::net::UdpSocket>,
    state: UdpSocketState,
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable { io: self.io.clone(), waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.io.try_io(Interest::WRITABLE, || self.state.send((&*self.io).into(), transmit))
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
            ready!(self.io.poll_recv_ready(context))?;
            let mut received = None;
            // "Would block" tells tokio to wait for the kernel's next word. Had a datagram arrived after the
            // read, that word has been given or will be: tokio forgets no readiness that is newer than the
            // one which it saw before this call.
            let _ = self.io.try_io(Interest::READABLE, || {
                let count = self.state.recv((&*self.io).into(), buffers, about)?;
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
        self.io.local_addr()
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

/// Waits until a datagram may be sent. Nearly always one may, and then this costs a look at a flag.
struct Writable {
    io: Arc<tokio::net::UdpSocket>,
    waiting: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>>,
}

impl UdpPoller for Writable {
    fn poll_writable(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waiting.is_none() && self.io.try_io(Interest::WRITABLE, || Ok(())).is_ok() {
            return Poll::Ready(Ok(()));
        }
        let io = self.io.clone();
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(async move { io.writable().await }));
        let ready = waiting.as_mut().poll(context);
        if ready.is_ready() {
            self.waiting = None;
        }
        ready
    }
}

impl fmt::Debug for Writable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Writable").field(&self.io).finish()
    }
}

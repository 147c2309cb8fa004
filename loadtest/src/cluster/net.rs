//! A network between the nodes that can be cut, slowed and made to lose: UDP proxies of our own.
//!
//! Each node advertises a socket of this program's, and everybody, nodes and clients, reaches it by that. A
//! node dials from the socket on which it listens, so that a datagram's source says whose it is; what comes back
//! takes the same way. Thus every datagram goes from one [`End`] to another, and each direction of each pair has
//! a [`Way`] of its own, whichever side has dialed.
//!
//! What the proxies cost is their own thread's. They know nothing of what they carry: QUIC sees a network that
//! loses, delays and reorders, and nothing else. A datagram that would have to wait for room is dropped, as by
//! any router.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context;
use tokio::{net::UdpSocket, sync::mpsc, sync::oneshot, time::Instant};

use crate::workload::Dice;

/// The largest datagram.
const LARGEST: usize = 65_536;
/// How much a socket of ours may hold.
const BUFFER: usize = 4 << 20;
/// So many datagrams are delayed at once; more are dropped.
const DELAYED: usize = 20_000;
/// So many clients one node can have.
const FLOWS: usize = 1_024;

/// Where a datagram comes from or goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    Node(u32),
    /// Whoever is no node.
    Client,
}

/// What happens to datagrams in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Way {
    /// None arrives.
    pub(crate) cut: bool,
    /// All arrive so much later.
    pub(crate) delay: Duration,
    /// And each at random up to so much later again, which changes their order.
    pub(crate) jitter: Duration,
    /// So many percent do not arrive.
    pub(crate) loss: f64,
    /// So many percent arrive twice.
    pub(crate) twice: f64,
}

/// How many datagrams went which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Carried {
    pub(crate) carried: u64,
    pub(crate) dropped: u64,
    pub(crate) delayed: u64,
}

/// The proxies. They end when this is dropped.
#[derive(Debug)]
pub(crate) struct Net {
    shared: Arc<Shared>,
    public: BTreeMap<u32, SocketAddr>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    ways: Mutex<BTreeMap<(End, End), Way>>,
    dice: Mutex<Dice>,
    /// Who listens where.
    nodes: BTreeMap<SocketAddr, u32>,
    carried: AtomicU64,
    dropped: AtomicU64,
    delayed: AtomicU64,
}

impl Net {
    /// Proxies for nodes that will listen at these addresses of loopback.
    ///
    /// # Errors
    /// Where there are no sockets or threads to be had.
    pub(crate) fn start(nodes: &BTreeMap<u32, SocketAddr>, seed: u64) -> anyhow::Result<Net> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut sockets = Vec::new();
        let mut public = BTreeMap::new();
        for (node, listen) in nodes {
            let socket = {
                let _within = runtime.enter();
                bind().context("no socket for a proxy")?
            };
            public.insert(*node, socket.local_addr()?);
            sockets.push((*node, *listen, Arc::new(socket)));
        }
        let shared = Arc::new(Shared {
            ways: Mutex::default(),
            dice: Mutex::new(Dice::new(seed)),
            nodes: nodes.iter().map(|(node, listen)| (*listen, *node)).collect(),
            carried: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            delayed: AtomicU64::new(0),
        });
        let (stop, stopped) = oneshot::channel();
        let carry = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("net".to_owned()).spawn(move || {
            runtime.block_on(async move {
                let (late, queue) = mpsc::channel(DELAYED);
                tokio::spawn(deliver_late(queue, Arc::clone(&carry)));
                for (node, listen, socket) in sockets {
                    tokio::spawn(serve(node, listen, socket, Arc::clone(&carry), late.clone()));
                }
                // It ends with its sender, too.
                let _ = stopped.await;
            });
        })?;
        Ok(Net { shared, public, stop: Some(stop), thread: Some(thread) })
    }

    /// Where everybody reaches a node.
    pub(crate) fn public(&self) -> &BTreeMap<u32, SocketAddr> {
        &self.public
    }

    /// What happens from now on to what goes from one to the other.
    pub(crate) fn set(&self, from: End, to: End, way: Way) {
        self.shared.ways().insert((from, to), way);
    }

    /// Everything arrives again in this direction.
    pub(crate) fn clear(&self, from: End, to: End) {
        self.shared.ways().remove(&(from, to));
    }

    /// What was carried since the beginning.
    pub(crate) fn carried(&self) -> Carried {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Carried {
            carried: of(&self.shared.carried),
            dropped: of(&self.shared.dropped),
            delayed: of(&self.shared.delayed),
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn ways(&self) -> MutexGuard<'_, BTreeMap<(End, End), Way>> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When each copy of a datagram arrives; nothing where it is lost.
    fn fate(&self, from: End, to: End) -> Vec<Duration> {
        let Some(way) = self.ways().get(&(from, to)).copied() else { return vec![Duration::ZERO] };
        let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        if way.cut || dice.percent(way.loss) {
            return Vec::new();
        }
        let copies = if dice.percent(way.twice) { 2 } else { 1 };
        (0..copies).map(|_| way.delay + way.jitter.mul_f64(dice.unit())).collect()
    }

    /// Sends a datagram on, now or later or not at all.
    fn pass(&self, from: End, to: End, parcel: &Parcel<'_>, late: &mpsc::Sender<Late>) {
        let fate = self.fate(from, to);
        if fate.is_empty() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        for after in fate {
            if after.is_zero() {
                self.send(parcel);
            } else {
                self.delayed.fetch_add(1, Ordering::Relaxed);
                let (socket, bytes) = (Arc::clone(parcel.socket), parcel.bytes.to_vec());
                let late_one = Late { due: Instant::now() + after, socket, to: parcel.to, bytes };
                if late.try_send(late_one).is_err() {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn send(&self, parcel: &Parcel<'_>) {
        let sent = match parcel.to {
            Some(to) => parcel.socket.try_send_to(parcel.bytes, to),
            None => parcel.socket.try_send(parcel.bytes),
        };
        // A node that is down has no socket; a full one is a router's full queue.
        let count = if sent.is_ok() { &self.carried } else { &self.dropped };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// A datagram and the socket that sends it on, to its only peer unless somebody is named.
struct Parcel<'a> {
    socket: &'a Arc<UdpSocket>,
    to: Option<SocketAddr>,
    bytes: &'a [u8],
}

struct Late {
    due: Instant,
    socket: Arc<UdpSocket>,
    to: Option<SocketAddr>,
    bytes: Vec<u8>,
}

fn bind() -> anyhow::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    // The kernel caps these; smaller ones lose a little more.
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, BUFFER);
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(&socket, BUFFER);
    socket.set_nonblocking(true)?;
    Ok(UdpSocket::from_std(socket)?)
}

/// Carries what comes to a node's public socket, and what the node answers.
async fn serve(node: u32, listen: SocketAddr, public: Arc<UdpSocket>, shared: Arc<Shared>, late: mpsc::Sender<Late>) {
    let mut flows: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut buffer = vec![0; LARGEST];
    loop {
        // An error speaks of an earlier datagram, to somebody who is gone.
        let Ok((length, source)) = public.recv_from(&mut buffer).await else { continue };
        let from = shared.nodes.get(&source).map_or(End::Client, |node| End::Node(*node));
        if !flows.contains_key(&source) {
            if flows.len() >= FLOWS {
                continue;
            }
            let Ok(flow) = bind() else { continue };
            if flow.connect(listen).await.is_err() {
                continue;
            }
            let flow = Arc::new(flow);
            let back = (Arc::clone(&flow), Arc::clone(&public), source);
            tokio::spawn(answer(End::Node(node), from, back, Arc::clone(&shared), late.clone()));
            flows.insert(source, flow);
        }
        let flow = &flows[&source];
        shared.pass(from, End::Node(node), &Parcel { socket: flow, to: None, bytes: &buffer[..length] }, &late);
    }
}

/// Carries what a node sends to one other.
async fn answer(
    from: End,
    to: End,
    (flow, public, source): (Arc<UdpSocket>, Arc<UdpSocket>, SocketAddr),
    shared: Arc<Shared>,
    late: mpsc::Sender<Late>,
) {
    let mut buffer = vec![0; LARGEST];
    loop {
        let Ok(length) = flow.recv(&mut buffer).await else { continue };
        shared.pass(from, to, &Parcel { socket: &public, to: Some(source), bytes: &buffer[..length] }, &late);
    }
}

/// Sends each delayed datagram when it is due; those that are due together in the order in which they came.
async fn deliver_late(mut queue: mpsc::Receiver<Late>, shared: Arc<Shared>) {
    let mut waiting: BinaryHeap<Reverse<(Instant, u64)>> = BinaryHeap::new();
    let mut parcels: HashMap<u64, Late> = HashMap::new();
    let mut number = 0;
    loop {
        let next = waiting.peek().map(|Reverse((due, _))| *due);
        let room = parcels.len() < DELAYED;
        tokio::select! {
            came = queue.recv(), if room => match came {
                Some(late) => {
                    number += 1;
                    waiting.push(Reverse((late.due, number)));
                    parcels.insert(number, late);
                }
                None => return,
            },
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                while let Some(Reverse((due, number))) = waiting.peek().copied() {
                    if due > Instant::now() {
                        break;
                    }
                    waiting.pop();
                    if let Some(Late { socket, to, bytes, .. }) = parcels.remove(&number) {
                        shared.send(&Parcel { socket: &socket, to, bytes: &bytes });
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two nodes that are plain sockets, and a client.
    struct Three {
        net: Net,
        nodes: Vec<std::net::UdpSocket>,
        client: std::net::UdpSocket,
    }

    const SOON: Duration = Duration::from_millis(400);

    fn socket() -> std::net::UdpSocket {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket
    }

    impl Three {
        fn new() -> Three {
            let nodes = vec![socket(), socket()];
            let listen = (1..).zip(nodes.iter().map(|node| node.local_addr().unwrap())).collect();
            Three { net: Net::start(&listen, 1).unwrap(), nodes, client: socket() }
        }

        /// Whether node 1 reaches node 2, and the answer node 1: all is as expected, or soon is.
        fn asks(&self, expected: (bool, bool)) {
            self.asks_from(&self.nodes[0], expected);
        }

        /// A machine that is busy with other things may be late.
        fn asks_from(&self, from: &std::net::UdpSocket, expected: (bool, bool)) {
            let mut tried = Vec::new();
            while tried.len() < 20 && tried.last() != Some(&expected) {
                tried.push(self.asks_once(from));
            }
            assert_eq!(tried.last(), Some(&expected), "{tried:?}");
        }

        fn asks_once(&self, from: &std::net::UdpSocket) -> (bool, bool) {
            let mut buffer = [0; 100];
            from.send_to(b"question", self.net.public()[&2]).unwrap();
            let Ok((length, source)) = self.nodes[1].recv_from(&mut buffer) else { return (false, false) };
            assert_eq!(&buffer[..length], b"question");
            self.nodes[1].send_to(b"answer", source).unwrap();
            let Ok((_, answered)) = from.recv_from(&mut buffer) else { return (true, false) };
            assert_eq!(answered, self.net.public()[&2], "as from where it was asked");
            (true, true)
        }
    }

    #[test]
    fn each_direction_is_cut_by_itself_whoever_has_dialed() {
        let three = Three::new();
        let (one, two) = (End::Node(1), End::Node(2));
        let cut = Way { cut: true, ..Way::default() };
        three.asks((true, true));
        three.net.set(one, two, cut);
        three.asks((false, false));
        three.asks_from(&three.client, (true, true));
        three.net.clear(one, two);
        three.net.set(two, one, cut);
        three.asks((true, false));
        three.net.clear(two, one);
        three.net.set(two, End::Client, cut);
        three.asks_from(&three.client, (true, false));
        three.asks((true, true));
        assert!(three.net.carried().dropped >= 3, "{:?}", three.net.carried());
    }

    #[test]
    fn delay_keeps_the_order_and_jitter_does_not() {
        let three = Three::new();
        let mut buffer = [0; 8];
        let mut arrive = |way: Way, count: u8| {
            three.net.set(End::Client, End::Node(1), way);
            let began = std::time::Instant::now();
            for n in 0..count {
                three.client.send_to(&[n], three.net.public()[&1]).unwrap();
            }
            let mut came = Vec::new();
            while let Ok((1, _)) = three.nodes[0].recv_from(&mut buffer) {
                came.push((buffer[0], began.elapsed()));
            }
            came
        };
        let delay = Duration::from_millis(60);
        let came = arrive(Way { delay, ..Way::default() }, 50);
        assert!(came.iter().map(|(n, _)| *n).eq(0..50), "{came:?}");
        assert!(came.iter().all(|(_, at)| *at >= delay), "{came:?}");

        let came = arrive(Way { jitter: delay, ..Way::default() }, 50);
        assert_eq!(came.len(), 50);
        assert!(!came.iter().map(|(n, _)| *n).is_sorted(), "{came:?}");

        let came = arrive(Way { loss: 50.0, twice: 50.0, ..Way::default() }, 200);
        assert!((90..220).contains(&came.len()), "{}", came.len());
        assert!(came.windows(2).any(|pair| pair[0].0 == pair[1].0), "some come twice");
    }
}

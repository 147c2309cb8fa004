//! The link without a network: for tests and for a whole cluster on one thread.
//!
//! A [`Hub`] delivers between the services attached to it, through the real frames, in order for each
//! pair, after a delay by tokio's clock: with the clock paused, a run takes no time and repeats exactly.
//! Its [`Weather`] delays messages, loses them, delivers them twice or out of order, by chance from a seed; and
//! any two parties can be cut off from one another, or a node's messages held back.
//!
//! A lost or cut-off message shows as on a real network: its caller hears [`CallError::Lost`] after
//! [`Hub::set_lost_after`], not knowing on which way it went missing. There is no TLS here: parties are
//! who they were attached as.

mod delivery;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::sync::{mpsc, watch};
use wardlock_placement::NodeId;
use wardlock_wire::{Body, Lane, Message, Refusal, Response, frame};

use super::{CallError, Peer, PendingReply, ReplySink, Service, Transport, local, pending::Pending};
use delivery::{Call, Parcel};

/// How many messages may be under way from one party to another.
const UNDER_WAY: usize = 1 << 16;
/// How much later a message comes a second time, at the most.
const AGAIN: Duration = Duration::from_secs(2);

/// Who is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Party {
    Node(NodeId),
    /// By its connection's number.
    Client(u64),
}

/// Delivers between those attached to it.
#[derive(Clone)]
pub struct Hub(Arc<Mutex<State>>);

/// How messages fare between any two parties.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// How long each is under way, at the least.
    pub delay: Duration,
    /// How much longer it may be.
    pub jitter: Duration,
    /// Of a million, how many get lost.
    pub lost_ppm: u32,
    /// Of a million, how many come twice, the second time up to two seconds later.
    pub twice_ppm: u32,
    /// Whether one may overtake another.
    pub reorders: bool,
}

struct State {
    attached: BTreeMap<Party, Attached>,
    links: BTreeMap<(Party, Party), mpsc::Sender<Parcel>>,
    /// The calls that wait, by who asks whom. Ends when either does.
    waiting: BTreeMap<(Party, Party), Arc<Pending>>,
    cuts: BTreeSet<(NodeId, NodeId)>,
    held: BTreeSet<NodeId>,
    /// Clients that are cut off, by their connection.
    muted: BTreeSet<u64>,
    /// Rises whenever held messages may go on.
    released: watch::Sender<()>,
    weather: Weather,
    lost_after: Duration,
    random: StdRng,
    connections: u64,
}

#[derive(Clone)]
struct Attached {
    connection: u64,
    service: Option<Arc<dyn Service>>,
}

impl Default for Hub {
    fn default() -> Hub {
        Hub::new()
    }
}

impl Hub {
    /// A hub without delay, loss or cuts.
    pub fn new() -> Hub {
        Hub(Arc::new(Mutex::new(State {
            attached: BTreeMap::new(),
            links: BTreeMap::new(),
            waiting: BTreeMap::new(),
            cuts: BTreeSet::new(),
            held: BTreeSet::new(),
            muted: BTreeSet::new(),
            released: watch::Sender::new(()),
            weather: Weather::default(),
            lost_after: Duration::from_secs(4),
            random: StdRng::seed_from_u64(0),
            connections: 1 << 32,
        })))
    }

    /// Attaches a node's service; what is returned asks in this node's name. A node that was attached
    /// before is detached: it has restarted.
    pub fn attach(&self, node: NodeId, service: Arc<dyn Service>) -> Arc<dyn Transport> {
        self.detach(node);
        let mut state = self.lock();
        state.connections += 1;
        let connection = state.connections;
        self.add(state, Party::Node(node), connection, Some(service))
    }

    /// Attaches a client: it asks nodes, which see it as this connection.
    pub fn attach_client(&self, connection: u64) -> Arc<dyn Transport> {
        self.detach_client(connection);
        self.add(self.lock(), Party::Client(connection), connection, None)
    }

    fn add(
        &self,
        mut state: MutexGuard<'_, State>,
        party: Party,
        connection: u64,
        service: Option<Arc<dyn Service>>,
    ) -> Arc<dyn Transport> {
        state.attached.insert(party, Attached { connection, service });
        Arc::new(Attachment { hub: self.clone(), party, connection, own: Pending::new() })
    }

    /// The node's process ends: its calls are lost, calls to it too, and the others hear of it.
    pub fn detach(&self, node: NodeId) {
        self.drop_party(Party::Node(node), Some(node));
    }

    /// The client's connections end.
    pub fn detach_client(&self, connection: u64) {
        self.drop_party(Party::Client(connection), None);
    }

    /// Nothing passes between these nodes any more, in either direction.
    pub fn cut(&self, a: NodeId, b: NodeId) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    /// Nothing passes from `from` to `to` any more.
    pub fn cut_one_way(&self, from: NodeId, to: NodeId) {
        self.lock().cuts.insert((from, to));
    }

    /// Nothing passes to or from this client until [`Hub::unmute_client`] or [`Hub::heal`].
    pub fn mute_client(&self, connection: u64) {
        self.lock().muted.insert(connection);
    }

    /// The client is heard again.
    pub fn unmute_client(&self, connection: u64) {
        self.lock().muted.remove(&connection);
    }

    /// Holds all messages to and from this node back until [`Hub::heal`], in order; none is lost.
    pub fn hold(&self, node: NodeId) {
        self.lock().held.insert(node);
    }

    /// Ends every cut, lets held messages go on, and loses, doubles and reorders nothing more.
    pub fn heal(&self) {
        let mut state = self.lock();
        state.cuts.clear();
        state.held.clear();
        state.muted.clear();
        state.weather = Weather { delay: state.weather.delay, ..Weather::default() };
        state.released.send_replace(());
    }

    /// How messages fare from now on.
    pub fn set_weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    /// What chance is drawn from, from now on.
    pub fn set_seed(&self, seed: u64) {
        self.lock().random = StdRng::seed_from_u64(seed);
    }

    /// After how long a caller hears that a message went missing.
    pub fn set_lost_after(&self, lost_after: Duration) {
        self.lock().lost_after = lost_after;
    }

    fn drop_party(&self, party: Party, node: Option<NodeId>) {
        let (gone, others, waiting) = {
            let mut state = self.lock();
            let Some(gone) = state.attached.remove(&party) else { return };
            state.links.retain(|(from, to), _| *from != party && *to != party);
            let mut waiting = Vec::new();
            state.waiting.retain(|(from, to), pending| {
                let stays = *from != party && *to != party;
                if !stays {
                    waiting.push(pending.clone());
                }
                stays
            });
            (gone, state.attached.values().filter_map(|other| other.service.clone()).collect::<Vec<_>>(), waiting)
        };
        waiting.iter().for_each(|pending| pending.end());
        for service in others {
            service.closed(&Peer { node, connection: gone.connection });
        }
    }

    /// Where the calls of one party to another wait, if both are attached.
    fn waiting(&self, from: Party, connection: u64, to: Party) -> Result<Arc<Pending>, CallError> {
        let mut state = self.lock();
        if state.attached.get(&from).is_none_or(|me| me.connection != connection) || !state.attached.contains_key(&to) {
            return Err(CallError::NotSent(format!("no connection to {to:?}")));
        }
        Ok(state.waiting.entry((from, to)).or_insert_with(Pending::new).clone())
    }

    /// Sends a message, or says why it cannot leave.
    fn send(&self, from: Party, to: Party, lane: Lane, message: &Message, call: Call) -> Result<(), CallError> {
        let mut bytes = bytes::BytesMut::new();
        frame::encode(message, lane.frame_bytes(), &mut bytes)
            .map_err(|error| CallError::NotSent(error.to_string()))?;
        let mut state = self.lock();
        let Weather { delay, jitter, reorders, .. } = state.weather;
        let extra = if jitter.is_zero() { jitter } else { state.random.random_range(Duration::ZERO..=jitter) };
        let parcel =
            Parcel { due: tokio::time::Instant::now() + delay + extra, reorders, again: false, lane, bytes, call };
        let link = state.links.entry((from, to)).or_insert_with(|| delivery::start(self, from, to));
        link.try_send(parcel).map_err(|_| CallError::NotSent("the queue to this node is full".into()))
    }

    /// What becomes of a message that is due.
    fn fate(&self, from: Party, to: Party) -> Fate {
        let mut state = self.lock();
        if let (Party::Node(from), Party::Node(to)) = (from, to)
            && state.cuts.contains(&(from, to))
        {
            return Fate::Lost;
        }
        let muted = |party| matches!(party, Party::Client(connection) if state.muted.contains(&connection));
        if muted(from) || muted(to) {
            return Fate::Lost;
        }
        let Weather { lost_ppm, twice_ppm, .. } = state.weather;
        if state.chance(lost_ppm) {
            return Fate::Lost;
        }
        if state.chance(twice_ppm) {
            return Fate::ComesAgain { after: state.random.random_range(Duration::ZERO..=AGAIN) };
        }
        Fate::Comes
    }

    /// Whether messages between these two are held back, and what tells of their release.
    fn held(&self, from: Party, to: Party) -> Option<watch::Receiver<()>> {
        let state = self.lock();
        let held = |party| matches!(party, Party::Node(node) if state.held.contains(&node));
        (held(from) || held(to)).then(|| state.released.subscribe())
    }

    fn attached(&self, party: Party) -> Option<Attached> {
        self.lock().attached.get(&party).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What becomes of a message.
enum Fate {
    Lost,
    Comes,
    /// It comes now, and once more.
    ComesAgain {
        after: Duration,
    },
}

impl State {
    fn chance(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.random.random_range(0..1_000_000) < ppm
    }
}

/// One party's way to ask.
struct Attachment {
    hub: Hub,
    party: Party,
    connection: u64,
    /// A node's calls to itself.
    own: Arc<Pending>,
}

impl Attachment {
    fn ask(&self, to: NodeId, lane: Lane, body: Body) -> Result<PendingReply, CallError> {
        let pending = self.hub.waiting(self.party, self.connection, Party::Node(to))?;
        let waiting = pending.enter()?;
        let id = waiting.id();
        let sent = self.hub.send(self.party, Party::Node(to), lane, &Message::Call { id, body }, Call { pending, id });
        sent.map(|()| PendingReply::sent(waiting))
    }
}

impl Transport for Attachment {
    fn call(&self, to: NodeId, lane: Lane, body: Body) -> PendingReply {
        if self.party == Party::Node(to)
            && let Some(service) = self.hub.attached(self.party).and_then(|me| me.service)
        {
            return local::call(&*service, &self.own, to, body);
        }
        self.ask(to, lane, body).unwrap_or_else(PendingReply::failed)
    }
}

/// The way back of one call.
struct WayBack {
    hub: Hub,
    from: Party,
    to: Party,
    lane: Lane,
    pending: Arc<Pending>,
}

impl ReplySink for WayBack {
    fn reply(&self, id: u64, result: Result<Response, Refusal>) {
        let call = Call { pending: self.pending.clone(), id };
        // The connection that the call came by may have ended, and another begun.
        if self.pending.is_open()
            && self.hub.send(self.from, self.to, self.lane, &Message::Reply { id, result }, call.clone()).is_err()
        {
            delivery::lose(&self.hub, call);
        }
    }
}

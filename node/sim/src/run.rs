//! One run from one seed: a cluster and its clients, faults for a while, then healing, and then everything must be
//! well within a bound.

use std::{sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    runtime::RngSeed,
    sync::watch,
    time::{Instant, sleep},
};
use wardlock::config::Timing;
use wardlock_machine::Name;
use wardlock_placement::NodeId;
use wardlock_router::{Client, Connected};

use crate::{
    checks::End,
    clients::{self, Life, Phase, diners, observers, stale, watchers},
    clock::Drifting,
    cluster::{Cluster, Shape},
    event::Event,
    faults::{Injector, Mix},
    world::{Record, World},
};

/// How long the cluster may take to become well when all faults have ended: elections, the clients' silence
/// timeout, and the balancing of leaders.
const WELL_WITHIN: Duration = Duration::from_secs(30);
/// How long all goes on without faults: before the first, at the most, and after the last.
const CALM: Duration = Duration::from_secs(8);
/// How long leaders may take to spread.
const SPREAD: Duration = Duration::from_secs(15);
/// How long silent clients' leases may last: the longest TTL, lease and lock-delay, and a full TTL more for a
/// leader that is new; then the shards are told.
const SILENCE: Duration = Duration::from_secs(30);
/// How long a node is alone before it comes back.
const ALONE: Duration = Duration::from_secs(4);
/// How long one call may take when all is well.
const PATIENCE: Duration = Duration::from_secs(5);

/// What runs have in common.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How many nodes; by default the seed decides.
    pub nodes: Option<u32>,
    /// How long faults are done.
    pub faults_for: Duration,
    /// Whether the trace is kept.
    pub traced: bool,
}

/// Runs a seed on this thread, and answers what happened and how long it was, in simulated time.
pub fn run(seed: u64, settings: &Settings) -> (Record, Duration) {
    let mut random = StdRng::seed_from_u64(seed);
    wardlock_router::random::seed(random.random());
    let chance = RngSeed::from_bytes(&random.random::<[u8; 16]>());
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).rng_seed(chance).build();
    runtime.expect("a runtime without I/O").block_on(async {
        let begun = Instant::now();
        let record = story(&mut random, settings).await;
        (record, begun.elapsed())
    })
}

async fn story(random: &mut StdRng, settings: &Settings) -> Record {
    let world = Arc::new(World::new(settings.traced));
    let nodes = settings.nodes.unwrap_or_else(|| if random.random_bool(0.7) { 3 } else { 5 });
    let shape = Shape { nodes, shards: random.random_range(1..=5), timing: timing(random) };
    let mix = Mix::draw(random);
    world.note(&format!("{shape:?} {mix:?}"));
    let mut cluster = Cluster::new(shape, Arc::clone(&world), random);
    let mut injector = Injector::new(&cluster);
    cluster.hub.set_seed(random.random());
    for node in 1..=nodes {
        cluster.start(NodeId(node)).await;
    }
    let operator = operator(&cluster);
    if !well(&cluster, true).await || operator.ready(PATIENCE).await.is_err() {
        world.wrong(format!("the cluster does not come up: {}", told(&cluster)));
        return world.finish(&End::default());
    }
    world.tell(Event::Well);

    let phase = watch::Sender::new(Phase::Busy);
    let names = random.random_range(3..=12);
    let life = |number, random: &mut StdRng| Life {
        number,
        hub: cluster.hub.clone(),
        seeds: cluster.seeds().collect(),
        names,
        world: Arc::clone(&world),
        phase: phase.subscribe(),
        random: StdRng::seed_from_u64(random.random()),
        connection: 0,
    };
    for number in 1..=random.random_range(3..=8) {
        tokio::spawn(clients::live(life(number, random)));
    }
    for number in 101..=102 {
        tokio::spawn(observers::look_on(life(number, random)));
    }
    for number in 201..=202 {
        tokio::spawn(observers::observe(life(number, random)));
    }
    for number in 301..=302 {
        tokio::spawn(watchers::watch(life(number, random)));
    }
    for number in 401..=402 {
        tokio::spawn(stale::read(life(number, random)));
    }
    for number in 501..=503 {
        tokio::spawn(diners::dine(life(number, random)));
    }
    sleep(Duration::from_millis(random.random_range(2_000..CALM.as_millis() as u64))).await;
    trouble(&mut injector, &mut cluster, &world, &mix, settings.faults_for, random).await;

    injector.heal(&mut cluster, &world, random).await;
    world.tell(Event::Healed);
    let healed = Instant::now();
    if !well(&cluster, false).await {
        world.wrong(format!("not well {WELL_WITHIN:?} after the last fault: {}", told(&cluster)));
        return world.finish(&End::default());
    }
    world.count("ms to heal", healed.elapsed().as_millis() as u64);
    world.tell(Event::Well);
    sleep(CALM).await;
    phase.send_replace(Phase::Still);
    sleep(SPREAD).await;
    let mut end = End::default();
    if !well(&cluster, true).await {
        world.wrong(format!("not well again: {}", told(&cluster)));
        return world.finish(&end);
    }
    cluster.look(&mut end);
    world.tell(Event::Well);
    for number in 0..names {
        let name = clients::name(number);
        match clients::read(&operator, &world, &name, PATIENCE).await {
            Some(holders) => drop(end.reads.insert(name, holders)),
            None => world.wrong(format!("{name} cannot be read when all is well")),
        }
    }
    for number in 0..clients::paths::PATHS {
        let path = clients::paths::path(number);
        if clients::paths::read(&operator, &world, &path, PATIENCE).await.is_none() {
            world.wrong(format!("{path} cannot be read when all is well"));
        }
    }
    for number in 0..clients::instances::SERVICES {
        let service = clients::instances::service(number);
        if !clients::instances::list(&operator, &world, &service, PATIENCE).await {
            world.wrong(format!("{service} cannot be listed when all is well"));
        }
    }
    probe(&operator, &world).await;
    absence(&mut injector, &cluster, &world, random).await;
    phase.send_replace(Phase::Silent);
    sleep(SILENCE).await;
    cluster.left(&mut end);
    world.finish(&end)
}

/// Near and far from each other: an old leader that is cut off may serve for as long as the longest election.
fn timing(random: &mut StdRng) -> Timing {
    let heartbeat = random.random_range(60..=200);
    let shortest = heartbeat + random.random_range(heartbeat / 8..=2 * heartbeat);
    let longest = shortest + heartbeat * random.random_range(1..=6);
    let [heartbeat, election_min, election_max] = [heartbeat, shortest, longest].map(Duration::from_millis);
    Timing { heartbeat, election_min, election_max }
}

/// Faults, one after the other, some of them over before the next.
async fn trouble(
    injector: &mut Injector,
    cluster: &mut Cluster,
    world: &World,
    mix: &Mix,
    length: Duration,
    random: &mut StdRng,
) {
    let until = world.at() + length;
    while world.at() < until && !world.is_wrong() {
        let kind = mix.kinds[random.random_range(0..mix.kinds.len())];
        injector.strike(kind, cluster, world, random).await;
        let pause = mix.pause.mul_f64(random.random_range(0.0..2.0));
        let next = world.at() + pause;
        while world.at() < next {
            sleep(Duration::from_millis(100).min(next - world.at())).await;
            injector.tend(cluster, world, random).await;
        }
        if random.random_range(0..3) == 0 {
            injector.calm(cluster);
        }
    }
}

/// Waits until the cluster is well, for so long at the most.
async fn well(cluster: &Cluster, quiet: bool) -> bool {
    let until = Instant::now() + WELL_WITHIN;
    while Instant::now() < until {
        if cluster.is_well(quiet) {
            return true;
        }
        sleep(Duration::from_millis(50)).await;
    }
    false
}

/// One node is alone for a while: it must not raise its term meanwhile, or it would depose the leaders when it comes
/// back.
async fn absence(injector: &mut Injector, cluster: &Cluster, world: &World, random: &mut StdRng) {
    let alone = NodeId(random.random_range(1..=cluster.shape.nodes));
    injector.isolate(alone, cluster);
    sleep(ALONE).await;
    let led = cluster.led();
    for (group, term) in cluster.terms(alone) {
        match led.get(&group) {
            Some((_, led)) if term <= *led => {}
            led => world.wrong(format!("node {alone} is alone and in term {term} of group {group}, led by {led:?}")),
        }
    }
    injector.calm(cluster);
    world.count("absences", 1);
}

/// Whoever looks from outside.
fn operator(cluster: &Cluster) -> Client {
    let transport = cluster.hub.attach_client((1 << 20) + 1);
    Client::with_clock(Arc::new(Connected(transport)), cluster.seeds(), Arc::new(Drifting::new(0)))
}

/// Writes in every part of the name space: each must succeed.
async fn probe(client: &Client, world: &World) {
    let session = match client.session("operator").ttl(Duration::from_secs(5)).open().await {
        Ok(session) => session,
        Err(error) => return world.wrong(format!("no session can be opened when all is well: {error}")),
    };
    for number in 0..12 {
        let name = format!("probe/{number}");
        assert!(Name::new(&name).is_ok(), "a probe's name is valid");
        match session.lock(&name).acquire().await {
            Ok(guard) => match guard.release().await {
                Ok(()) => world.count("probes", 1),
                Err(error) => world.wrong(format!("{name} cannot be released when all is well: {error}")),
            },
            Err(error) => world.wrong(format!("{name} cannot be acquired when all is well: {error}")),
        }
    }
    if let Err(error) = session.close().await {
        world.wrong(format!("a session cannot be closed when all is well: {error}"));
    }
}

/// Each node's groups, for people.
fn told(cluster: &Cluster) -> String {
    let nodes = cluster.hosts().map(|(node, host)| {
        let groups = host.status().groups;
        let groups: Vec<String> = groups
            .iter()
            .map(|g| {
                format!(
                    "{}: leader {:?} term {} applied {:?} of {:?}",
                    g.group, g.leader, g.term, g.applied, g.last_log
                )
            })
            .collect();
        format!("node {node}: {}", groups.join(", "))
    });
    nodes.collect::<Vec<_>>().join("; ")
}

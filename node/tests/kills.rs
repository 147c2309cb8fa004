//! Nothing acknowledged is lost: nodes are killed without warning while clients work, one at a time and
//! all three at once, and what the clients were told is compared with what is there afterwards.
//!
//! Each worker has names of its own, so its record is exact: the last answered acquire or release of a
//! name says what must be there. An operation whose answer was lost is repeated with the same request id
//! until it is answered; only then does the worker go on.

mod support;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use wardlock_machine::{
    Acquire, Answer, Command, Holder, Key, LockId, Metadata, Millis, Mode, Name, Outcome, Query, SessionId, Token,
};
use wardlock_router::Client;

const WORKERS: usize = 12;
const NAMES: usize = 8;
const ROUNDS: u64 = 20;
/// Longer than any outage here: no lease may end while the record says that it is held.
const TTL: Millis = Millis(600_000);

/// What a worker was told last about one of its names.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    held: Option<LockId>,
    last_token: Token,
}

type Record = Arc<Mutex<BTreeMap<Key, Told>>>;

#[test]
fn acknowledged_grants_and_releases_survive_kills() {
    let mut dev = support::Dev::start(&["--processes", "--shards", "8"]);
    assert_eq!(dev.nodes.len(), 3, "three processes were announced: {:?}", dev.said);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let record = Record::default();
    let (pause, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (answered, idle) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let client = runtime.block_on(connect(&dev));
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let (client, record) = (client.clone(), Arc::clone(&record));
            let (pause, stop) = (Arc::clone(&pause), Arc::clone(&stop));
            let (answered, idle) = (Arc::clone(&answered), Arc::clone(&idle));
            runtime.spawn(async move { work(worker, client, record, &pause, &stop, &answered, &idle).await })
        })
        .collect();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..ROUNDS {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let before = answered.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(200 + (seed >> 33) % 700));
        let victims: Vec<u32> = match round % 4 {
            3 => vec![1, 2, 3],
            _ => vec![1 + ((seed >> 20) % 3) as u32],
        };
        for victim in &victims {
            dev.kill(*victim);
        }
        std::thread::sleep(Duration::from_millis((seed >> 40) % 1_500));
        for victim in &victims {
            dev.restart(*victim);
        }
        // Work goes on before the next blow.
        let until = Instant::now() + Duration::from_secs(30);
        while answered.load(Ordering::Relaxed) < before + 200 {
            assert!(Instant::now() < until, "round {round}: no progress after {victims:?} were killed and restarted");
            std::thread::sleep(Duration::from_millis(20));
        }
        if round % 4 == 3 {
            pause.store(true, Ordering::SeqCst);
            while idle.load(Ordering::SeqCst) < WORKERS as u64 {
                std::thread::sleep(Duration::from_millis(5));
            }
            runtime.block_on(compare(&client, &record));
            pause.store(false, Ordering::SeqCst);
        }
    }
    stop.store(true, Ordering::SeqCst);
    runtime.block_on(async {
        for worker in workers {
            worker.await.unwrap();
        }
        compare(&client, &record).await;
    });
    let total = answered.load(Ordering::Relaxed);
    println!("{total} answers over {ROUNDS} rounds of kills, all accounted for");
    assert!(total > 2_000, "only {total} operations: too few to prove anything");
    drop(client);
    assert!(dev.stop().success());
}

async fn connect(dev: &support::Dev) -> Client {
    let seeds: Vec<String> = (1..=3).map(|n| format!("127.0.0.1:{}", dev.port + n)).collect();
    Client::builder().certs(dev.certs()).connect(seeds).await.unwrap()
}

/// Repeats with the same request id until there is an answer.
async fn insist(client: &Client, command: Command) -> Outcome {
    loop {
        match client.write(command.clone(), Duration::from_secs(5)).await {
            Ok(outcome) => return outcome,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn work(
    worker: usize,
    client: Client,
    record: Record,
    pause: &AtomicBool,
    stop: &AtomicBool,
    answered: &AtomicU64,
    idle: &AtomicU64,
) {
    let session = client.new_session_id();
    let holder = Holder { client_id: format!("worker-{worker}"), ttl: TTL, metadata: Metadata::new() };
    let opened = insist(&client, Command::OpenSession { session, holder }).await;
    assert!(matches!(opened, Outcome::Opened { .. }), "{opened:?}");
    for turn in 0_usize.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        if pause.load(Ordering::SeqCst) {
            idle.fetch_add(1, Ordering::SeqCst);
            while pause.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            idle.fetch_sub(1, Ordering::SeqCst);
        }
        let name = Name::new(&format!("kills/{worker}/{}", turn % NAMES)).unwrap();
        let key = if turn % NAMES < 2 { Key::election(name) } else { Key::lock(name) };
        let told = record.lock().unwrap().get(&key).copied().unwrap_or_default();
        let told = match told.held {
            None => acquire(&client, session, &key, told).await,
            Some(lock_id) => {
                let request = client.random_request();
                let outcome = insist(&client, Command::Release { request, key: key.clone(), lock_id }).await;
                assert_eq!(outcome, Outcome::Released, "{key:?} was granted as {lock_id} and never released");
                Told { held: None, ..told }
            }
        };
        record.lock().unwrap().insert(key, told);
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

async fn acquire(client: &Client, session: SessionId, key: &Key, told: Told) -> Told {
    let command = Command::Acquire(Acquire {
        session,
        request: client.random_request(),
        key: key.clone(),
        mode: Mode::Exclusive,
        lease: None,
        wait: Millis(0),
        priority: 0,
        lock_delay: Millis(0),
        metadata: Metadata::new(),
        value: matches!(key.kind, wardlock_machine::Kind::Election).then(|| "candidate".to_owned()),
    });
    match insist(client, command).await {
        Outcome::Granted(grant) => {
            assert!(grant.lock_id.token > told.last_token, "tokens rise: {told:?}, then {grant:?}");
            Told { held: Some(grant.lock_id), last_token: grant.lock_id.token }
        }
        other => panic!("{key:?} is nobody else's: {other:?}"),
    }
}

/// Everything that was acknowledged is there, and nothing else.
async fn compare(client: &Client, record: &Record) {
    let record = record.lock().unwrap().clone();
    for (key, told) in record {
        let query = Query::Object { key: key.clone() };
        let answer = loop {
            match client.read(query.clone(), Duration::from_secs(5)).await {
                Ok(answer) => break answer,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let Answer::Object(object) = answer else { panic!("{answer:?}") };
        let holders: Vec<LockId> = object.iter().flat_map(|o| o.holders.iter().map(|grant| grant.lock_id)).collect();
        assert_eq!(holders, Vec::from_iter(told.held), "{key:?} is not as it was acknowledged: {told:?}");
    }
}

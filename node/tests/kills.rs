//! Nothing acknowledged is lost: nodes are killed without warning while clients work, one at a time and
//! all three at once, and what the clients were told is compared with what is there afterwards.
//!
//! Each worker has names of its own, so its record is exact: the last answered acquire or release of a
//! name says what must be there. An operation whose answer was lost is repeated with the same request id
//! until it is answered; only then does the worker go on.
//!
//! Beside them contenders take turns on a few names by the library's own guards, and count how many are
//! inside at once.

mod support;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use wardlock_machine::{
    Acquire, Answer, Command, Holder, Key, LockId, Metadata, Millis, Name, Outcome, Query, SessionId, Token,
};
use wardlock_router::Client;

const WORKERS: usize = 12;
const NAMES: usize = 8;
const ROUNDS: u64 = 20;
/// How many answers there must be before the next blow.
const PROGRESS: u64 = 100;
/// Who take turns, and on how many names.
const CONTENDERS: usize = 6;
const SHARED: usize = 2;
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
    let dir = tempfile::tempdir().unwrap();
    let mut dev = support::Dev::start(dir.path(), &["--processes", "--shards", "8"]);
    assert_eq!(dev.nodes.len(), 3, "three processes were announced: {:?}", dev.said);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let record = Record::default();
    let (pause, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (answered, idle) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let client = runtime.block_on(connect(&dev, dir.path()));
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let (client, record) = (client.clone(), Arc::clone(&record));
            let (pause, stop) = (Arc::clone(&pause), Arc::clone(&stop));
            let (answered, idle) = (Arc::clone(&answered), Arc::clone(&idle));
            runtime.spawn(async move { work(worker, client, record, &pause, &stop, &answered, &idle).await })
        })
        .collect();
    let shared: Arc<[Turnstile; SHARED]> = Arc::default();
    let contenders: Vec<_> = (0..CONTENDERS)
        .map(|contender| {
            let (client, shared, stop) = (client.clone(), Arc::clone(&shared), Arc::clone(&stop));
            runtime.spawn(async move { contend(contender, client, &shared, &stop).await })
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
        let healthy = answered.load(Ordering::Relaxed) - before;
        for victim in &victims {
            dev.kill(*victim);
        }
        std::thread::sleep(Duration::from_millis((seed >> 40) % 1_500));
        for victim in &victims {
            dev.restart(*victim);
        }
        let (restarted, between) = (Instant::now(), answered.load(Ordering::Relaxed) - before - healthy);
        // Work goes on before the next blow.
        let until = Instant::now() + Duration::from_secs(30);
        while answered.load(Ordering::Relaxed) < before + PROGRESS {
            assert!(Instant::now() < until, "round {round}: no progress after {victims:?} were killed and restarted");
            std::thread::sleep(Duration::from_millis(20));
        }
        println!(
            "round {round}: {healthy} answers, {victims:?} killed, {between} answers, restarted, {PROGRESS} in all after {:?}",
            restarted.elapsed()
        );
        if round % 4 == 3 {
            pause.store(true, Ordering::SeqCst);
            support::wait_until("the workers pause", Duration::from_secs(60), || {
                idle.load(Ordering::SeqCst) == WORKERS as u64
            });
            runtime.block_on(compare(&client, &record));
            pause.store(false, Ordering::SeqCst);
            support::wait_until("the workers go on", Duration::from_secs(60), || idle.load(Ordering::SeqCst) == 0);
        }
    }
    stop.store(true, Ordering::SeqCst);
    runtime.block_on(async {
        for task in workers.into_iter().chain(contenders) {
            task.await.unwrap();
        }
        compare(&client, &record).await;
    });
    let total = answered.load(Ordering::Relaxed);
    let turns: Vec<u64> = shared.iter().map(|name| name.turns.load(Ordering::Relaxed)).collect();
    println!("{total} answers over {ROUNDS} rounds of kills, all accounted for; turns on shared names: {turns:?}");
    assert!(total > ROUNDS * PROGRESS, "only {total} operations: too few to prove anything");
    assert!(turns.iter().all(|turns| *turns > 100), "too few turns to prove anything: {turns:?}");
    drop(client);
    assert!(dev.stop().success());
}

async fn connect(dev: &support::Dev, dir: &Path) -> Client {
    Client::builder().cluster("dev").certs(dir.join("certs")).connect(dev.seeds()).await.unwrap()
}

/// A name that several clients want, as seen by those who got it.
#[derive(Default)]
struct Turnstile {
    inside: AtomicU64,
    turns: AtomicU64,
    last_token: AtomicU64,
}

/// Takes turns by guards, which the library gives back and gives up by itself where an answer is lost.
async fn contend(contender: usize, client: Client, shared: &[Turnstile; SHARED], stop: &AtomicBool) {
    let session = loop {
        match client.session(format!("contender-{contender}")).ttl(Duration::from_millis(TTL.0)).open().await {
            Ok(session) => break session,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    for turn in contender.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let at = turn % SHARED;
        let name = format!("shared/{at}");
        let Ok(guard) = session.lock(&name).wait(Duration::from_secs(5)).acquire().await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let before = shared[at].inside.fetch_add(1, Ordering::SeqCst);
        assert_eq!(before, 0, "{name} has two holders, one of them by {}", guard.fencing_token());
        let last = shared[at].last_token.swap(guard.fencing_token().0, Ordering::SeqCst);
        assert!(last < guard.fencing_token().0, "{name}: {} was granted after {last}", guard.fencing_token());
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert!(guard.is_held(), "{name}: nothing ended {}", guard.fencing_token());
        shared[at].turns.fetch_add(1, Ordering::Relaxed);
        shared[at].inside.fetch_sub(1, Ordering::SeqCst);
        // Where this fails, the session's end ends it, or the next turn finds it already held.
        let _ = guard.release().await;
    }
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
        value: matches!(key.kind, wardlock_machine::Kind::Election).then(|| "candidate".to_owned()),
        ..Acquire::new(session, client.random_request(), key.clone())
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

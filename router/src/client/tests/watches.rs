//! Watches, over shards whose machines are real.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};
use wardlock_machine::*;
use wardlock_placement::{GroupId, NodeId, hash_name};
use wardlock_wire::{Op, Response};

use super::fake::*;
use crate::client::{Client, Watch, WatchError, WatchToken, Watched};

const SHARDS: u32 = 4;

/// How long a held question is held here where nothing happens.
const HELD: Duration = Duration::from_millis(20);

struct Shards {
    machines: Mutex<Vec<Machine>>,
    requests: Mutex<u128>,
}

impl Shards {
    fn new() -> Arc<Shards> {
        let machine = || {
            let mut machine = Machine::new();
            let (epoch, incarnation) = (RangeEpoch(1), Incarnation(7));
            let range = Command::SetRange { first: 0, last: u64::MAX, epoch, incarnation };
            machine.follow(Term(1), batch(range));
            machine
        };
        Arc::new(Shards { machines: Mutex::new((0..SHARDS).map(|_| machine()).collect()), requests: Mutex::new(0) })
    }

    fn put(&self, path: &str) {
        let mut requests = self.requests.lock().unwrap();
        *requests += 1;
        let name = Name::new(path).unwrap();
        let content = Content { content_type: "t/t".into(), value: Blob::new(path.as_bytes()) };
        let (change, request) = (Change::Put(content), *requests);
        let put = Command::Configure(Configure { request, key: Key::config(name), change, expected: None });
        self.machines.lock().unwrap()[shard_of(path) as usize - 1].follow(Term(1), batch(put));
    }

    fn answer(&self, group: GroupId, op: &Op) -> Reply {
        let (query, held) = match op {
            Op::Read(query) => (query, Duration::ZERO),
            Op::Marked(query) => {
                let machine = &self.machines.lock().unwrap()[group.0 as usize - 1];
                let (revision, answer) = (machine.revision(), machine.query(query));
                return Reply::After(Duration::from_millis(1), Ok(Response::Marked { revision, answer }));
            }
            Op::Watch { query, .. } => (query, HELD),
            other => panic!("no watch asks this: {other:?}"),
        };
        let answer = self.machines.lock().unwrap()[group.0 as usize - 1].query(query);
        match &answer {
            Answer::Events(Ok(page)) if page.events.is_empty() => Reply::After(held, Ok(Response::Answer(answer))),
            _ => Reply::After(Duration::from_millis(1), Ok(Response::Answer(answer))),
        }
    }

    async fn client(self: &Arc<Shards>) -> (Client, Arc<Fake>) {
        let shards = Arc::clone(self);
        let fake = Fake::new(map(1, SHARDS), move |_, group, op| shards.answer(group, op));
        (fake.client().await, fake)
    }
}

fn batch(command: Command) -> Batch {
    Batch { at: Stamp(0), wall: WallMs(0), epoch: RangeEpoch(1), commands: vec![command] }
}

fn shard_of(name: &str) -> u32 {
    let map = map(1, SHARDS);
    let hash = hash_name(&map.hash_key, name);
    let owns = |group: &wardlock_placement::Group| group.range.is_some_and(|r| (r.first..=r.last).contains(&hash));
    map.groups.iter().find(|(_, group)| owns(group)).expect("every hash has a shard").0.0
}

fn told(watched: &Watched) -> (String, u64) {
    let What::Configured { version, .. } = &watched.event.what else { panic!("{watched:?}") };
    (watched.event.key.name.to_string(), version.0)
}

/// Takes events until there are none for a while.
async fn drain(watch: &mut Watch) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    while let Ok(next) = timeout(Duration::from_secs(2), watch.next()).await {
        all.push(told(&next.expect("no gap")));
    }
    all
}

/// Every version of every path once, in order.
fn assert_whole(told: &[(String, u64)], paths: usize, versions: u64) {
    for path in 0..paths {
        let path = format!("p/{path}");
        let seen: Vec<u64> = told.iter().filter(|(of, _)| *of == path).map(|(_, version)| *version).collect();
        assert_eq!(seen, (1..=versions).collect::<Vec<_>>(), "of {path}");
    }
    assert_eq!(told.len() as u64, paths as u64 * versions);
}

#[tokio::test(start_paused = true)]
async fn a_watch_over_all_shards_tells_every_change_once_and_in_order() {
    let shards = Shards::new();
    let (client, _) = shards.client().await;
    shards.put("p/0-before");
    let mut watch = client.watch().prefix(Kind::Config, "p/").open().await.unwrap();
    let writer = async {
        for _ in 0..50 {
            for path in 0..10 {
                shards.put(&format!("p/{path}"));
                shards.put("q/other");
            }
            sleep(Duration::from_millis(3)).await;
        }
    };
    let (_, all) = tokio::join!(writer, drain(&mut watch));
    assert_whole(&all, 10, 50);
}

/// What changed before its shard's part of the list was read is in the list, what changed after is told.
#[tokio::test(start_paused = true)]
async fn a_watch_since_a_lists_token_tells_what_happened_behind_it_and_nothing_else() {
    let shards = Shards::new();
    let (client, _) = shards.client().await;
    (0..40).for_each(|path| shards.put(&format!("p/{path}")));
    shards.put("q/other");
    let list = |after: Option<&str>| Query::Configs { prefix: "p/".into(), after: after.map(str::to_owned), limit: 25 };
    let Ok((Answer::Configs(first), token)) = client.page_with_token(list(None), Duration::from_secs(5)).await else {
        panic!("no page");
    };
    let unmarked = client.configs("p/", None, 25, Duration::from_secs(5)).await.unwrap();
    assert_eq!((&first, first.len()), (&unmarked, 25));
    // Those between the pages are told by the first page's token, whatever the second has of them.
    shards.put("p/7");
    let last = first.last().map(|view| view.path.as_str());
    let Ok((Answer::Configs(second), later)) = client.page_with_token(list(last), Duration::from_secs(5)).await else {
        panic!("no page");
    };
    assert_eq!((second.len(), later == token), (15, false));
    (0..40).step_by(3).for_each(|path| shards.put(&format!("p/{path}")));
    shards.put("q/other");
    let mut watch = client.watch().prefix(Kind::Config, "p/").since(token).open().await.unwrap();
    let mut all = drain(&mut watch).await;
    all.sort();
    let mut expected: Vec<_> = (0..40).step_by(3).map(|path| (format!("p/{path}"), 2)).collect();
    expected.push(("p/7".to_owned(), 2));
    expected.sort();
    assert_eq!(all, expected);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_list_has_no_token() {
    let shards = Shards::new();
    let (client, fake) = shards.client().await;
    let query = Query::Object { key: key("a") };
    assert!(client.page_with_token(query, Duration::from_secs(1)).await.is_err());
    assert!(fake.ops().is_empty(), "nobody is asked");
}

/// More than its queue holds comes while it does not look: it loses nothing, and another is not held up.
#[tokio::test(start_paused = true)]
async fn a_watch_that_is_slow_loses_nothing_and_delays_no_other() {
    let shards = Shards::new();
    let (client, _) = shards.client().await;
    let mut slow = client.watch().prefix(Kind::Config, "p/").open().await.unwrap();
    let mut quick = client.watch().prefix(Kind::Config, "").open().await.unwrap();
    let (mut some, mut all) = (Vec::new(), Vec::new());
    for round in 0..3 {
        for _ in 0..100 {
            (0..10).for_each(|path| shards.put(&format!("p/{path}")));
        }
        all.extend(drain(&mut quick).await);
        assert_whole(&all, 10, 100 * (round + 1));
        // Now and then it takes a few.
        for _ in 0..7 {
            some.push(told(&slow.next().await.unwrap()));
        }
    }
    some.extend(drain(&mut slow).await);
    assert_whole(&some, 10, 300);
}

/// Tokens are taken at any moment; what was told before one and what is told since make the whole.
#[tokio::test(start_paused = true)]
async fn a_token_resumes_where_it_was_taken() {
    let shards = Shards::new();
    let (client, _) = shards.client().await;
    let (mut all, mut token) = (Vec::new(), None::<WatchToken>);
    for round in 0..60 {
        let (client, _) = if round % 7 == 0 {
            shards.client().await
        } else {
            (client.clone(), Fake::new(map(1, 1), |_, _, _| Reply::Never))
        };
        let mut builder = client.watch().prefix(Kind::Config, "p/");
        if let Some(token) = token.take() {
            builder = builder.since(token.to_string().parse().expect("its own text"));
        }
        let mut watch = builder.open().await.unwrap();
        // Some writes are seen live, some are read.
        for put in 0..20 {
            shards.put(&format!("p/{}", put % 5));
            if put % 3 == round % 3 {
                sleep(Duration::from_millis(round)).await;
            }
            if put % 4 == round % 4
                && let Ok(next) = timeout(Duration::from_millis(round % 5), watch.next()).await
            {
                all.push(told(&next.unwrap()));
            }
        }
        if round % 10 == 9 {
            all.extend(drain(&mut watch).await);
        }
        token = Some(watch.token());
    }
    let mut watch = client.watch().prefix(Kind::Config, "p/").since(token.unwrap()).open().await.unwrap();
    all.extend(drain(&mut watch).await);
    assert_whole(&all, 5, 240);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_longer_kept_is_said_and_the_watch_goes_on_behind_it() {
    let shards = Shards::new();
    let (client, _) = shards.client().await;
    let mut watch = client.watch().name(Kind::Config, "p/0").open().await.unwrap();
    let token = watch.token();
    shards.put("p/0");
    assert_eq!(told(&watch.next().await.unwrap()), ("p/0".into(), 1));
    // It looks away for longer than the shard keeps events.
    for _ in 0..limits::EVENTS / 100 + 10 {
        (0..100).for_each(|_| shards.put("p/0"));
        sleep(Duration::from_millis(30)).await;
    }
    let mut last = 1;
    let resume = loop {
        match watch.next().await {
            Ok(next) => {
                assert_eq!(told(&next).1, last + 1, "without a hole, up to the gap");
                last += 1;
            }
            Err(WatchError::Compacted { resume }) => break resume,
            Err(other) => panic!("{other}"),
        }
    };
    let now = (limits::EVENTS / 100 + 10) as u64 * 100 + 1;
    assert!(last < now - limits::EVENTS as u64);
    shards.put("p/0");
    assert_eq!(told(&watch.next().await.unwrap()).1, now + 1, "it goes on behind the gap");
    let mut resumed = client.watch().name(Kind::Config, "p/0").since(resume).open().await.unwrap();
    assert_eq!(told(&resumed.next().await.unwrap()).1, now + 1, "and so does another, by the token");
    let again = client.watch().name(Kind::Config, "p/0").since(token).open().await;
    assert!(matches!(again, Err(WatchError::Compacted { .. })), "an old token is told at once");
}

#[tokio::test(start_paused = true)]
async fn tokens_that_fit_nothing_are_refused() {
    let shards = Shards::new();
    let (client, _) = shards.client().await;
    let one = client.watch().name(Kind::Config, "p/0").open().await.unwrap().token();
    let wide = client.watch().prefix(Kind::Config, "p/").since(one.clone()).open().await;
    assert!(matches!(wide, Err(WatchError::Token(_))), "{wide:?}");

    let mut ahead = one.clone();
    ahead.positions.values_mut().for_each(|at| at.0 += 1);
    let ahead = client.watch().name(Kind::Config, "p/0").since(ahead).open().await;
    assert!(matches!(ahead, Err(WatchError::Token(_))), "{ahead:?}");

    let older = WatchToken { incarnation: Incarnation(6), ..one };
    let older = client.watch().name(Kind::Config, "p/0").since(older).open().await;
    assert!(matches!(older, Err(WatchError::Compacted { .. })), "{older:?}");

    for wrong in [
        client.watch(),
        client.watch().name(Kind::Lock, ""),
        client.watch().prefix(Kind::Lock, "x".repeat(limits::NAME_BYTES + 1)),
        (0..=limits::PATTERNS).fold(client.watch(), |watch, n| watch.name(Kind::Lock, n.to_string())),
    ] {
        assert!(matches!(wrong.open().await, Err(WatchError::Malformed(_))));
    }
}

/// Many watches cost a shard no more than one, those of one name ask its shard alone, and nobody asks when nobody
/// watches.
#[tokio::test(start_paused = true)]
async fn a_shard_is_asked_once_for_all_and_only_while_somebody_watches() {
    let shards = Shards::new();
    let (client, fake) = shards.client().await;
    let held = |since: Instant| -> Vec<(NodeId, usize)> {
        let calls = fake.calls.lock().unwrap();
        let polls = calls.iter().filter(|(at, ..)| *at >= since).filter_map(|(_, node, op)| match op {
            Op::Watch { query: Query::Events { patterns, .. }, .. } => Some((*node, patterns.len())),
            _ => None,
        });
        polls.collect()
    };
    let tagged = client.watch().prefix(Kind::Config, "{p}/").open().await.unwrap();
    let mut watches = vec![tagged];
    for n in 0..200 {
        // They are polled, so that they attach.
        let mut watch = client.watch().name(Kind::Config, format!("{{p}}/{n}")).open().await.unwrap();
        assert!(timeout(Duration::from_millis(1), watch.next()).await.is_err());
        watches.push(watch);
    }
    assert!(timeout(Duration::from_millis(1), watches[0].next()).await.is_err());
    let since = Instant::now();
    sleep(HELD * 10).await;
    let polls = held(since);
    assert!((9..=12).contains(&polls.len()), "{} polls in ten times the length of one", polls.len());
    assert!(polls.iter().all(|(_, patterns)| *patterns == 1), "so many names are asked for by their kind");

    shards.put("{p}/7");
    for index in [0, 8] {
        assert_eq!(told(&watches[index].next().await.unwrap()), ("{p}/7".into(), 1));
    }
    assert!(timeout(Duration::from_millis(100), watches[9].next()).await.is_err(), "another name's");
    drop(watches);
    sleep(HELD).await;
    let since = Instant::now();
    sleep(HELD * 10).await;
    assert_eq!(held(since), []);
}

//! What a command and a query cost, by kind: wall time over working sets that do not fit the cache.
//!
//! ```text
//! cargo run --release -p wardlock-machine --example apply -- [MACHINES [SESSIONS [NAMES [ROUNDS]]]]
//! ```
//!
//! Names are spread over the machines, as a node's shards are; every session is attached to each of them.
//! Each kind has a function of its own that is never inlined, so that counts of instructions, which do not
//! drift as times do, can be had by kind: under `valgrind --tool=callgrind`, inclusive, divided by the
//! number of commands printed.

use std::hint::black_box;

use wardlock_machine::*;

/// Commands in one log entry.
const BATCH: usize = 8;

/// A fixed sequence of numbers that jump about.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % end as u64) as usize
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }
}

struct Shards {
    machines: Vec<Machine>,
    now: u64,
}

/// The log entries to apply, each with its machine.
type Entries = Vec<(usize, Vec<Command>)>;

impl Shards {
    fn new(machines: usize) -> Shards {
        let mut shards = Shards { machines: (0..machines).map(|_| Machine::new()).collect(), now: 1 };
        let range = Command::SetRange { first: 0, last: u64::MAX, epoch: RangeEpoch(1), incarnation: Incarnation(1) };
        shards.apply((0..machines).map(|shard| (shard, vec![range.clone()])).collect());
        shards
    }

    #[inline(always)]
    fn apply(&mut self, entries: Entries) -> Vec<Outcome> {
        let mut all = Vec::new();
        for (shard, commands) in entries {
            self.now += 1;
            let machine = &mut self.machines[shard];
            let (at, wall, epoch) = (Stamp(self.now / 64), WallMs(1_700_000_000_000 + self.now), machine.epoch());
            let mut effects = Effects::default();
            machine.apply(Term(1), Batch { at, wall, epoch, commands }, &mut all, &mut effects);
            black_box(effects);
        }
        all
    }

    /// The same entries where nobody asks for the answers.
    #[inline(always)]
    fn follow(&mut self, entries: Entries) {
        for (shard, commands) in entries {
            self.now += 1;
            let machine = &mut self.machines[shard];
            let (at, wall, epoch) = (Stamp(self.now / 64), WallMs(1_700_000_000_000 + self.now), machine.epoch());
            machine.follow(Term(1), Batch { at, wall, epoch, commands });
        }
    }

    #[inline(never)]
    fn follow_acquire(&mut self, entries: Entries) {
        black_box("follow_acquire");
        self.follow(entries);
    }

    #[inline(never)]
    fn follow_renew(&mut self, entries: Entries) {
        black_box("follow_renew");
        self.follow(entries);
    }

    #[inline(never)]
    fn follow_release(&mut self, entries: Entries) {
        black_box("follow_release");
        self.follow(entries);
    }

    #[inline(never)]
    fn pend(&mut self, entries: Entries) -> Vec<Outcome> {
        black_box("pend");
        self.apply(entries)
    }

    #[inline(never)]
    fn confirm(&mut self, entries: Entries) -> Vec<Outcome> {
        black_box("confirm");
        self.apply(entries)
    }

    #[inline(never)]
    fn acquire_free(&mut self, entries: Entries) -> Vec<Outcome> {
        black_box("acquire_free");
        self.apply(entries)
    }

    #[inline(never)]
    fn acquire_held(&mut self, entries: Entries) -> Vec<Outcome> {
        black_box("acquire_held");
        self.apply(entries)
    }

    #[inline(never)]
    fn renew(&mut self, entries: Entries) -> Vec<Outcome> {
        black_box("renew");
        self.apply(entries)
    }

    #[inline(never)]
    fn release(&mut self, entries: Entries) -> Vec<Outcome> {
        black_box("release");
        self.apply(entries)
    }

    #[inline(never)]
    fn query_held(&self, queries: &[(usize, Query)]) -> usize {
        queries.iter().map(|(shard, query)| size_of_val(&black_box(self.machines[*shard].query(query)))).sum()
    }

    #[inline(never)]
    fn query_free(&self, queries: &[(usize, Query)]) -> usize {
        black_box("query_free");
        queries.iter().map(|(shard, query)| size_of_val(&black_box(self.machines[*shard].query(query)))).sum()
    }

    #[inline(never)]
    fn attachment(&self, sessions: &[(usize, SessionId)]) -> usize {
        let attached =
            |(shard, session): &&(usize, SessionId)| self.machines[*shard].attachment(*session) == Attachment::Attached;
        sessions.iter().filter(attached).count()
    }
}

/// Packs commands into entries of [`BATCH`], each machine's in the order given.
fn entries(machines: usize, commands: Vec<(usize, Command)>) -> Entries {
    let mut open: Vec<Vec<Command>> = vec![Vec::new(); machines];
    let mut all = Vec::new();
    for (shard, command) in commands {
        open[shard].push(command);
        if open[shard].len() == BATCH {
            all.push((shard, std::mem::take(&mut open[shard])));
        }
    }
    all.extend(open.into_iter().enumerate().filter(|(_, commands)| !commands.is_empty()));
    all
}

/// Resident bytes of this process.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<usize>().ok()).unwrap_or(0) * 1024
}

/// The times of one kind, over all rounds.
#[derive(Default)]
struct Times(Vec<(&'static str, u128, usize)>);

impl Times {
    fn measure<T>(&mut self, kind: &'static str, count: usize, work: impl FnOnce() -> T) -> T {
        #[expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "the bench is no part of the machine")]
        let (result, took) = {
            let start = std::time::Instant::now();
            let result = work();
            (result, start.elapsed().as_nanos())
        };
        match self.0.iter_mut().find(|known| known.0 == kind) {
            Some(known) => (known.1, known.2) = (known.1 + took, known.2 + count),
            None => self.0.push((kind, took, count)),
        }
        result
    }
}

/// The memory that locks take which are held by random sessions, each attached where it holds something.
fn memory(machines: usize, sessions: usize, names: usize) -> usize {
    let mut dice = Dice(3);
    let mut shards = Shards::new(machines);
    let before = resident();
    for at in 0..names {
        let shard = dice.below(machines);
        let session = SessionId::new(Incarnation(1), dice.below(sessions) as u128 * 0x9e37_79b9_7f4a_7c15);
        if let Outcome::Pending { nonce } = shards.apply(vec![(shard, vec![Command::Pend { session }])])[0] {
            let confirm = Command::Confirm { session, nonce, holder: holder(session) };
            shards.apply(vec![(shard, vec![confirm])]);
        }
        let name = Name::new(&format!("loadtest/{at:07}")).expect("a short name");
        let seq = at as u64 + 1;
        let mut acquire = Acquire::new(session, RequestId::Native { seq, low: seq }, Key::lock(name));
        acquire.lease = Some(Millis(60_000));
        shards.apply(vec![(shard, vec![Command::Acquire(acquire)])]);
    }
    let after = resident();
    black_box(shards);
    after - before
}

fn holder(session: SessionId) -> Holder {
    let client_id = format!("client-{:05}", session.0 % 100_000);
    Holder { client_id, ttl: Millis(30_000), metadata: Metadata::new() }
}

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<usize>().expect("whole numbers only"));
    let machines = args.next().unwrap_or(16);
    let sessions = args.next().unwrap_or(1_000);
    let names = args.next().unwrap_or(1_000);
    let rounds = args.next().unwrap_or(20);

    let mut dice = Dice(7);
    let mut times = Times::default();
    println!(
        "{} KB resident for {sessions} sessions that hold {names} locks",
        memory(machines, sessions, names) / 1024
    );
    let mut shards = Shards::new(machines);
    let random = |dice: &mut Dice| (0..4).fold(0u128, |all, _| (all << 31) ^ dice.below(1 << 31) as u128);
    let ids: Vec<SessionId> = (0..sessions).map(|_| SessionId::new(Incarnation(1), random(&mut dice))).collect();
    let mut seats: Vec<(usize, SessionId)> =
        (0..machines).flat_map(|shard| ids.iter().map(move |session| (shard, *session))).collect();
    dice.shuffle(&mut seats);
    let pends = seats.iter().map(|(shard, session)| (*shard, Command::Pend { session: *session })).collect();
    let pends = entries(machines, pends);
    let mut followers = Shards { machines: shards.machines.clone(), now: 1 };
    followers.follow(pends.clone());
    let order: Vec<(usize, SessionId)> = pends
        .iter()
        .flat_map(|(shard, commands)| {
            commands.iter().map(|command| (*shard, command.session().expect("a pend has one")))
        })
        .collect();
    let outcomes = times.measure("pend", seats.len(), || shards.pend(pends));
    let confirms = order.iter().zip(outcomes).map(|((shard, session), outcome)| {
        let Outcome::Pending { nonce } = outcome else { panic!("{outcome:?}") };
        (*shard, Command::Confirm { session: *session, nonce, holder: holder(*session) })
    });
    let confirms = entries(machines, confirms.collect());
    followers.follow(confirms.clone());
    times.measure("confirm", seats.len(), || shards.confirm(confirms));

    let mut keys: Vec<(usize, Key)> = (0..names)
        .map(|at| (at % machines, Key::lock(Name::new(&format!("loadtest/{at:07}")).expect("a short name"))))
        .collect();
    // The commands come from the network: none shares its name's memory with the machine.
    let fresh = |key: &Key| Key::lock(Name::new(key.name.as_str()).expect("it was one"));
    let mut seq = 0;
    let mut request = || {
        seq += 1;
        RequestId::Native { seq, low: seq - 1 }
    };
    for _ in 0..rounds {
        dice.shuffle(&mut keys);
        let acquires = keys.iter().map(|(shard, key)| {
            let mut acquire = Acquire::new(ids[dice.below(sessions)], request(), fresh(key));
            acquire.lease = Some(Millis(60_000));
            (*shard, Command::Acquire(acquire))
        });
        let acquires = entries(machines, acquires.collect());
        let order: Vec<(usize, Key)> = acquires
            .iter()
            .flat_map(|(shard, commands)| {
                commands.iter().map(|command| (*shard, command.key().expect("it has one").clone()))
            })
            .collect();
        let same = acquires.clone();
        times.measure("follow acquire", names, || followers.follow_acquire(same));
        let outcomes = times.measure("acquire, free", names, || shards.acquire_free(acquires));
        let mut held: Vec<(usize, Key, LockId)> = order
            .into_iter()
            .zip(outcomes)
            .map(|((shard, key), outcome)| {
                let Outcome::Granted(grant) = outcome else { panic!("{outcome:?}") };
                (shard, key, grant.lock_id)
            })
            .collect();
        dice.shuffle(&mut held);

        let refused = held.iter().map(|(shard, key, lock_id)| {
            let other = ids.iter().cycle().skip(dice.below(sessions)).find(|id| **id != lock_id.session);
            (*shard, Command::Acquire(Acquire::new(*other.expect("two sessions"), request(), fresh(key))))
        });
        let refused = entries(machines, refused.collect());
        followers.follow(refused.clone());
        times.measure("acquire, held", names, || shards.acquire_held(refused));

        let queries: Vec<(usize, Query)> =
            held.iter().map(|(shard, key, _)| (*shard, Query::Object { key: fresh(key) })).collect();
        times.measure("query, held", names, || shards.query_held(&queries));

        let free = held.iter().map(|(shard, key, _)| {
            let name = Name::new(&format!("{}/free", key.name)).expect("a short name");
            (*shard, Query::Object { key: Key::lock(name) })
        });
        let free: Vec<(usize, Query)> = free.collect();
        times.measure("query, free", names, || shards.query_free(&free));

        let renews = held.iter().map(|(shard, key, lock_id)| {
            let (request, key) = (request(), fresh(key));
            (*shard, Command::Renew { request, key, lock_id: *lock_id, lease: None })
        });
        let renews = entries(machines, renews.collect());
        let same = renews.clone();
        times.measure("follow renew", names, || followers.follow_renew(same));
        times.measure("renew", names, || shards.renew(renews));

        let releases = held.iter().map(|(shard, key, lock_id)| {
            let (request, key) = (request(), fresh(key));
            (*shard, Command::Release { request, key, lock_id: *lock_id })
        });
        let releases = entries(machines, releases.collect());
        let same = releases.clone();
        times.measure("follow release", names, || followers.follow_release(same));
        times.measure("release", names, || shards.release(releases));
        dice.shuffle(&mut seats);
        let asked = &seats[..names.min(seats.len())];
        times.measure("attachment", asked.len(), || shards.attachment(asked));
    }
    for (kind, took, count) in times.0 {
        println!("{kind:14} {:6} ns  of {count}", took / count as u128);
    }
}

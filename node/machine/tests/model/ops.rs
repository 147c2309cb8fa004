//! What a history is made of: acts in a small world, described before it is known which tokens exist, so
//! that a history that is cut down still means something.

use proptest::{collection::vec, prelude::*, sample::Index};
use wardlock_machine::*;

use crate::{
    configs::{self, Act},
    hooks, services,
};

/// How many sessions there are; one more is spoken of and never known.
pub(crate) const SESSIONS: u8 = 5;

/// Which request id a command carries.
#[derive(Clone, Debug)]
pub(crate) enum Asks {
    /// The session's next number, with a low that lags behind by so many.
    Next(u8),
    /// A key of its own.
    NextKeyed,
    /// A number that may have been used, for whatever.
    Native(u8, u8),
    /// A key that may have been used, for whatever.
    Keyed(u8),
}

/// Which lock id a command carries.
#[derive(Clone, Debug)]
pub(crate) enum Picks {
    /// Of the session's own grant of the key, else of whoever holds it, else of anything that is held.
    Own,
    /// Of some grant that is held.
    Held(Index),
    /// Of some grant that ever was.
    Given(Index),
    /// The session's name under somebody else's token.
    Stolen(Index),
    /// Any number.
    MadeUp(u8),
}

/// How a lock is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) mode: u8,
    pub(crate) lease: Option<Millis>,
    pub(crate) wait: Millis,
    pub(crate) priority: i32,
    pub(crate) delay: Millis,
    pub(crate) metadata: bool,
    /// Breaks a bound, if it is small enough to name one.
    pub(crate) odd: u8,
}

/// One act. `who` is a session, `on` a key.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Acquire {
        who: u8,
        on: u8,
        terms: Terms,
        asks: Asks,
    },
    Release {
        who: u8,
        on: u8,
        picks: Picks,
        asks: Asks,
    },
    Renew {
        who: u8,
        on: u8,
        picks: Picks,
        lease: Option<Millis>,
        asks: Asks,
    },
    /// What is proclaimed is `value`; one of them is too long.
    Proclaim {
        who: u8,
        on: u8,
        picks: Picks,
        value: u8,
        asks: Asks,
    },
    /// The command before the last so many, once more: word for word, or with another low.
    Retry {
        back: u8,
        low: Option<u8>,
    },
    Break {
        on: u8,
        odd: bool,
    },
    /// Of the request that waits or was granted, or of any.
    Cancel {
        who: u8,
        on: u8,
        asks: Option<Asks>,
    },
    /// The waiter is part of a deadlock, as somebody found who may be late.
    BreakDeadlock {
        who: u8,
        on: u8,
        late: bool,
    },
    /// A change of the configuration.
    Configure(Act),
    /// Something is done to an instance of a service.
    Serve(services::Act),
    /// Something about a webhook.
    Hook(hooks::Act),
    Tick,
    /// The next step of coming in.
    Join {
        who: u8,
    },
    Confirm {
        who: u8,
        nonce: u8,
        odd: bool,
    },
    Unpend {
        who: u8,
        nonce: u8,
    },
    Drop {
        who: u8,
        expired: bool,
    },
    Open {
        who: u8,
        as_other: bool,
        odd: bool,
    },
    Close {
        who: u8,
    },
    Expire {
        who: u8,
        also: u8,
        late: bool,
    },
    Checkpoint {
        who: u8,
        left: Option<Millis>,
    },
    Attach {
        who: u8,
        shard: u8,
    },
    Detached {
        who: u8,
        shard: u8,
    },
    Range {
        up: i8,
        incarnation: bool,
        whole: bool,
    },
}

/// How far the clock goes between two entries.
#[derive(Clone, Debug)]
pub(crate) enum Passes {
    By(u64),
    Back(u64),
    /// To the next end, and so many milliseconds beside it.
    ToTheNextEnd(i8),
}

/// One entry of the log: acts under one header.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) passes: Passes,
    /// Added to the wall time, which decides nothing.
    pub(crate) wall: u32,
    pub(crate) new_term: bool,
    /// How far the leader's epoch is from the shard's.
    pub(crate) epoch: i8,
    pub(crate) ops: Vec<Op>,
    /// Where the follower's copy is cut in two.
    pub(crate) cut: Index,
    /// Whether the restored lane is restored once more after it.
    pub(crate) restore: bool,
}

/// What a history is mostly about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Theme {
    Everything,
    /// One lock, long queues, priorities.
    Crowd,
    /// The same of a semaphore.
    Pool,
    /// Leases, waits and delays that run out.
    Time,
    /// Answers that were lost.
    Retries,
    /// Sessions that come and go.
    Sessions,
    /// Paths and their versions.
    Configs,
    /// Instances, and the sessions that they go with.
    Services,
    /// Webhooks that come and go, and how far they have come.
    Hooks,
    /// One session that does so much that its oldest answers are forgotten.
    Memory,
}

/// A theme and what comes of it.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) theme: Theme,
    pub(crate) entries: Vec<Entry>,
}

pub(crate) fn session(incarnation: Incarnation, number: u8) -> SessionId {
    SessionId::new(incarnation, 100 + u128::from(number))
}

/// Three locks and two elections, some of one name.
pub(crate) fn keys() -> Vec<Key> {
    let name = |name| Name::new(name).expect("a name");
    let (lock, election) = (|text| Key::lock(name(text)), |text| Key::election(name(text)));
    vec![lock("a"), lock("ab"), lock("b"), election("a"), election("c")]
}

/// Paths of the configuration, one of them called as a lock is.
pub(crate) fn paths() -> Vec<Name> {
    ["a", "a/b", "ab", "b"].map(|path| Name::new(path).expect("a name")).to_vec()
}

/// Services, one of them called as a lock is.
pub(crate) fn services() -> Vec<Name> {
    ["a", "s", "s/t", "st"].map(|service| Name::new(service).expect("a name")).to_vec()
}

/// Ids of instances.
pub(crate) fn instances() -> Vec<Name> {
    ["i", "ij", "j"].map(|instance| Name::new(instance).expect("a name")).to_vec()
}

fn length(none: u32, from: u64, to: u64) -> BoxedStrategy<Millis> {
    prop_oneof![none => Just(Millis(0)), 4 => (from..to).prop_map(Millis), 1 => Just(Millis(from))].boxed()
}

fn lease() -> BoxedStrategy<Option<Millis>> {
    let odd = prop_oneof![Just(Millis(99)), Just(Millis(limits::LEASE_MAX.0 + 1)), Just(limits::LEASE_MIN)];
    prop_oneof![
        10 => Just(None),
        20 => (500..20_000u64).prop_map(|lease| Some(Millis(lease))),
        1 => odd.prop_map(Some),
    ]
    .boxed()
}

fn asks(theme: Theme) -> BoxedStrategy<Asks> {
    let (fresh, keyed) = match theme {
        Theme::Memory => (4, 40),
        Theme::Retries => (12, 4),
        _ => (40, 8),
    };
    prop_oneof![
        fresh => (0..6u8).prop_map(Asks::Next),
        keyed => Just(Asks::NextKeyed),
        1 => (0..60u8, 0..16u8).prop_map(|(seq, low)| Asks::Native(seq, low)),
        1 => (0..6u8).prop_map(Asks::Keyed),
    ]
    .boxed()
}

fn picks() -> BoxedStrategy<Picks> {
    prop_oneof![
        12 => Just(Picks::Own),
        2 => any::<Index>().prop_map(Picks::Held),
        2 => any::<Index>().prop_map(Picks::Given),
        1 => any::<Index>().prop_map(Picks::Stolen),
        1 => any::<u8>().prop_map(Picks::MadeUp),
    ]
    .boxed()
}

fn terms(theme: Theme) -> BoxedStrategy<Terms> {
    // Of a crowd most want to wait. One lock cannot be used in many ways at once.
    let (tries, mode) = match theme {
        Theme::Crowd => (1, (0..5u8).boxed()),
        Theme::Pool => (1, prop_oneof![24 => 5..8u8, 1 => 0..9u8].boxed()),
        _ => (3, prop_oneof![6 => 0..5u8, 2 => 0..9u8].boxed()),
    };
    let priority = prop_oneof![5 => Just(0), 1 => Just(-1), 2 => Just(1), 1 => Just(2)];
    let rest = (length(4, 1_000, 8_000), prop::bool::weighted(0.2), 0..250u8);
    (mode, lease(), length(tries, 500, 20_000), priority, rest)
        .prop_map(|(mode, lease, wait, priority, (delay, metadata, odd))| Terms {
            mode,
            lease,
            wait,
            priority,
            delay,
            metadata,
            odd,
        })
        .boxed()
}

fn op(theme: Theme) -> BoxedStrategy<Op> {
    let who = || {
        if matches!(theme, Theme::Memory) {
            prop_oneof![9 => Just(0u8), 1 => 0..SESSIONS].boxed()
        } else {
            (0..SESSIONS).boxed()
        }
    };
    let on = || {
        if matches!(theme, Theme::Crowd | Theme::Pool) {
            prop_oneof![4 => Just(0u8), 1 => 0..5u8].boxed()
        } else {
            (0..5u8).boxed()
        }
    };
    // Weights: acquire, release, renew, retry, tick, coming and going, home, the range.
    let [acquire, release, renew, retry, tick, come, home, range] = match theme {
        Theme::Everything => [90, 48, 15, 24, 24, 9, 12, 2],
        Theme::Crowd | Theme::Pool => [120, 42, 6, 15, 15, 3, 3, 1],
        Theme::Time => [90, 24, 24, 12, 60, 6, 6, 1],
        Theme::Retries => [72, 36, 24, 90, 12, 6, 6, 1],
        Theme::Sessions => [36, 12, 6, 12, 12, 48, 48, 4],
        Theme::Configs | Theme::Hooks => [12, 6, 3, 24, 12, 3, 3, 2],
        Theme::Services => [12, 6, 3, 24, 6, 36, 12, 2],
        Theme::Memory => [100, 80, 1, 30, 1, 1, 1, 1],
    };
    let configure = if matches!(theme, Theme::Configs | Theme::Hooks) { 120 } else { 4 };
    let serve = if matches!(theme, Theme::Services) { 140 } else { 4 };
    let change = match theme {
        Theme::Hooks => hooks::act().prop_map(Op::Hook).boxed(),
        _ => configs::act().prop_map(Op::Configure).boxed(),
    };
    let going = prop_oneof![
        8 => who().prop_map(|who| Op::Join { who }),
        1 => (0..=SESSIONS, 0..3u8, prop::bool::weighted(0.1)).prop_map(|(who, nonce, odd)| Op::Confirm { who, nonce, odd }),
        1 => (who(), 0..2u8).prop_map(|(who, nonce)| Op::Unpend { who, nonce }),
        2 => (0..=SESSIONS, any::<bool>()).prop_map(|(who, expired)| Op::Drop { who, expired }),
    ];
    let shard = || 1..4u8;
    let home_ops = prop_oneof![
        4 => (who(), prop::bool::weighted(0.1), prop::bool::weighted(0.05))
            .prop_map(|(who, as_other, odd)| Op::Open { who, as_other, odd }),
        2 => (0..=SESSIONS).prop_map(|who| Op::Close { who }),
        2 => (0..=SESSIONS, who(), any::<bool>()).prop_map(|(who, also, late)| Op::Expire { who, also, late }),
        2 => (0..=SESSIONS, proptest::option::of((0..20_000u64).prop_map(Millis)))
            .prop_map(|(who, left)| Op::Checkpoint { who, left }),
        4 => (0..=SESSIONS, shard()).prop_map(|(who, shard)| Op::Attach { who, shard }),
        4 => (who(), shard()).prop_map(|(who, shard)| Op::Detached { who, shard }),
    ];
    let back = if matches!(theme, Theme::Memory) { any::<u8>().boxed() } else { (0..40u8).boxed() };
    prop_oneof![
        acquire => (who(), on(), terms(theme), asks(theme))
            .prop_map(|(who, on, terms, asks)| Op::Acquire { who, on, terms, asks }),
        release => (who(), on(), picks(), asks(theme))
            .prop_map(|(who, on, picks, asks)| Op::Release { who, on, picks, asks }),
        renew => (who(), on(), picks(), lease(), asks(theme))
            .prop_map(|(who, on, picks, lease, asks)| Op::Renew { who, on, picks, lease, asks }),
        (renew / 2).max(1) => (who(), prop_oneof![1 => 0..3u8, 9 => 3..5u8], picks(), 0..40u8, asks(theme))
            .prop_map(|(who, on, picks, value, asks)| Op::Proclaim { who, on, picks, value, asks }),
        retry => (back, proptest::option::weighted(0.3, 0..8u8)).prop_map(|(back, low)| Op::Retry { back, low }),
        3 => (on(), prop::bool::weighted(0.05)).prop_map(|(on, odd)| Op::Break { on, odd }),
        8 => (who(), on(), proptest::option::weighted(0.1, asks(theme)))
            .prop_map(|(who, on, asks)| Op::Cancel { who, on, asks }),
        5 => (who(), on(), prop::bool::weighted(0.2)).prop_map(|(who, on, late)| Op::BreakDeadlock { who, on, late }),
        serve => services::act().prop_map(Op::Serve),
        configure => change,
        tick => Just(Op::Tick),
        come => going,
        home => home_ops,
        range => (-1..3i8, prop::bool::weighted(0.15), any::<bool>())
            .prop_map(|(up, incarnation, whole)| Op::Range { up, incarnation, whole }),
    ]
    .boxed()
}

fn entry(theme: Theme) -> BoxedStrategy<Entry> {
    let (much, end) = if matches!(theme, Theme::Time) { (4, 8) } else { (2, 3) };
    let passes = prop_oneof![
        8 => Just(Passes::By(0)),
        4 => (1..500u64).prop_map(Passes::By),
        much => (500..8_000u64).prop_map(Passes::By),
        1 => prop_oneof![9 => 8_000..60_000u64, 1 => 600_000..700_000u64].prop_map(Passes::By),
        1 => (1..10_000u64).prop_map(Passes::Back),
        end => (-1..2i8).prop_map(Passes::ToTheNextEnd),
    ];
    let epoch = prop_oneof![60 => Just(0i8), 1 => Just(-1i8), 1 => Just(1i8)];
    let rest = (any::<Index>(), prop::bool::weighted(0.1));
    (passes, 0..7_200_000u32, prop::bool::weighted(0.05), epoch, vec(op(theme), 1..8), rest)
        .prop_map(|(passes, wall, new_term, epoch, ops, (cut, restore))| Entry {
            passes,
            wall,
            new_term,
            epoch,
            ops,
            cut,
            restore,
        })
        .boxed()
}

/// Histories of some three hundred commands on the average.
pub(crate) fn history() -> impl Strategy<Value = History> {
    let theme = prop_oneof![
        3 => Just(Theme::Everything),
        2 => Just(Theme::Crowd),
        2 => Just(Theme::Pool),
        2 => Just(Theme::Time),
        2 => Just(Theme::Retries),
        2 => Just(Theme::Sessions),
        2 => Just(Theme::Configs),
        2 => Just(Theme::Services),
        2 => Just(Theme::Hooks),
        1 => Just(Theme::Memory),
    ];
    let length = |theme| if matches!(theme, Theme::Memory) { 130..180 } else { 30..120 };
    theme.prop_flat_map(move |theme| {
        vec(entry(theme), length(theme)).prop_map(move |entries| History { theme, entries })
    })
}

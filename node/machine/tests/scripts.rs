//! Golden scripts: each a claim, the commands that put it to the test, and what must come of them.
//!
//! A line is `verb arguments @time`; the time stays where it was if it is left out. `join` opens a session
//! and attaches it. A number without `k` is a native request id (`r=3 low=2`), with it a keyed one (`k=9`);
//! without either each command gets an id of its own. After `---` come the outcomes, one line a command,
//! each followed by its effects. With `WARDLOCK_WRITE_SCRIPTS` in the environment the outcomes are written
//! anew, to be read before they are believed.

#![allow(clippy::disallowed_methods, reason = "the test reads its scripts and its environment; the machine does not")]

use std::{fmt::Write, fs, path::Path};

use wardlock_machine::*;

struct Runner {
    machine: Machine,
    now: u64,
    requests: u64,
    out: String,
}

/// The words of one line: verb, plain words in order, and `name=value` pairs.
struct Line<'a> {
    words: Vec<&'a str>,
    pairs: Vec<(&'a str, &'a str)>,
    flags: Vec<&'a str>,
}

const FLAGS: [&str; 9] =
    ["serial", "shared", "election", "as-config", "as-lock", "as-service", "private", "healthy", "anybody"];

impl<'a> Line<'a> {
    fn pair(&self, name: &str) -> Option<&'a str> {
        self.pairs.iter().find(|pair| pair.0 == name).map(|pair| pair.1)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.pair(name).map(|value| value.parse().expect("a number"))
    }

    fn time(&self, name: &str) -> Option<Millis> {
        self.pair(name).map(|value| Millis(millis(value)))
    }

    fn session(&self) -> SessionId {
        session(self.words[1])
    }

    fn key(&self, index: usize) -> Key {
        let name = Name::new(self.words[index]).expect("a name");
        match () {
            () if self.flags.contains(&"election") => Key::election(name),
            () if self.flags.contains(&"as-config") => Key::config(name),
            () if self.flags.contains(&"as-service") => Key::service(name),
            () => Key::lock(name),
        }
    }

    /// The path of a configuration, unless it is to be something else.
    fn path(&self) -> Key {
        let name = Name::new(self.words[1]).expect("a name");
        if self.flags.contains(&"as-lock") { Key::lock(name) } else { Key::config(name) }
    }

    /// A service and an instance's id, as `payments/i1`, unless it is to be something else.
    fn instance(&self, index: usize) -> (Key, Name) {
        let (service, id) = self.words[index].split_once('/').expect("service/instance");
        let (service, id) = (Name::new(service).expect("a name"), Name::new(id).expect("a name"));
        (if self.flags.contains(&"as-lock") { Key::lock(service) } else { Key::service(service) }, id)
    }

    fn health(&self) -> Option<Health> {
        let named = |name| Health::ALL.into_iter().find(|health| health.name() == name).expect("a health");
        self.pair("health").map(named)
    }
}

fn millis(text: &str) -> u64 {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_alphabetic()).expect("a unit"));
    number.parse::<u64>().expect("a number") * if unit == "ms" { 1 } else { 1000 }
}

/// `s7` is session 7 of incarnation 1, `s7.2` of incarnation 2.
fn session(text: &str) -> SessionId {
    let (number, incarnation) = text[1..].split_once('.').unwrap_or((&text[1..], "1"));
    SessionId::new(Incarnation(incarnation.parse().expect("an incarnation")), number.parse().expect("a number"))
}

fn name(session: SessionId) -> String {
    let number = session.0 & 0xffff;
    if session.incarnation() == Incarnation(1) {
        format!("s{number}")
    } else {
        format!("s{number}.{}", session.incarnation())
    }
}

impl Runner {
    fn new() -> Runner {
        let mut runner = Runner { machine: Machine::new(), now: 0, requests: 0, out: String::new() };
        runner.apply(
            Term(1),
            RangeEpoch(1),
            Command::SetRange { first: 0, last: u64::MAX, epoch: RangeEpoch(1), incarnation: Incarnation(1) },
        );
        runner
    }

    fn apply(&mut self, term: Term, epoch: RangeEpoch, command: Command) -> (Outcome, Effects) {
        let batch = Batch { at: Stamp(self.now), wall: WallMs(1_000_000 + self.now), epoch, commands: vec![command] };
        let (mut outcomes, mut effects) = (Vec::new(), Effects::default());
        self.machine.apply(term, batch, &mut outcomes, &mut effects);
        assert_eq!(outcomes.len(), 1, "one outcome for each command");
        (outcomes.remove(0), effects)
    }

    fn line(&mut self, text: &str) {
        let mut line = Line { words: Vec::new(), pairs: Vec::new(), flags: Vec::new() };
        for word in text.split_whitespace() {
            if let Some(at) = word.strip_prefix('@') {
                self.now = millis(at);
            } else if let Some(pair) = word.split_once('=') {
                line.pairs.push(pair);
            } else if FLAGS.contains(&word) {
                line.flags.push(word);
            } else {
                line.words.push(word);
            }
        }
        let shown = line.words.join(" ");
        match line.words[0] {
            "join" => return self.join(&line),
            "restart" => {
                let restored = Machine::restore(&self.machine.snapshot()).expect("its own snapshot");
                assert_eq!(restored, self.machine, "a restored machine is the same machine");
                self.machine = restored;
                return;
            }
            "show" => {
                let Answer::Object(object) = self.machine.query(&Query::Object { key: line.key(1) }) else { panic!() };
                let text = object.map_or("free".into(), |object| show(&object));
                writeln!(self.out, "{shown} → {text}").unwrap();
                return;
            }
            "waits" => {
                let Answer::Waits { waits, .. } = self.machine.query(&Query::Waits { after: None }) else { panic!() };
                let text: Vec<String> = waits.iter().map(wait).collect();
                writeln!(self.out, "{shown} → {}", or_none(text.join("; "))).unwrap();
                return;
            }
            "fence" => {
                let checks = vec![(line.key(1), Token(line.number("token").unwrap()))];
                let answer = self.machine.query(&Query::Fence { checks });
                writeln!(self.out, "{shown} → {}", answer == Answer::Fence(vec![true])).unwrap();
                return;
            }
            "list" => {
                let query = Query::List {
                    kind: line.key(1).kind,
                    prefix: line.pair("prefix").unwrap_or_default().into(),
                    held: line.pair("held").map(|held| held == "yes"),
                    session: line.pair("session").map(session),
                    after: line.pair("after").map(str::to_owned),
                    limit: line.number("limit").unwrap_or(100) as u32,
                };
                let Answer::List(list) = self.machine.query(&query) else { panic!() };
                let names: Vec<&str> = list.iter().map(|object| object.key.name.as_str()).collect();
                writeln!(self.out, "{shown} → {}", names.join(" ")).unwrap();
                return;
            }
            "read" => {
                let query = Query::Config { key: line.path(), version: line.number("at").map(Version) };
                let Answer::Config(found) = self.machine.query(&query) else { panic!() };
                writeln!(self.out, "{shown} → {}", found.map_or("none".into(), |found| version(&found))).unwrap();
                return;
            }
            "versions" => {
                let Answer::Versions(found) = self.machine.query(&Query::Versions { key: line.path() }) else {
                    panic!()
                };
                writeln!(self.out, "{shown} → {}", found.iter().map(version).collect::<Vec<_>>().join(", ")).unwrap();
                return;
            }
            "configs" => {
                let query = Query::Configs {
                    prefix: line.pair("prefix").unwrap_or_default().into(),
                    after: line.pair("after").map(str::to_owned),
                    limit: line.number("limit").unwrap_or(100) as u32,
                };
                let Answer::Configs(found) = self.machine.query(&query) else { panic!() };
                let paths: Vec<&str> = found.iter().map(|found| found.path.as_str()).collect();
                writeln!(self.out, "{shown} → {}", paths.join(" ")).unwrap();
                return;
            }
            "instances" => {
                let query = Query::Service {
                    key: Key::service(Name::new(line.words[1]).expect("a name")),
                    healthy: line.flags.contains(&"healthy"),
                    tag: line.pair("tag").map(str::to_owned),
                    after: line.pair("after").map(str::to_owned),
                    limit: line.number("limit").unwrap_or(100) as u32,
                };
                let Answer::Service(page) = self.machine.query(&query) else { panic!() };
                let (total, healthy) = (page.total, page.healthy);
                let more = if page.more { " and more" } else { "" };
                writeln!(self.out, "{shown} → {healthy} of {total} healthy{more}").unwrap();
                page.instances.iter().for_each(|found| writeln!(self.out, "  {}", instance(found)).unwrap());
                return;
            }
            "instance" => {
                let (key, id) = line.instance(1);
                let Answer::Instance(found) = self.machine.query(&Query::Instance { key, instance: id }) else {
                    panic!()
                };
                writeln!(self.out, "{shown} → {}", found.map_or("none".into(), |found| instance(&found))).unwrap();
                return;
            }
            "services" => {
                let query = Query::Services {
                    prefix: line.pair("prefix").unwrap_or_default().into(),
                    after: line.pair("after").map(str::to_owned),
                    limit: line.number("limit").unwrap_or(100) as u32,
                };
                let Answer::Services(found) = self.machine.query(&query) else { panic!() };
                let text = |found: &ServiceView| format!("{} ({} of {})", found.service, found.healthy, found.total);
                writeln!(self.out, "{shown} → {}", or_none(found.iter().map(text).collect::<Vec<_>>().join(", ")))
                    .unwrap();
                return;
            }
            "sample" => {
                let key = Key::service(Name::new(line.words[1]).expect("a name"));
                let count = line.number("count").unwrap_or(32) as u32;
                let seed = line.number("seed").unwrap_or_default();
                let Answer::Sample(drawn) = self.machine.query(&Query::Sample { key, count, seed }) else { panic!() };
                let ids: Vec<&str> = drawn.iter().map(|drawn| drawn.instance.as_str()).collect();
                writeln!(self.out, "{shown} → {}", or_none(ids.join(" "))).unwrap();
                return;
            }
            "watch" => {
                let kind = line.key(1).kind;
                let pattern = match line.words[1].strip_suffix('*') {
                    Some(prefix) => Pattern { kind, name: prefix.into(), prefix: true },
                    None => Pattern { kind, name: line.words[1].into(), prefix: false },
                };
                let after = Revision(line.number("after").unwrap_or_default());
                let limit = line.number("limit").unwrap_or(100) as u32;
                let query = Query::Events { after, patterns: vec![pattern], limit };
                let Answer::Events(page) = self.machine.query(&query) else { panic!() };
                match page {
                    Ok(page) => {
                        writeln!(self.out, "{shown} → up to {}", page.upto).unwrap();
                        for event in page.events {
                            writeln!(self.out, "  {} {} {}", event.revision, event.key.name, happened(event.what))
                                .unwrap();
                        }
                    }
                    Err(no) => writeln!(self.out, "{shown} → {no:?}").unwrap(),
                }
                return;
            }
            "look" => {
                let key = Key::hook(Name::new(line.words[1]).expect("a name"));
                let Answer::Hook(found) = self.machine.query(&Query::Hook { key: key.clone() }) else { panic!() };
                writeln!(self.out, "{shown} → {}", found.map_or("none".into(), |found| hook(&found))).unwrap();
                let Answer::DeadLetters(letters) = self.machine.query(&Query::DeadLetters { key }) else { panic!() };
                for letter in letters.into_iter().flatten() {
                    let died = letter.died.0 - 1_000_000;
                    writeln!(self.out, "  {}-{} {} +{died}", letter.shard, letter.revision, letter.error).unwrap();
                }
                return;
            }
            "deadline" => {
                writeln!(self.out, "deadline → {:?}", self.machine.next_deadline().map(|at| at.0)).unwrap();
                return;
            }
            _ => {}
        }
        let command = self.command(&line);
        let term = Term(line.number("term").unwrap_or(1));
        let epoch = line.number("epoch").map_or(self.machine.epoch(), RangeEpoch);
        let (outcome, effects) = self.apply(term, epoch, command);
        writeln!(self.out, "{shown} → {}", tell(&outcome)).unwrap();
        for settled in effects.settled {
            let (session, key) = (name(settled.session), settled.key.name);
            writeln!(self.out, "  {session} {key}: {}", tell(&settled.outcome)).unwrap();
        }
        for reason in effects.lost {
            writeln!(self.out, "  lost: {reason:?}").unwrap();
        }
        for (session, reason) in effects.closing {
            writeln!(self.out, "  closing {}: {reason:?}", name(session)).unwrap();
        }
        if effects.hooks {
            writeln!(self.out, "  the webhooks changed").unwrap();
        }
        for session in effects.ended {
            writeln!(self.out, "  ended {}", name(session)).unwrap();
        }
    }

    fn holder(line: &Line<'_>) -> Holder {
        let client_id = line.pair("client").unwrap_or(line.words[1]).to_owned();
        let serial = line.flags.contains(&"serial").then(|| (SERIAL.to_owned(), "true".to_owned()));
        let metadata = serial.into_iter().collect();
        Holder { client_id, ttl: line.time("ttl").unwrap_or(Millis(10_000)), metadata }
    }

    fn join(&mut self, line: &Line<'_>) {
        let (session, holder) = (line.session(), Runner::holder(line));
        let epoch = self.machine.epoch();
        let (outcome, _) = self.apply(Term(1), epoch, Command::OpenSession { session, holder: holder.clone() });
        assert!(matches!(outcome, Outcome::Opened { .. }), "join: {outcome:?}");
        self.apply(Term(1), epoch, Command::Attach { session, shard: ShardId(1) });
        let (outcome, _) = self.apply(Term(1), epoch, Command::Pend { session });
        let Outcome::Pending { nonce } = outcome else { panic!("join: {outcome:?}") };
        let (outcome, _) = self.apply(Term(1), epoch, Command::Confirm { session, nonce, holder });
        assert_eq!(outcome, Outcome::Done, "join");
    }

    fn request(&mut self, line: &Line<'_>) -> RequestId {
        if let Some(key) = line.number("k") {
            return RequestId::Keyed { key: key.into() };
        }
        self.requests += 1;
        let seq = line.number("r").unwrap_or(1_000 + self.requests);
        RequestId::Native { seq, low: line.number("low").unwrap_or(1) }
    }

    fn configure(&mut self, line: &Line<'_>) -> Configure {
        self.requests += 1;
        Configure {
            request: line.number("k").unwrap_or(1_000 + self.requests).into(),
            key: line.path(),
            change: match line.words[0] {
                "put" => Change::Put(Content {
                    content_type: line.pair("type").unwrap_or("text/plain").into(),
                    value: Blob::new(line.words[2].as_bytes()),
                }),
                "delete" => Change::Delete,
                _ => Change::Rollback { to: Version(line.number("to").expect("to=")) },
            },
            expected: line.number("expect").map(Version),
        }
    }

    /// The number of a request about an instance.
    fn asked(&mut self, line: &Line<'_>) -> u128 {
        self.requests += 1;
        line.number("k").unwrap_or(1_000 + self.requests).into()
    }

    fn register(&mut self, line: &Line<'_>) -> Register {
        let (key, instance) = line.instance(2);
        let tags = line.pair("tags").map(|tags| tags.split(',').map(str::to_owned).collect());
        let metadata = line.pair("meta").map(|zone| Metadata::from([("zone".to_owned(), zone.to_owned())]));
        Register {
            request: self.asked(line),
            key,
            instance,
            session: line.session(),
            private: line.flags.contains(&"private"),
            spec: InstanceSpec {
                address: line.pair("at").unwrap_or("10.0.0.1").to_owned(),
                port: line.number("port").unwrap_or(80) as u16,
                tags: tags.unwrap_or_default(),
                weight: line.number("weight").unwrap_or(1) as u16,
                metadata: metadata.unwrap_or_default(),
            },
            health: line.health().unwrap_or_default(),
        }
    }

    /// Places as `1:7,2:9`: shard and revision.
    fn places(text: Option<&str>) -> Vec<(ShardId, Revision)> {
        let place = |place: &str| {
            let (shard, revision) = place.split_once(':').expect("shard:revision");
            (ShardId(shard.parse().expect("a shard")), Revision(revision.parse().expect("a revision")))
        };
        text.into_iter().flat_map(|text| text.split(',')).map(place).collect()
    }

    /// What is done about a webhook; `epoch` is its last change unless `knows` says another.
    fn hook(&mut self, line: &Line<'_>) -> Command {
        self.requests += 1;
        let request = line.number("k").unwrap_or(1_000 + self.requests).into();
        let key = Key::hook(Name::new(line.words[1]).expect("a name"));
        let incarnation = Incarnation(line.number("incarnation").unwrap_or(1) as u16);
        let cursor = Cursor { incarnation, positions: Runner::places(line.pair("to")).into_iter().collect() };
        match line.words[0] {
            "hook" => Command::SetHook(SetHook {
                request,
                key,
                url: line.words[2].to_owned(),
                patterns: vec![Pattern { kind: Kind::Lock, name: String::new(), prefix: true }],
                secret: Secret::new("a secret of some length"),
                cursor,
            }),
            "unhook" => Command::DropHook { request, key },
            "advance" => {
                let Answer::Hook(known) = self.machine.query(&Query::Hook { key: key.clone() }) else { panic!() };
                let last = known.map_or(0, |known| known.epoch.0);
                let dead = |(shard, revision)| DeadLetter {
                    shard,
                    revision,
                    event: None,
                    attempts: 8,
                    error: "status 500".into(),
                    died: WallMs(0),
                };
                Command::Advance(Advance {
                    key,
                    epoch: HookEpoch(line.number("knows").unwrap_or(last)),
                    cursor,
                    dead: Runner::places(line.pair("dead")).into_iter().map(dead).collect(),
                    settled: Runner::places(line.pair("settled")),
                    delivered: line.number("delivered").unwrap_or_default() as u32,
                    failed: line.number("failed").unwrap_or_default() as u32,
                    error: line.pair("error").map(str::to_owned),
                })
            }
            verb => Command::SettleDead(SettleDead { request, key, redeliver: verb == "redrive" }),
        }
    }

    fn command(&mut self, line: &Line<'_>) -> Command {
        match line.words[0] {
            "register" => return Command::Register(self.register(line)),
            "deregister" => {
                let ((key, instance), request) = (line.instance(2), self.asked(line));
                let session = Some(line.session()).filter(|_| !line.flags.contains(&"anybody"));
                return Command::Deregister { request, key, instance, session };
            }
            "report" => {
                let ((key, instance), request) = (line.instance(2), self.asked(line));
                let health = line.health().expect("health=");
                return Command::ReportHealth { request, key, instance, session: line.session(), health };
            }
            _ => {}
        }
        let request = self.request(line);
        let nonce = || Nonce(line.number("nonce").expect("nonce="));
        let lock_id = || LockId::new(line.session(), Token(line.number("token").expect("token=")), &line.key(2));
        let reason = || match line.words.last() {
            Some(&"closed") => EndReason::SessionClosed,
            _ => EndReason::SessionExpired,
        };
        match line.words[0] {
            "range" => Command::SetRange {
                first: 0,
                last: u64::MAX,
                epoch: RangeEpoch(line.number("to").expect("to=")),
                incarnation: Incarnation(line.number("incarnation").unwrap_or(1) as u16),
            },
            "tick" => Command::Tick,
            "open" => Command::OpenSession { session: line.session(), holder: Runner::holder(line) },
            "close" => Command::CloseSession { session: line.session() },
            "expire" => Command::ExpireSessions {
                sessions: vec![line.session()],
                term: Term(line.number("watched").unwrap_or(1)),
            },
            "checkpoint" => Command::Checkpoint { sessions: vec![(line.session(), line.time("left"))] },
            "attach" => Command::Attach {
                session: line.session(),
                shard: ShardId(line.number("shard").expect("shard=") as u32),
            },
            "detached" => Command::Detached {
                session: line.session(),
                shard: ShardId(line.number("shard").expect("shard=") as u32),
            },
            "pend" => Command::Pend { session: line.session() },
            "confirm" => Command::Confirm { session: line.session(), nonce: nonce(), holder: Runner::holder(line) },
            "unpend" => Command::Unpend { session: line.session(), nonce: nonce() },
            "drop" => Command::Drop { session: line.session(), reason: reason() },
            "acquire" => Command::Acquire(Acquire {
                session: line.session(),
                request,
                key: line.key(2),
                mode: match line.number("permits") {
                    Some(permits) => Mode::Semaphore { permits: permits as u32 },
                    None if line.flags.contains(&"shared") => Mode::Shared,
                    None => Mode::Exclusive,
                },
                lease: line.time("lease"),
                wait: line.time("wait").unwrap_or_default(),
                priority: line.pair("priority").map_or(0, |value| value.parse().expect("a priority")),
                lock_delay: line.time("delay").unwrap_or_default(),
                metadata: Metadata::new(),
                value: line.pair("value").map(str::to_owned),
            }),
            "release" => Command::Release { request, key: line.key(2), lock_id: lock_id() },
            "renew" => Command::Renew { request, key: line.key(2), lock_id: lock_id(), lease: line.time("lease") },
            "proclaim" => Command::Proclaim {
                request,
                key: line.key(2),
                lock_id: lock_id(),
                value: line.pair("value").expect("value=").to_owned(),
            },
            "deadlock" => {
                let (session, key) = (line.session(), line.key(2));
                let steps = vec![CircleStep { session, holder: "a circle".into(), key: key.clone() }];
                let arrival = line.number("arrival").expect("arrival=");
                Command::BreakDeadlock(BreakDeadlock { key, session, arrival, circle: Circle { steps, length: 1 } })
            }
            "break" => Command::Break { key: line.key(1), reason: "stuck".into() },
            "put" | "delete" | "rollback" => Command::Configure(self.configure(line)),
            "cancel" => Command::Cancel { session: line.session(), request, key: line.key(2) },
            "hook" | "unhook" | "advance" | "redrive" | "forget" => self.hook(line),
            verb => panic!("no such verb: {verb}"),
        }
    }
}

fn grant(grant: &Grant) -> String {
    let mut text = format!("token={}", grant.lock_id.token);
    if grant.waited > Millis(0) {
        write!(text, " waited={}", grant.waited).unwrap();
    }
    if let Some(expires) = grant.expires {
        write!(text, " until=+{}", expires.0 - 1_000_000).unwrap();
    }
    if let Some(value) = &grant.value {
        write!(text, " value={value}").unwrap();
    }
    text
}

fn happened(what: What) -> String {
    match what {
        What::Granted { lock_id, mode, holder, value } => {
            let value = value.map_or(String::new(), |value| format!(" value={value}"));
            format!("granted to {} ({holder}) token={} {mode:?}{value}", name(lock_id.session), lock_id.token)
        }
        What::Ended { lock_id, reason } => format!("ended token={} {reason:?}", lock_id.token),
        What::Proclaimed { lock_id, holder, value, acquired } => {
            let since = acquired.0 - 1_000_000;
            format!("proclaimed by {} ({holder}) token={} since=+{since} {value}", name(lock_id.session), lock_id.token)
        }
        What::Enrolled { session, holder, value, priority } => {
            format!("enrolled {} ({holder}) {value} priority={priority}", name(session))
        }
        What::Configured { version, deleted: true, .. } => format!("version={version} deleted"),
        What::Configured { version, content_type, size, value, .. } => {
            let value = value.map(|value| String::from_utf8_lossy(&value).into_owned());
            format!("version={version} {size} bytes {content_type} {value:?}")
        }
        What::Registered { instance, session, address, port, tags, weight, health } => {
            let (tags, health, session) = (tags.join(" "), health.name(), name(session));
            format!("{instance} at {address}:{port} {health} weight={weight} tags=[{tags}] {session}")
        }
        What::Deregistered { instance, reason } => format!("{instance} gone {reason:?}"),
        What::Health { instance, health } => format!("{instance} {}", health.name()),
    }
}

fn or_none(text: String) -> String {
    if text.is_empty() { "none".to_owned() } else { text }
}

fn instance(view: &InstanceView) -> String {
    let InstanceView { instance, spec, session, private, ttl, health, registered, revision } = view;
    let InstanceSpec { address, port, tags, weight, metadata } = spec;
    let mut text =
        format!("{instance} at {address}:{port} {} weight={weight} tags=[{}]", health.name(), tags.join(" "));
    write!(text, " {}{} ttl={ttl}", if *private { "private " } else { "" }, name(*session)).unwrap();
    write!(text, " +{} revision={revision}", registered.0 - 1_000_000).unwrap();
    metadata.iter().for_each(|(key, value)| write!(text, " {key}={value}").unwrap());
    text
}

fn version(view: &ConfigView) -> String {
    let mut text = format!("version={} +{}", view.version, view.updated.0 - 1_000_000);
    match (view.deleted, &view.value) {
        (true, _) => text.push_str(" deleted"),
        (false, None) => write!(text, " {} bytes {}", view.size, view.content_type).unwrap(),
        (false, Some(value)) => {
            write!(text, " {:?} {}", String::from_utf8_lossy(value), view.content_type).unwrap();
        }
    }
    text
}

fn hook(view: &HookView) -> String {
    let positions: Vec<String> = view.cursor.positions.iter().map(|(shard, at)| format!("{shard}:{at}")).collect();
    let HookView { url, epoch, dead, again, delivered, failed, .. } = view;
    let error = view.error.as_ref().map_or(String::new(), |error| format!(" error={error}"));
    let at = positions.join(",");
    format!("{url} epoch={epoch} at={at} dead={dead} again={again} delivered={delivered} failed={failed}{error}")
}

fn blocked(blocked: &Blocked) -> String {
    let holders: Vec<String> = blocked.holders.iter().map(|grant| grant.holder.clone()).collect();
    let mut text = format!("by [{}] waiters={}", holders.join(" "), blocked.waiters);
    if let Some(until) = blocked.lock_delay_until {
        write!(text, " delay until=+{}", until.0 - 1_000_000).unwrap();
    }
    text
}

fn show(object: &Object) -> String {
    let holders: Vec<String> = object.holders.iter().map(|held| format!("{} {}", held.holder, grant(held))).collect();
    let queue: Vec<&str> = object.queue.iter().map(|waiting| waiting.holder.as_str()).collect();
    let delay = object.lock_delay_until.map_or(String::new(), |until| format!(" delay until=+{}", until.0 - 1_000_000));
    format!("held by [{}] queue [{}]{delay} revision={}", holders.join(", "), queue.join(" "), object.revision)
}

fn wait(wait: &Wait) -> String {
    let grants = |grants: &[(SessionId, Token)]| {
        let grants: Vec<String> = grants.iter().map(|(session, token)| format!("{}:{token}", name(*session))).collect();
        grants.join(" ")
    };
    let on = match &wait.blockers {
        Blockers::Waiter(arrival) => format!("waiter {arrival}"),
        Blockers::All(of) => format!("all of [{}]", grants(of)),
        Blockers::Any(of) => format!("any of [{}]", grants(of)),
        Blockers::Nobody => "nobody".to_owned(),
    };
    let serial = if wait.serial { " serial" } else { "" };
    format!("{} {}{serial} arrival={} on {on}", wait.key.name, wait.holder, wait.arrival)
}

fn tell(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Granted(held) => format!("granted {}", grant(held)),
        Outcome::AlreadyHeld(held) => format!("already-held {}", grant(held)),
        Outcome::Renewed(held) => format!("renewed {}", grant(held)),
        Outcome::Queued { position } => format!("queued position={position}"),
        Outcome::Held(by) => format!("held {}", blocked(by)),
        Outcome::WaitTimeout(by) => format!("wait-timeout {}", blocked(by)),
        Outcome::Broken(grants) => {
            format!("broken [{}]", grants.iter().map(grant).collect::<Vec<_>>().join(", "))
        }
        Outcome::Opened { created } => format!("opened at +{}", created.0 - 1_000_000),
        Outcome::Attached(holder) => format!("attached {} ttl={}", holder.client_id, holder.ttl),
        Outcome::Mismatch { mode } => format!("mismatch {mode:?}"),
        Outcome::Pending { nonce } => format!("pending nonce={nonce}"),
        Outcome::Dropped { more } => format!("dropped more={more}"),
        Outcome::StaleEpoch { current } => format!("stale-epoch current={current}"),
        Outcome::Configured(done) => format!("version={} revision={}", done.version, done.revision),
        Outcome::VersionMismatch { current } => format!("version-mismatch current={current}"),
        Outcome::HookChanged { epoch, letters } => format!("changed epoch={epoch} letters={letters}"),
        Outcome::StaleHook { current } => format!("stale-hook current={current}"),
        Outcome::Limit(limit) => format!("limit {limit:?}"),
        Outcome::Registered(Registered { revision, registered, replaced }) => {
            let replaced = replaced.map_or(String::new(), |session| format!(" replaced {}", name(session)));
            format!("registered revision={revision} +{}{replaced}", registered.0 - 1_000_000)
        }
        Outcome::Deregistered(Deregistered { revision, private }) => {
            let private = private.map_or(String::new(), |session| format!(" private {}", name(session)));
            format!("deregistered revision={revision}{private}")
        }
        Outcome::Deadlock(circle) => format!("deadlock of {}", circle.length),
        Outcome::HealthReported { revision } => format!("reported revision={revision}"),
        plain => format!("{plain:?}").to_lowercase(),
    }
}

/// Runs every script of a file; answers what the file should say.
fn run(text: &str) -> (String, usize) {
    let mut whole = String::new();
    let mut count = 0;
    for script in text.split("\n# ").filter(|script| !script.trim().is_empty()) {
        let script = script.trim_start_matches("# ");
        let (claim, rest) = script.split_once('\n').expect("a claim on the first line");
        let commands = rest.split("\n---").next().expect("commands").trim();
        assert!(claim.contains(" — "), "a script is named as a claim: {claim}");
        let mut runner = Runner::new();
        for line in commands.lines() {
            runner.line(line);
        }
        runner.line("restart");
        write!(whole, "# {claim}\n{commands}\n---\n{}\n", runner.out).unwrap();
        count += 1;
    }
    (format!("{}\n", whole.trim_end()), count)
}

#[test]
fn every_script_comes_out_as_it_claims() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut scripts = 0;
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let (actual, count) = run(&text);
        scripts += count;
        if std::env::var_os("WARDLOCK_WRITE_SCRIPTS").is_some() {
            fs::write(&file, actual).unwrap();
        } else {
            assert_eq!(text, actual, "{}", file.display());
        }
    }
    assert!(scripts >= 80, "only {scripts} scripts were found");
}

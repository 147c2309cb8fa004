//! Webhooks end to end: real nodes, a target of this test's own on loopback, and leaders that are killed meanwhile.

mod support;

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use serde_json::{Value, json};
use support::{Answer, Dev, alone, wait_until, wardlock};
use wardlock_machine::Secret;
use wardlock_router::webhook::sign;

const PATIENCE: Duration = Duration::from_secs(60);

/// One delivery as it arrived, and what it was answered.
#[derive(Clone, Debug)]
struct Delivery {
    path: String,
    headers: BTreeMap<String, String>,
    body: String,
    status: u16,
}

impl Delivery {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// A target. Below `/once-500` it takes nothing at first, below `/never` nothing while it is told so, and `/redirect`
/// leads to `/elsewhere`.
struct Target {
    port: u16,
    seen: Arc<Mutex<Vec<Delivery>>>,
    refuses: Arc<Mutex<bool>>,
}

impl Target {
    fn start() -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, refuses) = (Arc::<Mutex<Vec<Delivery>>>::default(), Arc::new(Mutex::new(true)));
        let (told, no) = (Arc::clone(&seen), Arc::clone(&refuses));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (told, no) = (Arc::clone(&told), Arc::clone(&no));
                std::thread::spawn(move || drop(serve(&stream, &told, &no)));
            }
        });
        Target { port, seen, refuses }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn seen(&self) -> MutexGuard<'_, Vec<Delivery>> {
        self.seen.lock().unwrap()
    }

    fn of(&self, path: &str) -> Vec<Delivery> {
        self.seen().iter().filter(|delivery| delivery.path == path).cloned().collect()
    }

    fn taken(&self, path: &str) -> Vec<Delivery> {
        self.of(path).into_iter().filter(|delivery| delivery.status == 200).collect()
    }
}

fn serve(stream: &TcpStream, told: &Mutex<Vec<Delivery>>, refuses: &Mutex<bool>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split_whitespace().nth(1).unwrap_or_default().to_owned();
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            match line.trim_end().split_once(": ") {
                Some((name, value)) => drop(headers.insert(name.to_ascii_lowercase(), value.to_owned())),
                None => break,
            }
        }
        let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let body = String::from_utf8_lossy(&body).into_owned();
        let id = headers.get("wardlock-delivery").cloned().unwrap_or_default();
        let status = {
            let mut all = told.lock().unwrap();
            let before =
                all.iter().any(|other| other.path == path && other.headers.get("wardlock-delivery") == Some(&id));
            let status = match path.as_str() {
                "/once-500" if !before => 500,
                "/never" if *refuses.lock().unwrap() => 503,
                "/redirect" => 302,
                _ => 200,
            };
            all.push(Delivery { path, headers, body, status });
            status
        };
        let location = if status == 302 { "Location: /elsewhere\r\n" } else { "" };
        write!(&mut &*stream, "HTTP/1.1 {status} X\r\n{location}Content-Length: 2\r\n\r\nok")?;
    }
}

fn put(dev: &Dev, path: &str, value: &str, key: &str) -> u64 {
    let put = || dev.call("PUT", &format!("/config/{path}?raw"), value, &[("Idempotency-Key", key)]);
    // Whoever asks may have to wait for a new leader.
    let made = (0..60).map(|_| put()).find(|put| put.status == 200).expect("it is put in the end");
    made.number("version")
}

fn add(dev: &Dev, url: &str, prefix: &str) -> Answer {
    dev.post("/webhooks", &json!({ "url": url, "prefix": prefix, "kind": "config" }))
}

fn added(dev: &Dev, url: &str, prefix: &str) -> (String, String) {
    let made = (0..20).map(|_| add(dev, url, prefix)).find(|made| made.status != 503).expect("an answer");
    assert_eq!(made.status, 201, "{made:?}");
    (made.text("webhookId"), made.text("secret"))
}

/// The names and versions that a target took, in the order in which it took them.
fn versions(deliveries: &[Delivery]) -> Vec<(String, u64)> {
    let told = |delivery: &Delivery| {
        let body = delivery.json();
        (body["name"].as_str().unwrap().to_owned(), body["version"].as_u64().unwrap())
    };
    deliveries.iter().map(told).collect()
}

/// At least once, and in order per key: a version that is new comes behind the one before it.
fn check_order(told: &[(String, u64)]) -> BTreeMap<String, u64> {
    let mut last = BTreeMap::<String, u64>::new();
    for (name, version) in told {
        let before = last.entry(name.clone()).or_default();
        assert!(*version <= *before + 1, "version {version} of {name} came after {before}");
        *before = (*before).max(*version);
    }
    last
}

#[test]
fn they_are_off_unless_the_configuration_allows_a_target() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path(), &["--shards", "2"]);
    let refused = add(&dev, "https://hooks.example.com/", "");
    assert_eq!((refused.status, refused.problem().as_str()), (403, "webhooks-off"));
    assert_eq!(dev.get("/webhooks").json(), json!({ "webhooks": [], "next": null }));
    // Whoever goes past the gateway reaches no target either: the nodes say why.
    let target = Target::start();
    let out = wardlock()
        .args(["webhook", "add", &target.url("/ok"), "--prefix", "", "-o", "json", "--server", &dev.server()])
        .output()
        .unwrap();
    assert!(out.status.success(), "{out:?}");
    let made: Value = serde_json::from_slice(&out.stdout).unwrap();
    let id = made["webhookId"].as_str().unwrap();
    let path = format!("/webhooks/{id}");
    let view = dev.until(&path, PATIENCE, |view| view.status == 200 && !view.json()["lastError"].is_null());
    assert!(view.text("lastError").contains("webhooks are off"), "{view:?}");
    put(&dev, "a", "v", "1");
    assert_eq!(dev.call("DELETE", &path, "", &[]).status, 200);
    assert_eq!(dev.get(&path).problem(), "no-such-webhook");
    assert_eq!(dev.call("DELETE", &path, "", &[]).status, 404);
    assert_eq!(target.seen().len(), 0, "nothing was sent");
}

#[test]
fn what_may_be_asked_is_checked() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let target = Target::start();
    let dev = Dev::start(dir.path(), &["--shards", "2", "--webhook-target", &target.url("")]);
    for (body, status, code) in [
        (json!({ "prefix": "" }), 422, "missing-field"),
        (json!({ "url": target.url("/ok") }), 422, "missing-parameter"),
        (json!({ "url": "http://127.0.0.2/ok", "prefix": "" }), 403, "target-not-allowed"),
        (json!({ "url": "http://169.254.169.254/latest/meta-data", "prefix": "" }), 403, "target-not-allowed"),
        (json!({ "url": format!("http://u:p@127.0.0.1:{}/", target.port), "prefix": "" }), 422, "invalid-field"),
        (json!({ "url": "ftp://127.0.0.1/", "prefix": "" }), 422, "invalid-field"),
        (json!({ "url": target.url("/ok"), "prefix": "", "secret": "short" }), 422, "invalid-field"),
        (json!({ "url": target.url("/ok"), "prefix": "", "kind": "webhook" }), 422, "invalid-field"),
        (json!({ "url": target.url("/ok"), "prefix": "", "since": "x" }), 422, "invalid-token"),
        (json!({ "url": target.url("/ok"), "config": [""] }), 422, "invalid-field"),
        (json!({ "url": target.url("/ok"), "config": vec!["a"; 65] }), 422, "invalid-field"),
        (json!({ "url": target.url("/ok"), "prefix": "", "more": 1 }), 422, "unknown-field"),
    ] {
        let refused = dev.post("/webhooks", &body);
        assert_eq!((refused.status, refused.problem().as_str()), (status, code), "{body}: {refused:?}");
    }
    assert_eq!(dev.get("/webhooks").json()["webhooks"], json!([]), "and nothing came of it");
    // A repeat with a key makes one webhook; its secret is the caller's then.
    let body = json!({ "url": target.url("/ok"), "prefix": "", "secret": "a secret of my own" }).to_string();
    let keyed = [("content-type", "application/json"), ("Idempotency-Key", "one")];
    let first = dev.call("POST", "/webhooks", &body, &keyed);
    let second = dev.call("POST", "/webhooks", &body, &keyed);
    assert_eq!((first.status, first.text("webhookId")), (201, second.text("webhookId")));
    let body = json!({ "url": target.url("/ok"), "prefix": "" }).to_string();
    assert_eq!(dev.call("POST", "/webhooks", &body, &keyed).problem(), "missing-field");
    assert_eq!(dev.get("/webhooks").json()["webhooks"].as_array().unwrap().len(), 1);
}

#[test]
fn each_event_is_delivered_in_order_through_failures_and_kills() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let target = Target::start();
    let allowed = target.url("");
    let arguments = ["--processes", "--shards", "4", "--webhook-target", &allowed, "--webhook-retry-s", "30"];
    let mut dev = Dev::start(dir.path(), &arguments);
    let (good, secret) = added(&dev, &target.url("/ok"), "app/");
    let (shaky, _) = added(&dev, &target.url("/once-500"), "app/");
    const KEYS: u64 = 8;
    const ROUNDS: u64 = 9;
    for round in 1..=ROUNDS {
        for n in 0..KEYS {
            assert_eq!(put(&dev, &format!("app/{n}"), &format!("v{round}"), &format!("{round}-{n}")), round);
        }
        // Each node in turn, so that whoever delivers is among them.
        if round % 3 == 0 && round < ROUNDS {
            let node = u32::try_from(round / 3).unwrap();
            dev.kill(node);
            dev.restart(node);
        }
    }
    for path in ["/ok", "/once-500"] {
        wait_until(&format!("everything arrives at {path}"), PATIENCE, || {
            let last = check_order(&versions(&target.taken(path)));
            last.len() as u64 == KEYS && last.values().all(|version| *version == ROUNDS)
        });
    }
    let mut bodies = BTreeMap::new();
    for delivery in target.seen().iter() {
        let body = delivery.json();
        let id = delivery.headers["wardlock-delivery"].clone();
        assert_eq!(body["deliveryId"], *id);
        assert_eq!(body["webhookId"], *delivery.headers["wardlock-webhook"]);
        assert!(delivery.headers["wardlock-attempt"].parse::<u32>().unwrap() >= 1);
        let first = bodies.entry((delivery.path.clone(), id)).or_insert_with(|| delivery.body.clone());
        assert_eq!(*first, delivery.body, "a repeat is the same to the byte");
        if delivery.path == "/ok" {
            let signature = &delivery.headers["wardlock-signature"];
            let at = signature.strip_prefix("t=").and_then(|rest| rest.split(',').next()).unwrap().parse().unwrap();
            assert_eq!(*signature, sign(&Secret::new(secret.as_str()), at, delivery.body.as_bytes()));
        }
    }
    let failed = dev.until(&format!("/webhooks/{shaky}"), PATIENCE, |view| {
        view.status == 200 && view.number("failedAttempts") >= KEYS
    });
    assert_eq!(failed.number("deadLetters"), 0, "{failed:?}");
    dev.until(&format!("/webhooks/{good}"), PATIENCE, |view| {
        view.status == 200 && view.number("delivered") >= KEYS * ROUNDS / 2
    });
    // Whatever is shown, the secret is not.
    let list = dev.get("/webhooks");
    assert!(list.body.contains(&good) && !list.body.contains(&secret), "{list:?}");
    assert!(!dev.get(&format!("/webhooks/{good}")).body.contains(&secret));
    assert!(!dev.get("/metrics").body.contains(&secret));
    assert!(!dev.said.iter().any(|line| line.contains(&secret)));
    assert!(!texts_of(dir.path()).contains(&secret), "a log has the secret");
}

#[test]
fn what_was_delivered_is_not_delivered_again_where_nodes_stop_in_order() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let target = Target::start();
    let allowed = target.url("");
    let mut dev = Dev::start(dir.path(), &["--processes", "--shards", "1", "--webhook-target", &allowed]);
    added(&dev, &target.url("/ok"), "app/");
    let all = |last: u64| (1..=last).map(|version| ("app/1".to_owned(), version)).collect::<Vec<_>>();
    const ROUNDS: u64 = 4;
    for round in 1..=ROUNDS {
        put(&dev, "app/1", "v", &round.to_string());
        wait_until("it arrives", PATIENCE, || versions(&target.taken("/ok")).last() == all(round).last());
        let leader = |shards: &Answer| shards.json()["shards"][0]["leader"].as_u64();
        let led = dev.until("/cluster/shards", PATIENCE, |shards| leader(shards).is_some());
        let node = u32::try_from(leader(&led).unwrap()).unwrap();
        dev.drain(node);
        dev.restart(node);
    }
    put(&dev, "app/1", "v", "last");
    wait_until("the last arrives", PATIENCE, || versions(&target.taken("/ok")).last() == all(ROUNDS + 1).last());
    assert_eq!(versions(&target.taken("/ok")), all(ROUNDS + 1));
}

/// What the nodes' own logs say.
fn texts_of(dir: &Path) -> String {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let logs = entries.filter(|path| path.is_file() && path.extension().is_some_and(|ext| ext != "toml"));
    logs.map(|path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()).collect()
}

#[test]
fn what_a_target_does_not_take_is_listed_and_delivered_on_demand() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let target = Target::start();
    let allowed = target.url("");
    let dev = Dev::start(dir.path(), &["--shards", "2", "--webhook-target", &allowed, "--webhook-retry-s", "1"]);
    let (never, _) = added(&dev, &target.url("/never"), "app/");
    let (redirected, _) = added(&dev, &target.url("/redirect"), "app/");
    put(&dev, "app/1", "one", "1");
    put(&dev, "app/1", "two", "2");
    let dead = |id: &str| dev.get(&format!("/webhooks/{id}/dead")).json()["deadLetters"].as_array().unwrap().clone();
    wait_until("both events die", PATIENCE, || dead(&never).len() == 2 && dead(&redirected).len() == 2);
    let letters = dead(&never);
    assert_eq!(letters[0]["error"], "status 503");
    assert_eq!(letters[0]["attempts"], 2);
    assert_eq!((&letters[0]["event"]["value"], &letters[1]["event"]["value"]), (&json!("one"), &json!("two")));
    assert!(dead(&redirected)[0]["error"].as_str().unwrap().contains("redirects are not followed"));
    assert_eq!(target.of("/elsewhere").len(), 0, "a redirect is not followed");
    let view = dev.get(&format!("/webhooks/{never}")).json();
    assert_eq!((&view["status"], &view["deadLetters"], &view["delivered"]), (&json!("failing"), &json!(2), &json!(0)));

    *target.refuses.lock().unwrap() = false;
    let again = dev.call("POST", &format!("/webhooks/{never}/redrive"), "", &[]);
    assert_eq!((again.status, again.number("deadLetters")), (200, 2), "{again:?}");
    wait_until("both are taken", PATIENCE, || target.taken("/never").len() == 2);
    assert_eq!(versions(&target.taken("/never")), [("app/1".to_owned(), 1), ("app/1".to_owned(), 2)]);
    let view = dev.until(&format!("/webhooks/{never}"), PATIENCE, |view| view.number("delivered") == 2).json();
    assert_eq!((&view["deadLetters"], &view["redriven"]), (&json!(0), &json!(0)));
    assert_eq!((&view["status"], &view["lastError"]), (&json!("delivering"), &Value::Null));

    let forgotten = dev.call("DELETE", &format!("/webhooks/{redirected}/dead"), "", &[]);
    assert_eq!((forgotten.status, forgotten.number("deadLetters")), (200, 2));
    assert_eq!(dead(&redirected).len(), 0);
    let metrics = dev.get("/metrics").body;
    assert!(metrics.contains("wardlock_webhook_deliveries_total{result=\"dead\"} 4"), "{metrics}");
    assert!(metrics.contains("wardlock_webhook_lag_seconds"), "{metrics}");
}

//! Services, over HTTP and from a shell: who dies is gone in time, and who lives stays, whatever becomes of leaders.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{Dev, alone, wait_until};

const TTL: Duration = Duration::from_secs(2);

fn put(dev: &Dev, service: &str, id: &str, bound: &Value) -> crate::support::http::Answer {
    let mut body = json!({"address": "10.0.0.7", "port": 8080, "tags": ["eu"]});
    body.as_object_mut().unwrap().extend(bound.as_object().unwrap().clone());
    dev.call("PUT", &format!("/services/{service}/instances/{id}"), &body.to_string(), &[])
}

/// The ids of a service's instances; `None` while its shard cannot be asked.
fn ids(dev: &Dev, service: &str) -> Option<BTreeSet<String>> {
    let page = dev.get(&format!("/services/{service}?limit=1000"));
    if page.status == 503 {
        return None;
    }
    assert_eq!(page.status, 200, "{page:?}");
    let page = page.json();
    let instances = page["instances"].as_array().unwrap();
    Some(instances.iter().map(|one| one["instanceId"].as_str().unwrap().to_owned()).collect())
}

/// A process that keeps an instance registered.
struct Registered {
    child: Child,
}

impl Registered {
    fn start(dev: &Dev, service: &str, id: &str, more: &[&str]) -> Registered {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wardlock"));
        command.args(["service", "--server", &dev.server(), "register", service, "--id", id]);
        command.args(["--address", "127.0.0.1", "--port", "80", "--ttl", "2"]).args(more);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains(id), "{line:?}");
        Registered { child }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn who_dies_is_gone_within_its_ttl_and_who_lives_stays_through_the_loss_of_a_node() {
    let _alone = alone();
    let mut dev = Dev::anywhere(&["--shards", "8", "--processes"]);
    let by_ttl = json!({"ttl": TTL.as_secs()});
    let session = dev.open("web-1", 60.0);
    for service in 0..4 {
        for id in 0..10 {
            let put = put(&dev, &format!("web-{service}"), &format!("{id}"), &by_ttl);
            assert_eq!((put.status, put.text("boundTo").as_str()), (200, "ttl"), "{put:?}");
        }
        let put = put(&dev, &format!("web-{service}"), "bound", &json!({"sessionId": session}));
        assert_eq!((put.status, put.text("boundTo").as_str()), (200, "session"), "{put:?}");
    }
    let stays = Registered::start(&dev, "web-0", "stays", &[]);
    let mut dies = Registered::start(&dev, "web-0", "dies", &[]);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Half of them send their heartbeats, each by itself.
        let beats: Vec<_> = (0..4)
            .map(|service| {
                let (dev, over) = (&dev, &over);
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        for id in 0..5 {
                            let beat =
                                dev.post(&format!("/services/web-{service}/instances/{id}/heartbeat"), &json!({}));
                            assert_eq!(beat.status, 200, "{beat:?}");
                        }
                        std::thread::sleep(TTL / 5);
                    }
                })
            })
            .collect();
        let killed = Instant::now();
        dies.child.kill().unwrap();
        let mut gone = None;
        while gone.is_none() {
            let there = ids(&dev, "web-0").unwrap();
            assert!(there.contains("stays") && there.contains("bound") && there.contains("0"), "{there:?}");
            gone = (!there.contains("dies")).then(|| killed.elapsed());
            assert!(killed.elapsed() < 3 * TTL, "{there:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let gone = gone.unwrap();
        println!("gone {gone:?} after it was killed");
        assert!(gone <= TTL + Duration::from_secs(1), "gone after {gone:?}");
        over.store(true, Ordering::Relaxed);
        beats.into_iter().for_each(|beat| beat.join().unwrap());
    });
    // The five of each that were silent are gone by now, and their heartbeats are told so.
    let expected: BTreeSet<String> = ["0", "1", "2", "3", "4", "bound"].map(str::to_owned).into();
    assert_eq!(ids(&dev, "web-1").unwrap(), expected);
    assert_eq!(dev.post("/services/web-1/instances/7/heartbeat", &json!({})).status, 404);
    assert_eq!(dev.post("/services/web-1/instances/bound/heartbeat", &json!({})).problem(), "session-bound");

    // A node dies, and with it a third of the leaders. Whoever is kept alive stays; the silent are gone in the end.
    dev.kill(2);
    wait_until("every shard has a leader", Duration::from_secs(20), || {
        (0..4).all(|service| ids(&dev, &format!("web-{service}")).is_some())
    });
    for _ in 0..8 {
        for service in 0..4 {
            let there = ids(&dev, &format!("web-{service}")).unwrap_or_default();
            assert!(there.contains("bound"), "{service}: {there:?}");
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    assert!(ids(&dev, "web-0").unwrap().contains("stays"));
    wait_until("the silent are gone", Duration::from_secs(10), || {
        (1..4).all(|service| ids(&dev, &format!("web-{service}")).is_some_and(|there| there.len() == 1))
    });
    dev.restart(2);
    assert_eq!(dev.call("DELETE", &format!("/sessions/{session}"), "", &[]).status, 200);
    assert_eq!(ids(&dev, "web-3").unwrap(), BTreeSet::new(), "they go with their session");
    drop(stays);
}

#[test]
fn the_command_line_registers_lists_watches_and_takes_off() {
    let _alone = alone();
    let dev = Dev::anywhere(&["--shards", "4"]);
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wardlock"));
        let output = command.args(["service", "--server", &dev.server()]).args(args).output().expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    // While its command runs, an instance is there; the command knows which.
    let script = "echo $WARDLOCK_SERVICE $WARDLOCK_INSTANCE; \"$0\" service show pay -o json --tag eu; exit 7";
    let exe = env!("CARGO_BIN_EXE_wardlock");
    let output = Command::new(exe)
        .args(["service", "--server", &dev.server(), "register", "pay", "--id", "i-1", "--address", "h.example"])
        .args(["--port", "443", "--tag", "eu", "--weight", "3", "--meta", "zone=a", "--", "sh", "-c", script, exe])
        .env("WARDLOCK_SERVER", dev.server())
        .output()
        .unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(7), "{out}");
    let (first, rest) = out.split_once('\n').unwrap();
    assert_eq!(first, "pay i-1");
    let instance = &serde_json::from_str::<Value>(rest).unwrap()["instances"][0];
    assert_eq!((&instance["address"], &instance["weight"]), (&json!("h.example"), &json!(3)), "{instance}");
    assert_eq!(run(&["show", "pay"]).0, Some(1), "it went with its command");

    let mut watch = Command::new(exe)
        .args(["service", "--server", &dev.server(), "watch", "pay", "-o", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(next(), json!({"service": "pay", "instances": []}));
    let kept = Registered::start(&dev, "pay", "i-2", &["--health", "warning"]);
    let told = next();
    assert_eq!(
        (&told["instances"][0]["instanceId"], &told["instances"][0]["health"]),
        (&json!("i-2"), &json!("warning"))
    );
    let (code, out, _) = run(&["ls", "p"]);
    assert_eq!((code, out.lines().nth(1)), (Some(0), Some("pay      1        1")), "{out}");
    let (code, out, _) = run(&["show", "pay", "--healthy"]);
    assert!(code == Some(0) && out.contains("127.0.0.1:80") && out.contains("warning"), "{out}");
    let (code, out, err) = run(&["deregister", "pay", "i-2"]);
    assert_eq!((code, out.as_str()), (Some(0), "deregistered\n"), "{err}");
    assert_eq!(next(), json!({"service": "pay", "instances": []}));
    watch.kill().unwrap();
    watch.wait().unwrap();
    drop(kept);
    for (args, code, says) in [
        (&["deregister", "pay", "i-2"][..], 1, "no such instance"),
        (&["register", "pay", "--port", "80"], 2, "--address"),
        (&["register", "pay", "--address", "h:80", "--port", "80"], 2, "the port goes with --port"),
        (&["register", "pay", "--address", "h", "--port", "0"], 2, "--port"),
        (&["register", "pay", "--address", "h", "--port", "80", "--meta", "x"], 2, "KEY=VALUE"),
        (&["register", "pay", "--address", "h", "--port", "80", "--", "/nowhere/x"], 127, "/nowhere/x"),
    ] {
        let (got, _, err) = run(args);
        assert!(got == Some(code) && err.contains(says), "{args:?}: {got:?} {err}");
    }
}

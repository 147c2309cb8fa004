//! Watches, over HTTP and from a shell, across the loss of a leader.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::support::{Dev, alone};

fn events(page: &Value) -> Vec<(String, u64)> {
    let events = page["events"].as_array().unwrap_or_else(|| panic!("{page}"));
    events.iter().map(|e| (e["name"].as_str().unwrap().to_owned(), e["version"].as_u64().unwrap())).collect()
}

#[test]
fn a_watch_by_pages_misses_nothing_through_a_restart_of_a_node() {
    let _alone = alone();
    let mut dev = Dev::anywhere(&["--shards", "8", "--processes"]);
    let path = "/watch?prefix=app/&kind=config";
    let mut next = dev.get(&format!("{path}&wait=0")).json()["next"].as_str().unwrap().to_owned();
    let mut told = Vec::new();
    for round in 1..=4_u64 {
        for n in 0..20 {
            // Whoever asks may have to wait for a new leader.
            let put = || {
                dev.call(
                    "PUT",
                    &format!("/config/app/{n:02}?raw"),
                    "v",
                    &[("Idempotency-Key", &format!("{round}-{n}"))],
                )
            };
            let made = (0..40).map(|_| put()).find(|put| put.status == 200).expect("it is put in the end");
            assert_eq!(made.number("version"), round);
        }
        if round == 2 {
            dev.kill(2);
            dev.restart(2);
        }
        while told.len() < 20 * round as usize {
            let page = dev.get(&format!("{path}&wait=10&limit=7&since={next}"));
            if page.status == 503 {
                continue;
            }
            assert_eq!(page.status, 200, "{page:?}");
            let page = page.json();
            told.extend(events(&page));
            next = page["next"].as_str().unwrap().to_owned();
        }
    }
    for n in 0..20 {
        let versions: Vec<u64> = told.iter().filter(|(name, _)| *name == format!("app/{n:02}")).map(|t| t.1).collect();
        assert_eq!(versions, [1, 2, 3, 4], "of {n}");
    }
    assert_eq!(told.len(), 80);
}

/// Read, then watch: nothing falls between.
#[test]
fn a_list_answers_the_token_from_which_to_watch() {
    let _alone = alone();
    let dev = Dev::anywhere(&["--shards", "4"]);
    let put = |n: u32| assert_eq!(dev.call("PUT", &format!("/config/app/{n:02}?raw"), "v", &[]).status, 200);
    (0..20).for_each(put);
    let list = dev.get("/config?prefix=app/").json();
    assert_eq!(list["configs"].as_array().map(Vec::len), Some(20), "{list}");
    let session = dev.open("worker-7", 10.0);
    dev.acquire("app/lock", &session);
    let locks = dev.get("/locks?prefix=app/").json();
    (5..10).for_each(put);
    let told = |of: &Value, what: &str| {
        let token = of["token"].as_str().unwrap_or_else(|| panic!("{of}"));
        let (mut told, mut next) = (Vec::new(), token.to_owned());
        loop {
            let page = dev.get(&format!("/watch?prefix=app/{what}&wait=0.3&since={next}")).json();
            let more = page["events"].as_array().unwrap_or_else(|| panic!("{page}"));
            if more.is_empty() {
                break;
            }
            told.extend(more.iter().map(|event| event["name"].as_str().unwrap().to_owned()));
            next = page["next"].as_str().unwrap().to_owned();
        }
        told.sort();
        told
    };
    let changed = ["app/05", "app/06", "app/07", "app/08", "app/09"];
    assert_eq!(told(&list, "&kind=config"), changed);
    assert_eq!(told(&locks, ""), changed, "the lock was taken before its list was made");
    assert_eq!(told(&list, "&kind=lock"), ["app/lock"]);
}

#[test]
fn the_command_line_prints_what_happens() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path(), &["--shards", "4"]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_wardlock"))
        .args(["watch", "--server", &dev.server(), "--prefix", "", "-o", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // It is there once it tells something.
    let session = dev.open("worker-7", 10.0);
    let beat = std::thread::scope(|scope| {
        let told = scope.spawn(|| lines.next().unwrap().unwrap());
        for n in 0.. {
            if told.is_finished() {
                break;
            }
            assert_eq!(dev.call("PUT", &format!("/config/beat/{n}?raw"), "v", &[]).status, 200);
            assert!(n < 1_000, "nothing is told");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        told.join().unwrap()
    });
    assert!(beat.contains("beat/"), "{beat}");
    let granted = dev.acquire("orders/42", &session);
    let lock_id = granted.json()["lockId"].clone();
    dev.release("orders/42", lock_id.as_str().unwrap());
    let mut told = lines
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap())
        .filter(|event| event["name"] == "orders/42");
    let (first, second) = (told.next().unwrap(), told.next().unwrap());
    assert_eq!(
        (&first["event"], &first["holder"], &first["lockId"]),
        (&json!("granted"), &json!("worker-7"), &lock_id)
    );
    assert_eq!((&second["event"], &second["reason"]), (&json!("ended"), &json!("released")));
    child.kill().unwrap();
    child.wait().unwrap();

    // From the token of the first, the second is told again, to whoever asks.
    let token = first["token"].as_str().unwrap();
    let page = dev.get(&format!("/watch?lock=orders/42&wait=5&since={token}")).json();
    assert_eq!(page["events"][0]["reason"], "released", "{page}");

    let refused = |args: &[&str], code, text: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_wardlock"))
            .args(["watch", "--server", &dev.server()])
            .args(args)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.contains(text)), (Some(code), true), "{args:?}: {said}");
    };
    refused(&[], 2, "a watch needs a name or a prefix");
    refused(&["--lock", "a", "--since", "nonsense"], 2, "no token of a watch");
    refused(&["--kind", "lock"], 2, "--prefix");
    refused(&["--config", "elsewhere", "--since", "AQEBAQU0k7EF"], 2, "does not fit");
}

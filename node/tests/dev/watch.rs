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

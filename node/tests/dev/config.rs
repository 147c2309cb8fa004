//! The configuration, over HTTP and from a shell.

use std::process::Command;

use serde_json::json;

use crate::support::{Dev, alone};

#[test]
fn values_have_versions_that_outlive_a_restart() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path(), &["--shards", "8"]);
    for n in 0..30 {
        let put = dev.call("PUT", &format!("/config/app/{n:02}"), &json!({"value": {"n": n}}).to_string(), &[]);
        assert_eq!((put.status, put.number("version")), (200, 1), "{put:?}");
    }
    // Only from the version that was read.
    let yaml = ("content-type", "application/yaml");
    assert_eq!(dev.call("PUT", "/config/app/00", "n: 1", &[yaml, ("If-Match", "\"1\"")]).number("version"), 2);
    assert_eq!(dev.call("PUT", "/config/app/00", "n: 2", &[yaml, ("If-Match", "\"1\"")]).status, 412);
    assert_eq!(dev.call("DELETE", "/config/app/01", "", &[]).number("version"), 2);
    // A list over all shards, in order, page by page.
    let (mut paths, mut after) = (Vec::new(), String::new());
    loop {
        let page = dev.get(&format!("/config?prefix=app/&limit=7&after={after}")).json();
        paths.extend(page["configs"].as_array().unwrap().iter().map(|one| one["path"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    let expected: Vec<String> = (0..30).filter(|n| *n != 1).map(|n| format!("app/{n:02}")).collect();
    assert_eq!(paths, expected);
    assert!(dev.stop().success());

    let dev = Dev::start(dir.path(), &["--shards", "8"]);
    assert_eq!(dev.get("/config/app/00?raw").body, "n: 1");
    assert_eq!(dev.get("/config/app/00?version=1").json()["value"], json!({"n": 0}));
    assert_eq!(dev.get("/config/app/01").status, 404);
    assert_eq!(dev.post("/config/app/01/rollback", &json!({"version": 1})).number("version"), 3);
    assert_eq!(dev.get("/config/app/01").json()["value"], json!({"n": 1}));
    let history = dev.get("/config/app/01?versions").json();
    let versions: Vec<_> = history["versions"].as_array().unwrap().iter().map(|one| &one["version"]).collect();
    assert_eq!(versions, [&json!(3), &json!(2), &json!(1)], "{history}");
}

#[test]
fn the_command_line_sets_edits_compares_and_rolls_back() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path(), &["--shards", "4"]);
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wardlock"));
        command
            .args(["config", "--server", &dev.server()])
            .args(args)
            .env("EDITOR", "sed -i s/one/two/")
            .env_remove("VISUAL");
        let output = command.output().expect("the binary runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let well = |args: &[&str]| {
        let (code, out, err) = run(args);
        assert_eq!(code, Some(0), "{args:?}: {out}{err}");
        out
    };
    let value = dir.path().join("value.yaml");
    std::fs::write(&value, "is: one\n").unwrap();
    let set = ["set", "app/x.yaml", "--file", value.to_str().unwrap(), "--type", "application/yaml"];
    assert_eq!(well(&set), "version 1: 8 bytes\n");
    assert_eq!(well(&["get", "app/x.yaml"]), "is: one\n");
    assert_eq!(well(&["edit", "app/x.yaml"]), "version 2: 8 bytes\n");
    assert_eq!(well(&["edit", "app/x.yaml"]), "unchanged\n");
    let diff = "--- app/x.yaml version 1\n+++ app/x.yaml version 2\n@@ -1 +1 @@\n-is: one\n+is: two\n";
    assert_eq!(well(&["diff", "app/x.yaml"]), diff);
    assert_eq!(well(&["rm", "app/x.yaml", "--expect", "2"]), "version 3: deleted\n");
    assert_eq!(well(&["rollback", "app/x.yaml", "1"]), "version 4: as in version 1\n");
    assert_eq!(well(&["get", "app/x.yaml", "--at", "2"]), "is: two\n");
    let log = well(&["log", "app/x.yaml", "-o", "json"]);
    let log: serde_json::Value = serde_json::from_str(&log).unwrap();
    assert_eq!(log[0]["contentType"], "application/yaml", "the type came back with the value");
    assert_eq!(log[1]["deleted"], true, "{log}");
    assert!(well(&["ls", "app/"]).contains("app/x.yaml"), "it is listed");

    for (args, code, says) in [
        (&["set", "app/x.yaml", "z", "--expect", "1"][..], 1, "version 4"),
        (&["get", "app/none"], 1, "no value"),
        (&["get", "app/x.yaml", "--at", "9"], 1, "config log"),
        (&["rollback", "app/x.yaml", "3"], 1, "deletion"),
        (&["rollback", "app/x.yaml", "latest"], 2, "not a version"),
        (&["set", "app/x.yaml"], 2, "required"),
        (&["set", "app/x.yaml", "--file", "/nowhere"], 1, "/nowhere"),
    ] {
        let (got, out, err) = run(args);
        assert_eq!((got, out.as_str()), (Some(code), ""), "{args:?}: {err}");
        assert!(err.contains(says), "{args:?}: {err}");
    }
}

//! The command line as a process: help, completions, exit codes, and what it says when nobody answers.

use std::process::{Command, Output};

fn wardlock(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wardlock")).env_clear().args(arguments).output().unwrap()
}

fn stdout(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn stderr(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[test]
fn help_lists_every_command() {
    let commands: [(&[&str], &[&str]); 5] = [
        (&[], &["dev", "node", "router", "certs", "lock", "elect", "session", "cluster", "completions"]),
        (&["lock"], &["run", "acquire", "release", "renew", "ls", "who", "queue", "break"]),
        (&["elect"], &["run", "campaign", "observe", "leader", "proclaim", "resign"]),
        (&["session"], &["open", "ls", "show", "keepalive", "close"]),
        (&["cluster"], &["show", "nodes", "shards", "transfer"]),
    ];
    for (path, expected) in commands {
        let out = wardlock(&[path, &["--help"]].concat());
        assert!(out.status.success());
        for command in expected {
            let listed = stdout(&out).lines().any(|line| line.trim_start().starts_with(&format!("{command} ")));
            assert!(listed, "{path:?}: {command} is not listed:\n{}", stdout(&out));
        }
    }
}

#[test]
fn completions_are_there_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let out = wardlock(&["completions", shell]);
        assert!(out.status.success());
        assert!(stdout(&out).contains("wardlock"), "{shell}");
    }
    let script = stdout(&wardlock(&["completions", "bash"]));
    let mut check = Command::new("bash").arg("-n").stdin(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut check.stdin.take().unwrap(), script.as_bytes()).unwrap();
    assert!(check.wait().unwrap().success(), "bash cannot read it");
}

#[test]
fn a_command_line_that_makes_no_sense_is_exit_code_two() {
    let wrong: [&[&str]; 12] = [
        &["lock", "run", "a"],
        &["lock", "run", "-n", "-w", "5", "a", "--", "true"],
        &["lock", "run", "--shared", "--permits", "2", "a", "--", "true"],
        &["lock", "run", "--permits", "0", "a", "--", "true"],
        &["lock", "run", "--ttl", "0.5", "a", "--", "true"],
        &["lock", "run", "", "--", "true"],
        &["lock", "acquire", "a", "--session", "no-id"],
        &["lock", "release", "a", "no-id"],
        &["lock", "break", "a"],
        &["lock", "who", "a", "--server", "https://h:1"],
        &["router"],
        &["certs", "--dir", "d"],
    ];
    for arguments in wrong {
        let out = wardlock(arguments);
        assert_eq!(out.status.code(), Some(2), "{arguments:?}: {}", stderr(&out));
    }
}

#[test]
fn dev_refuses_what_it_cannot_do() {
    for (arguments, expected) in [
        (&["dev", "--nodes", "0"][..], "--nodes"),
        (&["dev", "--shards", "0"], "--shards"),
        (&["dev", "--http", "0.0.0.0:7400"], "not a loopback address"),
        (&["dev", "--http", "7400"], "not IP:PORT"),
    ] {
        let out = wardlock(arguments);
        assert_eq!(out.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&out).contains(expected), "{arguments:?}: {}", stderr(&out));
    }
}

#[test]
fn dev_names_a_port_that_is_taken() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let out = wardlock(&["dev", "--http", &address]);
    assert_eq!(out.status.code(), Some(1));
    assert!(stderr(&out).contains(&format!("TCP port {} ", taken.local_addr().unwrap().port())), "{}", stderr(&out));
    assert!(stdout(&out).is_empty());
}

#[test]
fn a_server_that_is_down_is_one_clear_line_and_exit_code_one() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = format!("http://{free}");
    for arguments in [&["lock", "who", "a"][..], &["lock", "run", "a", "--", "true"], &["session", "ls"]] {
        let out = wardlock(&[arguments, &["--server", &server]].concat());
        // Everything behind `--` is the command's own.
        let out = if arguments.contains(&"--") {
            wardlock(&["lock", "run", "--server", &server, "a", "--", "true"])
        } else {
            out
        };
        assert_eq!(out.status.code(), Some(1), "{arguments:?}: {}", stderr(&out));
        assert_eq!(stderr(&out).lines().count(), 1, "{}", stderr(&out));
        assert!(stderr(&out).contains(&server), "{}", stderr(&out));
        assert!(stdout(&out).is_empty());
    }
}

#[test]
fn quic_addresses_need_certificates() {
    let out = wardlock(&["lock", "ls", "--server", "127.0.0.1:7401"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(stderr(&out).contains("--certs"), "{}", stderr(&out));
}

#[test]
fn certs_are_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let first = wardlock(&["certs", "--dir", path, "--node", "1=localhost,127.0.0.1", "--client"]);
    assert!(first.status.success(), "{}", stderr(&first));
    assert!(stdout(&first).contains("node-1.pem") && stdout(&first).contains("client.key"), "{}", stdout(&first));
    let again = wardlock(&["certs", "--dir", path, "--node", "1"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("node-1.pem"), "{}", stderr(&again));
}

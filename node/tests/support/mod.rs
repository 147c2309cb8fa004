//! Starts the real program for tests: `wardlock dev`, its nodes as processes, found by what it prints.

#![allow(dead_code, unused_imports, unreachable_pub, reason = "each test file uses its part")]

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, Hasher, RandomState},
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, PoisonError, mpsc},
    time::{Duration, Instant},
};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use serde_json::{Value, json};

/// How long a cluster may take to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

pub mod http;

pub use http::{Answer, exchange};

/// One cluster at a time: several starve each other, and then say nothing about the program.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running `wardlock dev`.
pub struct Dev {
    pub child: Child,
    /// The gateway's port; the nodes have those after it.
    pub port: u16,
    /// For each node its process and the command that starts it again.
    pub nodes: BTreeMap<u32, (u32, String)>,
    /// Everything that it printed so far.
    pub said: Vec<String>,
    lines: Mutex<mpsc::Receiver<String>>,
    restarted: Vec<Child>,
    frozen: Vec<u32>,
}

/// A port such that it and the next few are likely free: below those that the system gives to others.
pub fn free_port() -> u16 {
    let random = RandomState::new().build_hasher().finish();
    11_000 + u16::try_from(random % 2_000).unwrap() * 10
}

impl Dev {
    /// Starts it with its data in `dir`, and waits until it says that it is ready.
    pub fn start(dir: &Path, arguments: &[&str]) -> Dev {
        let mut all = vec!["--data-dir", dir.to_str().unwrap()];
        all.extend(arguments);
        Dev::anywhere(&all)
    }

    /// Starts it on some port.
    pub fn anywhere(arguments: &[&str]) -> Dev {
        for attempt in 0.. {
            match Dev::at(free_port(), arguments) {
                Ok(dev) => return dev,
                Err((_, said)) if attempt < 4 && said.contains("in use") => {}
                Err((status, said)) => panic!("wardlock dev did not get ready, {status}:\n{said}"),
            }
        }
        unreachable!("the loop ends by itself")
    }

    /// Starts it on this port. Where it ends instead of getting ready: how, and what it said.
    pub fn at(port: u16, arguments: &[&str]) -> Result<Dev, (ExitStatus, String)> {
        let mut child = wardlock()
            .args(["dev", "--http", &format!("127.0.0.1:{port}")])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (tell, lines) = mpsc::channel();
        follow(child.stdout.take().unwrap(), tell.clone());
        follow(child.stderr.take().unwrap(), tell);
        let (nodes, said) = (BTreeMap::new(), Vec::new());
        let mut dev =
            Dev { child, port, nodes, said, lines: Mutex::new(lines), restarted: Vec::new(), frozen: Vec::new() };
        let processes = if arguments.contains(&"--processes") { 3 } else { 0 };
        if dev.wait_for("Ctrl-C drains", PATIENCE)
            && (0..processes).all(|_| dev.wait_for("to start it again", PATIENCE))
        {
            return Ok(dev);
        }
        let _ = dev.child.kill();
        let status = dev.child.wait().unwrap();
        Err((status, dev.said.join("\n")))
    }

    /// Reads what it prints until a line contains `text`.
    pub fn wait_for(&mut self, text: &str, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while let Ok(line) = self.lines.get_mut().unwrap().recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            self.note(&line);
            let found = line.contains(text);
            self.said.push(line);
            if found {
                return true;
            }
        }
        false
    }

    fn note(&mut self, line: &str) {
        let Some((head, command)) = line.split_once("; to start it again: ") else { return };
        let mut words = head.split_whitespace();
        if let (Some("node"), Some(id), Some("is"), Some("process"), Some(pid)) =
            (words.next(), words.next(), words.next(), words.next(), words.next())
        {
            self.nodes.insert(id.parse().unwrap(), (pid.parse().unwrap(), command.to_owned()));
        }
    }

    /// The nodes' QUIC addresses.
    pub fn seeds(&self) -> Vec<String> {
        (1..=3).map(|n| format!("127.0.0.1:{}", self.port + n)).collect()
    }

    /// The address for `--server`.
    pub fn server(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Sends a signal to a node's process.
    pub fn signal(&self, node: u32, signal: Signal) {
        send(self.nodes[&node].0, signal);
    }

    /// Stops all the nodes' processes where they stand, until the end of this.
    pub fn freeze(&mut self) {
        let pids: Vec<u32> = self.nodes.values().map(|(pid, _)| *pid).collect();
        for pid in pids {
            send(pid, Signal::STOP);
            self.frozen.push(pid);
        }
    }

    /// Kills a node as the kernel would: no warning.
    pub fn kill(&mut self, node: u32) {
        self.end(node, Signal::KILL);
    }

    /// Asks a node to stop, and waits until it has.
    pub fn drain(&mut self, node: u32) {
        self.end(node, Signal::TERM);
        let pid = self.nodes[&node].0;
        wait_until("the node stops", PATIENCE, || !runs(pid));
    }

    fn end(&mut self, node: u32, signal: Signal) {
        self.signal(node, signal);
        // One that this test started again is its child.
        let pid = self.nodes[&node].0;
        if let Some(at) = self.restarted.iter().position(|child| child.id() == pid) {
            self.restarted.swap_remove(at).wait().unwrap();
        }
    }

    /// Starts a node again by the command that was printed, as a shell would.
    pub fn restart(&mut self, node: u32) {
        let command = self.nodes[&node].1.clone();
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("exec {command}")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = shell.spawn().unwrap();
        self.nodes.insert(node, (child.id(), command));
        self.restarted.push(child);
    }

    /// One exchange with the gateway, below `/api/v1`.
    pub fn call(&self, method: &str, path: &str, body: &str, headers: &[(&str, &str)]) -> Answer {
        let path = format!("/api/v1{path}");
        exchange(self.port, method, &path, body.as_bytes(), headers).unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    pub fn get(&self, path: &str) -> Answer {
        self.call("GET", path, "", &[])
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, &body.to_string(), &[("content-type", "application/json")])
    }

    /// Opens a session and gives its id.
    pub fn open(&self, client_id: &str, ttl: f64) -> String {
        let opened = self.post("/sessions", &json!({"clientId": client_id, "ttl": ttl}));
        assert_eq!(opened.status, 201, "{opened:?}");
        opened.text("sessionId")
    }

    /// Takes a lock that lives as long as its session.
    pub fn acquire(&self, name: &str, session: &str) -> Answer {
        self.post(&format!("/locks/{name}/acquire"), &json!({"sessionId": session}))
    }

    /// Gives a lock back.
    pub fn release(&self, name: &str, lock_id: &str) -> Answer {
        self.post(&format!("/locks/{name}/release"), &json!({"lockId": lock_id}))
    }

    /// Waits until the answer of a GET pleases.
    pub fn until(&self, path: &str, patience: Duration, pleases: impl Fn(&Answer) -> bool) -> Answer {
        let end = Instant::now() + patience;
        loop {
            let answer = self.get(path);
            if pleases(&answer) {
                return answer;
            }
            assert!(Instant::now() < end, "{path} still is {answer:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asks it to stop, and gives its exit status.
    pub fn stop(self) -> ExitStatus {
        self.stop_by(Signal::TERM)
    }

    /// Sends it a signal, and gives its exit status.
    pub fn stop_by(mut self, signal: Signal) -> ExitStatus {
        send(self.child.id(), signal);
        self.child.wait().unwrap()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        for pid in &self.frozen {
            let _ = kill_process(Pid::from_raw(*pid as i32).unwrap(), Signal::CONT);
        }
        for child in &mut self.restarted {
            let _ = child.kill();
            let _ = child.wait();
        }
        // Its own nodes end with it, and need what they keep no longer than that.
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The program, with nothing of this shell's that is meant for it but a mistake on purpose.
pub fn wardlock() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wardlock"));
    for (name, _) in std::env::vars_os() {
        let is_planted = cfg!(wardlock_planted) && name == "WARDLOCK_PLANT";
        if name.to_string_lossy().starts_with("WARDLOCK_") && !is_planted {
            command.env_remove(name);
        }
    }
    command
}

/// Sends a signal to a process that is there.
pub fn send(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

/// Whether a process runs. One that nobody has buried does not.
pub fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Waits until something holds.
pub fn wait_until(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + patience;
    while !holds() {
        assert!(Instant::now() < end, "it did not come to pass: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn follow(from: impl Read + Send + 'static, tell: mpsc::Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                break;
            }
        }
    });
}

//! Starts the real program for tests: `wardlock dev`, its nodes as processes, found by what it prints.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

/// A running `wardlock dev`.
pub struct Dev {
    pub child: Child,
    /// The gateway's port.
    pub port: u16,
    pub dir: tempfile::TempDir,
    /// For each node its process and the command that starts it again.
    pub nodes: BTreeMap<u32, (u32, String)>,
    lines: mpsc::Receiver<String>,
    /// Everything that it printed so far.
    pub said: Vec<String>,
    restarted: Vec<Child>,
}

/// A port such that it and the next few are likely free.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().min(65_000)
}

impl Dev {
    /// Starts it and waits until it says that it is ready.
    pub fn start(arguments: &[&str]) -> Dev {
        for attempt in 0.. {
            let port = free_port();
            let dir = tempfile::tempdir().unwrap();
            match Dev::try_start(arguments, port, dir) {
                Ok(dev) => return dev,
                Err(said) if attempt < 4 && said.iter().any(|line| line.contains("in use")) => {}
                Err(said) => panic!("wardlock dev did not get ready:\n{}", said.join("\n")),
            }
        }
        unreachable!("the loop ends by itself")
    }

    fn try_start(arguments: &[&str], port: u16, dir: tempfile::TempDir) -> Result<Dev, Vec<String>> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_wardlock"))
            .arg("dev")
            .args(["--http", &format!("127.0.0.1:{port}"), "--data-dir"])
            .arg(dir.path().join("data"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (tell, lines) = mpsc::channel();
        let out = child.stdout.take().unwrap();
        let err = child.stderr.take().unwrap();
        follow(out, tell.clone());
        follow(err, tell);
        let mut dev = Dev { child, port, dir, nodes: BTreeMap::new(), lines, said: Vec::new(), restarted: Vec::new() };
        match dev.wait_for("Ctrl-C drains", Duration::from_secs(120)) {
            true => Ok(dev),
            false => Err(std::mem::take(&mut dev.said)),
        }
    }

    /// Reads what it prints until a line contains `text`.
    pub fn wait_for(&mut self, text: &str, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while let Ok(line) = self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
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

    /// The directory of the client's certificates.
    pub fn certs(&self) -> PathBuf {
        self.dir.path().join("data").join("certs")
    }

    /// Sends a signal to a node's process.
    pub fn signal(&self, node: u32, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.nodes[&node].0 as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Kills a node as the kernel would: no warning.
    pub fn kill(&mut self, node: u32) {
        self.signal(node, rustix::process::Signal::KILL);
        // One that this test started again is its child.
        let pid = self.nodes[&node].0;
        if let Some(at) = self.restarted.iter().position(|child| child.id() == pid) {
            self.restarted.swap_remove(at).wait().unwrap();
        }
    }

    /// Starts a node again by the command that was printed, as a shell would.
    pub fn restart(&mut self, node: u32) {
        let command = self.nodes[&node].1.clone();
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join(format!("restarted-{node}.log")))
            .unwrap();
        let child = Command::new("sh")
            .arg("-c")
            .arg(format!("exec {command}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.nodes.insert(node, (child.id(), command));
        self.restarted.push(child);
    }

    /// One HTTP exchange: status and body.
    pub fn http(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        http(self.port, method, path, body).unwrap()
    }

    /// Asks it to stop and gives its exit status.
    pub fn stop(mut self) -> std::process::ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        for child in &mut self.restarted {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
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

/// One HTTP exchange with a gateway on loopback.
pub fn http(port: u16, method: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split_whitespace().nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok((status, body))
}

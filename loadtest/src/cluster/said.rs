//! What `wardlock dev --processes` prints, understood.

use std::net::SocketAddr;

/// A line that matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// The gateway listens at this address.
    Ready(String),
    /// Services are found by DNS at this address.
    Dns(SocketAddr),
    /// A node, its process and the shell command that starts it again.
    Node { id: u32, pid: u32, command: String },
}

/// What the line says, if it is one of those.
pub(super) fn understand(line: &str) -> Option<Said> {
    if let Some(server) = line.strip_prefix("Wardlock is ready at ") {
        return server.starts_with("http://").then(|| Said::Ready(server.trim_end().to_owned()));
    }
    if let Some((ip, rest)) = line.strip_prefix("dig @").and_then(|at| at.split_once(" -p ")) {
        let port = rest.split_once(' ')?.0.parse().ok()?;
        return Some(Said::Dns(SocketAddr::new(ip.parse().ok()?, port)));
    }
    let (head, command) = line.strip_prefix("node ")?.split_once("; to start it again: ")?;
    let (id, pid) = head.split_once(" is process ")?;
    let (id, pid) = (id.parse().ok()?, pid.parse().ok()?);
    (pid > 1 && !command.trim().is_empty()).then(|| Said::Node { id, pid, command: command.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it is printed, blanks in paths and all.
    const PRINTED: &str = r#"Wardlock is ready at http://127.0.0.1:35211
3 nodes, 16 shards; data in /my dir, kept

Paste these in order: open a session, take a lock, look at it.

S=$(curl -s -X POST http://127.0.0.1:35211/api/v1/sessions -d '{"clientId":"me","ttl":60}')

Or find a service by DNS:

dig @127.0.0.1 -p 7453 SRV payments.service.wardlock

Ctrl-C drains and stops.

node 1 is process 4711; to start it again: /usr/bin/wardlock node --config '/my dir/node-1.toml' --certs '/my dir/certs'
node 2 is process 4712; to start it again: /usr/bin/wardlock node --config '/my dir/node-2.toml' --certs '/my dir/certs'
"#;

    #[test]
    fn the_address_the_processes_and_the_commands_are_found() {
        let said: Vec<Said> = PRINTED.lines().filter_map(understand).collect();
        let command = |n| format!("/usr/bin/wardlock node --config '/my dir/node-{n}.toml' --certs '/my dir/certs'");
        let expected = [
            Said::Ready("http://127.0.0.1:35211".to_owned()),
            Said::Dns(([127, 0, 0, 1], 7453).into()),
            Said::Node { id: 1, pid: 4711, command: command(1) },
            Said::Node { id: 2, pid: 4712, command: command(2) },
        ];
        assert_eq!(said, expected);
    }

    /// A signal to process 0 or 1, or a negative one, would go to others.
    #[test]
    fn what_is_not_quite_such_a_line_is_none() {
        for line in [
            "node 1 (process 4711) ended: signal: 9 (SIGKILL); its log is /d/node-1.log",
            "node x is process 1; to start it again: y",
            "node 1 is process 0; to start it again: y",
            "node 1 is process 1; to start it again: y",
            "node 1 is process -7; to start it again: y",
            "node 1 is process 4711; to start it again: ",
            "Wardlock is ready at last",
            "dig @127.0.0.1 -p 70000 SRV payments.service.wardlock",
        ] {
            assert_eq!(understand(line), None, "{line}");
        }
    }
}

//! What `wardlock dev` says when it is ready: lines that work as they stand.

use std::{net::SocketAddr, path::Path};

use super::plan::Plan;

/// The text. `http` is the gateway's `host:port`, `dns` where services are found, `program` this binary.
pub fn greeting(
    plan: &Plan,
    shards: u32,
    http: &str,
    dns: Option<SocketAddr>,
    program: &Path,
    temporary: bool,
) -> String {
    let api = format!("http://{http}/api/v1");
    let nodes = plan.nodes.len();
    let kept = if temporary { "removed at the end" } else { "kept" };
    let (dir, certs) = (plan.dir.display(), quote(&plan.certs()));
    let program = quote(program);
    let dns = dns.map(|at| {
        let (ip, port) = (at.ip(), at.port());
        format!("Or find a service by DNS:\n\ndig @{ip} -p {port} SRV payments.service.wardlock\n\n")
    });
    let dns = dns.unwrap_or_default();
    format!(
        r#"Wardlock is ready at http://{http}
{nodes} nodes, {shards} shards; data in {dir}, {kept}

Paste these in order: open a session, take a lock, look at it.

S=$(curl -s -X POST {api}/sessions -d '{{"clientId":"me","ttl":60}}' | sed 's/.*"sessionId": *"\([^"]*\)".*/\1/')
curl -s -X POST {api}/locks/orders/42/acquire -d '{{"timeout":30,"sessionId":"'$S'"}}'
curl -s {api}/locks/orders/42

Or use the command line from another shell:

export WARDLOCK_SERVER=http://{http} WARDLOCK_CERTS={certs}
{program} lock run demo -- sh -c 'echo "token $WARDLOCK_TOKEN"'

{dns}Ctrl-C drains and stops.
"#
    )
}

/// The command that starts a node again, from any shell and any directory.
pub fn restart_command(plan: &Plan, node: wardlock_placement::NodeId, program: &Path) -> String {
    // The flag is there for shells that have WARDLOCK_CERTS set to something else.
    let (file, certs) = (quote(&plan.file(node)), quote(&plan.certs()));
    format!("{} node --config {file} --certs {certs}", quote(program))
}

/// The path as one word of a POSIX shell.
fn quote(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | '+' | '=' | ':' | '@' | '%');
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use wardlock_placement::NodeId;

    use super::*;

    fn plan(dir: &str) -> Plan {
        Plan::new(Path::new(dir), &[SocketAddr::from(([127, 0, 0, 1], 7401))], 4)
    }

    #[test]
    fn a_restart_command_survives_blanks_and_quotes_in_paths() {
        let command = restart_command(&plan("/my dir"), NodeId(1), Path::new("/it's/wardlock"));
        assert_eq!(command, r"'/it'\''s/wardlock' node --config '/my dir/node-1.toml' --certs '/my dir/certs'");
    }

    /// The lines go through a real shell, with a `curl` that answers as the gateway does.
    #[test]
    fn the_curl_lines_work_as_they_stand() {
        let text = greeting(&plan("/d"), 4, "127.0.0.1:7400", None, Path::new("wardlock"), true);
        let lines: Vec<&str> = text.lines().filter(|line| line.contains("curl ")).collect();
        assert_eq!(lines.len(), 3);
        let fake = r#"curl() { case "$*" in *sessions*) echo '{"clientId":"me","sessionId":"abc","ttl":60}';; *) echo "$@";; esac; }"#;
        let script = format!("{fake}\n{}", lines.join("\n"));
        let out = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&out.stdout),
            "-s -X POST http://127.0.0.1:7400/api/v1/locks/orders/42/acquire -d {\"timeout\":30,\"sessionId\":\"abc\"}\n\
             -s http://127.0.0.1:7400/api/v1/locks/orders/42\n"
        );
    }
}

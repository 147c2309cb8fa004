//! Wardlock over HTTP and JSON, through a gateway, as applications without a client library use it.

mod connections;

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;
use wardlock_machine::SessionId;

use self::connections::Connections;
use super::{
    About, Acquired, Failure, Grant, How, PATIENCE, Place,
    keys::{NAME_BYTES, held, name_of},
    seats::Seats,
};
use crate::proc;

/// Without `--connections`.
const CONNECTIONS: u32 = 256;

/// See the [module](self).
pub(crate) struct Http {
    connections: Connections,
    seats: Seats,
    gateway: String,
    /// The nodes' QUIC addresses.
    nodes: Vec<String>,
    shards: u32,
}

/// What any answer may hold that matters here.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Answer {
    /// Of a refusal.
    code: Option<String>,
    session_id: Option<String>,
    fencing_token: Option<u64>,
    waited_ms: u64,
}

/// What the gateway says of its cluster.
#[derive(Deserialize)]
struct Cluster {
    shards: u32,
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    quic: String,
}

impl Http {
    /// Connects to the gateway that `place` names.
    pub(crate) async fn connect(place: &Place, sessions: u32) -> anyhow::Result<Http> {
        let address = place.target.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        let gateway = address.filter(|address| wardlock_router::split_host_port(address).is_ok());
        let gateway = gateway.ok_or_else(|| {
            anyhow::anyhow!("{:?} is no gateway's address: --protocol http needs http://HOST:PORT", place.target)
        })?;
        let connections = Connections::new(gateway, place.connections.unwrap_or(CONNECTIONS));
        let unreachable = |why: String| {
            anyhow::anyhow!("cannot reach {}: {why} (is it running? `wardlock dev` starts a cluster)", place.target)
        };
        let (status, body) = connections
            .send(Method::GET, "/api/v1/cluster", Bytes::new(), PATIENCE)
            .await
            .map_err(|failure| unreachable(failure.0))?;
        let cluster = serde_json::from_slice(&body);
        let Cluster { shards, nodes } =
            cluster.map_err(|_| unreachable(format!("it answers {status}, and no cluster")))?;
        let nodes = nodes.into_iter().map(|node| node.quic).collect();
        Ok(Http { connections, seats: Seats::new(sessions), gateway: gateway.to_owned(), nodes, shards })
    }

    pub(crate) async fn open(&self, session: u32, ttl: Duration) -> Result<(), Failure> {
        let body = json!({"clientId": format!("load-{session}"), "ttl": ttl.as_secs_f64()});
        let (status, answer) = self.call(Method::POST, "/api/v1/sessions", body.to_string(), PATIENCE).await?;
        let id = answer.session_id.as_deref().and_then(|id| id.parse::<SessionId>().ok());
        match id.filter(|_| status.is_success()) {
            Some(id) => self.seats.set(session, id),
            None => Err(refused(status, answer)),
        }
    }

    pub(crate) async fn close(&self, session: u32) -> Result<(), Failure> {
        let path = format!("/api/v1/sessions/{}", self.seats.id(session)?);
        let (status, answer) = self.call(Method::DELETE, &path, String::new(), PATIENCE).await?;
        if status.is_success() { Ok(()) } else { Err(refused(status, answer)) }
    }

    pub(crate) async fn keep_alive(&self, session: u32) -> Result<bool, Failure> {
        let path = format!("/api/v1/sessions/{}/keepalive", self.seats.id(session)?);
        self.verdict(&path, String::new()).await
    }

    pub(crate) async fn acquire(&self, session: u32, name: u64, how: How) -> Result<Acquired, Failure> {
        let id = self.seats.id(session)?;
        let mode = if how.shared { "shared" } else { "exclusive" };
        let lease = how.lease.map(|lease| format!(r#","timeout":{}"#, lease.as_secs_f64())).unwrap_or_default();
        let body = format!(r#"{{"sessionId":"{id}","mode":"{mode}","wait":{}{lease}}}"#, how.wait.as_secs_f64());
        let patience = PATIENCE.saturating_add(how.wait);
        let (status, answer) = self.call(Method::POST, &lock(name, "/acquire"), body, patience).await?;
        match (answer.fencing_token, answer.code.as_deref()) {
            (Some(token), _) if status.is_success() => {
                let grant = Grant { token, id: id.0 };
                Ok(Acquired::Granted { grant, queued: answer.waited_ms > 0 })
            }
            (_, Some("held" | "already-held")) => Ok(Acquired::Held),
            (_, Some("wait-timeout")) => Ok(Acquired::TimedOut),
            _ => Err(refused(status, answer)),
        }
    }

    pub(crate) async fn renew(&self, _session: u32, name: u64, grant: Grant, lease: Duration) -> Result<bool, Failure> {
        let body = format!(r#"{{"lockId":"{}","timeout":{}}}"#, held(name, grant).1, lease.as_secs_f64());
        self.verdict(&lock(name, "/renew"), body).await
    }

    pub(crate) async fn release(&self, _session: u32, name: u64, grant: Grant) -> Result<bool, Failure> {
        let body = format!(r#"{{"lockId":"{}"}}"#, held(name, grant).1);
        self.verdict(&lock(name, "/release"), body).await
    }

    pub(crate) async fn read(&self, name: u64) -> Result<Option<u64>, Failure> {
        let (status, answer) = self.call(Method::GET, &lock(name, ""), String::new(), PATIENCE).await?;
        match (status, answer.code.as_deref()) {
            (StatusCode::OK, _) => Ok(answer.fencing_token),
            (StatusCode::NOT_FOUND, Some("lock-free")) => Ok(None),
            _ => Err(refused(status, answer)),
        }
    }

    /// The gateway keeps to itself how names are hashed.
    pub(crate) fn shard_of(&self, _name: u64) -> Option<(u32, Option<u32>)> {
        None
    }

    /// The nodes, and the gateway itself.
    pub(crate) fn server_pids(&self) -> Vec<u32> {
        let mut pids = proc::listeners(proc::Transport::Udp, self.nodes.iter().map(String::as_str));
        pids.extend(proc::listeners(proc::Transport::Tcp, std::iter::once(self.gateway.as_str())));
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    pub(crate) fn about(&self) -> About {
        About {
            system: "wardlock".to_owned(),
            protocol: "http".to_owned(),
            nodes: u32::try_from(self.nodes.len()).unwrap_or(u32::MAX),
            shards: self.shards,
            connections: self.connections.count(),
            consistency: "linearizable".to_owned(),
        }
    }

    /// Whether what the call is about is still there.
    async fn verdict(&self, path: &str, body: String) -> Result<bool, Failure> {
        let (status, answer) = self.call(Method::POST, path, body, PATIENCE).await?;
        match status {
            status if status.is_success() => Ok(true),
            StatusCode::GONE => Ok(false),
            StatusCode::NOT_FOUND if answer.code.as_deref() == Some("unknown-session") => Ok(false),
            _ => Err(refused(status, answer)),
        }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: String,
        patience: Duration,
    ) -> Result<(StatusCode, Answer), Failure> {
        let (status, body) = self.connections.send(method, path, Bytes::from(body), patience).await?;
        let answer = serde_json::from_slice(&body);
        Ok((status, answer.map_err(|_| Failure(format!("status {} without JSON", status.as_u16())))?))
    }
}

/// The path of a lock, and of what is to be done with it.
fn lock(name: u64, verb: &str) -> String {
    const LOCKS: &str = "/api/v1/locks/";
    let mut text = [0; NAME_BYTES];
    [LOCKS, name_of(name, &mut text), verb].concat()
}

/// A refusal that is no answer here. Its code is stable.
fn refused(status: StatusCode, answer: Answer) -> Failure {
    Failure(answer.code.unwrap_or_else(|| format!("status {}", status.as_u16())))
}

#[cfg(test)]
mod tests;

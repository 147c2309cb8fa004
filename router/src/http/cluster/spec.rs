//! What is said of the calls on the cluster, and of the probes.

#![allow(dead_code, reason = "shapes: what they describe is read field by field")]

use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    super::{
        Health,
        openapi::{Described, get, post, shapes},
        render::Success,
    },
    ClusterDoc, Nodes, Shards,
};

/// Who shall lead.
#[derive(ToSchema)]
struct Transfer {
    /// A node that has a replica of the shard.
    #[schema(value_type = shapes::NodeId)]
    to: (),
}

pub(in super::super) fn calls() -> Vec<Described> {
    let text = || json!({"type": "string"});
    let calls = vec![
        get("cluster", "/cluster", "Shows the cluster").answers::<ClusterDoc<'_>>(
            200,
            "Its name, its map's version, where its nodes are.",
            json!({"cluster": "production", "mapVersion": 3, "incarnation": 1, "shards": 16, "nodes": [address()]}),
        ),
        get("nodes", "/cluster/nodes", "Shows the nodes, and whether they answer").answers::<Nodes<'_>>(
            200,
            "All of them.",
            json!({"mapVersion": 3, "nodes": [node()]}),
        ),
        get("shards", "/cluster/shards", "Shows the shards, who leads them, and how far the replicas are")
            .answers::<Shards>(
                200,
                "The placement group and all shards.",
                json!({"mapVersion": 3, "placement": null, "shards": [shard()]}),
            ),
        post("transfer", "/cluster/shards/{shard}/transfer", "Hands a shard's leadership to another node")
            .takes::<Transfer>(json!({"to": 2}))
            .reads()
            .answers::<Success>(200, "It is on its way.", json!({"success": true}))
            .refuses(&["outcome-unknown", "unknown-path", "unknown-shard"]),
        get("livez", "/livez", "Whether the process lives").about("At the root as well.").answers::<Health>(
            200,
            "It does.",
            json!({"status": "alive"}),
        ),
        get("readyz", "/readyz", "Whether the process can serve")
            .about("At the root as well.")
            .answers::<Health>(200, "It can.", json!({"status": "ready"}))
            .refuses(&["not-ready"]),
        get("metrics", "/metrics", "Metrics, as Prometheus reads them").about("At the root as well.").answers_as(
            200,
            "In the text format.",
            "text/plain",
            text(),
            json!("wardlock_sessions 3\n"),
        ),
        get("openapi", "/openapi.json", "This document").about("At the root as well.").answers_as(
            200,
            "OpenAPI 3.1.",
            "application/json",
            json!({"type": "object"}),
            json!({"openapi": "3.1.0"}),
        ),
    ];
    calls.into_iter().map(|call| call.tag("cluster")).collect()
}

fn address() -> Value {
    json!({"id": 1, "quic": "wl1.example.net:7401", "http": null, "domain": "zone-a"})
}

fn node() -> Value {
    let mut node = address();
    node["reachable"] = true.into();
    node["version"] = "0.1.0".into();
    node["leads"] = 6.into();
    node["replicas"] = 17.into();
    node
}

fn shard() -> Value {
    let replica = json!({
        "node": 1, "replica": 4, "reachable": true, "lag": 0, "lastLog": 100, "applied": 100, "snapshot": null,
    });
    json!({"id": 1, "epoch": 1, "leader": 1, "term": 4, "replicas": [replica]})
}

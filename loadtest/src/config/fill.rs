//! Much configuration: what it costs, and whether it comes back.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use tokio::time::{sleep, timeout};
use wardlock_machine::Version;
use wardlock_placement::NodeId;
use wardlock_router::Client;

use super::Options;
use crate::{
    cluster::{Cluster, health},
    proc,
    progress::Progress,
    target::PATIENCE,
    through,
    trial::Trial,
};

/// How many writes or reads are under way at once.
const AT_ONCE: usize = 64;
/// How long a node may take to be well again.
const HEAL: Duration = Duration::from_secs(180);
/// Snapshots are over when nothing has grown for so long.
const QUIET: Duration = Duration::from_secs(3);
/// So many versions before the present one are read of each path: more are never kept.
const LOOKED_AT: u32 = 32;

/// What it came to.
#[derive(Debug, Serialize)]
pub(super) struct Filled {
    paths: u32,
    size: u32,
    versions: u32,
    seconds: f64,
    written_mb_per_s: f64,
    nodes: Vec<Node>,
    restart: Restart,
    /// Of all paths.
    kept_versions_mean: f64,
    kept_versions_least: u32,
}

/// What a node takes.
#[derive(Debug, Serialize)]
struct Node {
    node: u32,
    memory_before_mb: f64,
    memory_mb: f64,
    log_mb: f64,
    snapshots_mb: f64,
}

/// A node that was killed and started again.
#[derive(Debug, Serialize)]
struct Restart {
    node: u32,
    /// Until it told of itself, and until it had caught up in every shard.
    answers_after_s: f64,
    well_after_s: f64,
    memory_mb: f64,
}

/// What a path has at a version.
fn value(path: u32, version: u32, size: u32) -> Vec<u8> {
    let mut value = format!("{path} {version} ").into_bytes();
    // Not the same byte over and over.
    let mut state = u64::from(path) << 32 | u64::from(version) | 1;
    while value.len() < size as usize {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        value.extend_from_slice(&(state >> 16).to_be_bytes()[2..]);
    }
    value.truncate(size as usize);
    value
}

fn fill_path(path: u32) -> String {
    format!("fill/{path}")
}

/// Puts a value to each of so many paths, once, whatever is repeated.
pub(super) async fn put_all(
    clients: &[Client],
    paths: u32,
    at_once: usize,
    what: impl Fn(u32) -> (String, Vec<u8>) + Copy,
) -> anyhow::Result<()> {
    let puts = stream::iter(0..paths).map(|number| async move {
        let (path, value) = what(number);
        let client = &clients[number as usize % clients.len()];
        through::put(client, &path, &value).await.with_context(|| path.clone())
    });
    puts.buffer_unordered(at_once).try_for_each(|_| async { Ok(()) }).await
}

/// Fills, measures, kills, starts again and reads all of it. Beside the figures, what is wrong.
pub(super) async fn fill(
    options: &Options,
    cluster: &mut Cluster,
    clients: &[Client],
) -> anyhow::Result<(Filled, Vec<String>)> {
    let Options { fill: paths, fill_size: size, versions, trial: Trial { nodes, .. }, .. } = *options;
    let memory = |cluster: &Cluster, node| mb(cluster.pid(node).and_then(|pid| proc::memory(&[pid])));
    let before: Vec<f64> = (1..=nodes).map(|node| memory(cluster, node)).collect();
    let mut progress = Progress::new("versions of all paths", versions.into());
    let began = Instant::now();
    for version in 1..=versions {
        put_all(clients, paths, AT_ONCE, |path| (fill_path(path), value(path, version, size))).await?;
        progress.at(version.into());
    }
    progress.end();
    let seconds = began.elapsed().as_secs_f64();
    settle(cluster, nodes).await;
    let files = |node, name: &str| mb(std::fs::metadata(cluster.data_of(node).join(name)).ok().map(|file| file.len()));
    let taken = (1..=nodes).zip(before).map(|(node, memory_before_mb)| Node {
        node,
        memory_before_mb,
        memory_mb: memory(cluster, node),
        log_mb: size_of(cluster, node) - files(node, SNAPSHOTS),
        snapshots_mb: files(node, SNAPSHOTS),
    });
    let taken: Vec<Node> = taken.collect();
    let client = &clients[0];
    let node = health::well(client, HEAL).await?.busiest().context("no node leads a shard")?;
    let restart = restart(cluster, client, node).await?;
    lead_all(client, node).await?;
    let (kept, failures) = read_all(options, clients).await;
    let filled = Filled {
        paths,
        size,
        versions,
        seconds,
        written_mb_per_s: f64::from(paths) * f64::from(size) * f64::from(versions) / 1e6 / seconds,
        nodes: taken,
        restart: Restart { memory_mb: memory(cluster, node), ..restart },
        kept_versions_mean: kept.iter().copied().map(f64::from).sum::<f64>() / kept.len().max(1) as f64,
        kept_versions_least: kept.iter().copied().min().unwrap_or(0),
    };
    Ok((filled, failures))
}

/// The file of a node's snapshots.
const SNAPSHOTS: &str = "snapshots.redb";

fn mb(bytes: Option<u64>) -> f64 {
    bytes.map_or(f64::NAN, |bytes| bytes as f64 / 1e6)
}

/// All files of a node.
fn size_of(cluster: &Cluster, node: u32) -> f64 {
    let entries = std::fs::read_dir(cluster.data_of(node)).into_iter().flatten().flatten();
    mb(Some(entries.filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).sum()))
}

/// Waits until no snapshot is being taken any more: no node's files grow.
async fn settle(cluster: &Cluster, nodes: u32) {
    let sizes = || -> Vec<f64> { (1..=nodes).map(|node| size_of(cluster, node)).collect() };
    let (mut last, mut since) = (sizes(), Instant::now());
    while since.elapsed() < QUIET {
        sleep(Duration::from_millis(200)).await;
        let now = sizes();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
}

async fn restart(cluster: &mut Cluster, client: &Client, node: u32) -> anyhow::Result<Restart> {
    cluster.kill(node).await?;
    // The others elect leaders; that is not what is measured.
    sleep(Duration::from_secs(2)).await;
    let began = Instant::now();
    cluster.restart(node)?;
    let answers = async {
        while client.status(NodeId(node), Duration::from_millis(500)).await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(HEAL, answers).await.with_context(|| format!("node {node} does not answer again"))?;
    let answers_after_s = began.elapsed().as_secs_f64();
    health::well(client, HEAL).await?;
    Ok(Restart { node, answers_after_s, well_after_s: began.elapsed().as_secs_f64(), memory_mb: f64::NAN })
}

/// Makes a node the leader of every shard, if only for a moment.
async fn lead_all(client: &Client, node: u32) -> anyhow::Result<()> {
    let until = Instant::now() + HEAL;
    let groups: Vec<_> = client.map().shards().map(|(group, ..)| group).collect();
    loop {
        let led = health::well(client, HEAL).await?.led_by(node);
        let missing: Vec<_> = groups.iter().filter(|group| !led.contains(&group.0)).collect();
        // Whoever spreads leaders does so meanwhile: most are enough.
        if missing.len() * 4 <= groups.len() {
            return Ok(());
        }
        ensure!(Instant::now() < until, "node {node} leads only {} of {} shards", led.len(), groups.len());
        for group in missing {
            // Another try follows.
            let _ = client.transfer(*group, NodeId(node), PATIENCE).await;
        }
    }
}

/// Reads every path and every version of it that is kept: how many each has, and what is wrong.
async fn read_all(options: &Options, clients: &[Client]) -> (Vec<u32>, Vec<String>) {
    let Options { fill: paths, fill_size: size, versions, .. } = *options;
    let read = stream::iter(0..paths).map(|path| async move {
        let called = fill_path(path);
        let config = clients[path as usize % clients.len()].config(called.as_str()).patience(PATIENCE);
        let now = config.get().await?.with_context(|| format!("{called} has no value"))?;
        let is_right = |version: u32, found: Option<&[u8]>| found == Some(&value(path, version, size)[..]);
        ensure!(now.version == Version(versions.into()), "{called} is at version {}", now.version);
        ensure!(is_right(versions, now.value.as_ref().map(|value| &value[..])), "{called} has another value");
        let kept = config.versions().await?;
        for view in kept.iter().skip(1).take(LOOKED_AT as usize) {
            let then = config.at(view.version).await?.with_context(|| format!("{called} lost {}", view.version))?;
            let right = is_right(view.version.0 as u32, then.value.as_ref().map(|value| &value[..]));
            ensure!(right, "{called} had another value at version {}", view.version);
        }
        anyhow::Ok(kept.len() as u32)
    });
    let mut progress = Progress::new("paths read", paths.into());
    let (mut kept, mut failures) = (Vec::new(), Vec::new());
    let mut read = read.buffer_unordered(AT_ONCE);
    while let Some(read) = read.next().await {
        match read {
            Ok(versions) => kept.push(versions),
            Err(error) if failures.len() < 5 => failures.push(format!("{error:#}")),
            Err(_) => {}
        }
        progress.at(kept.len() as u64);
    }
    progress.end();
    (kept, failures)
}

pub(super) fn text(filled: &Filled) -> String {
    let Filled { paths, size, versions, seconds, written_mb_per_s, restart, .. } = filled;
    let mut text = format!(
        "{paths} paths of {size} bytes, {versions} versions each: written in {seconds:.1} s, {written_mb_per_s:.1} MB/s; kept of \
         each {:.1} versions, {} at the least\n",
        filled.kept_versions_mean, filled.kept_versions_least
    );
    for node in &filled.nodes {
        text += &format!(
            "node {}: {:.0} MB of memory ({:.0} before), {:.0} MB of snapshots, {:.0} MB of log\n",
            node.node, node.memory_mb, node.memory_before_mb, node.snapshots_mb, node.log_mb
        );
    }
    text += &format!(
        "node {} was killed and started again: it answered after {:.2} s, had caught up after {:.2} s, and takes {:.0} MB\n",
        restart.node, restart.answers_after_s, restart.well_after_s, restart.memory_mb
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_of_every_path_is_another_value() {
        let all: std::collections::BTreeSet<Vec<u8>> =
            (0..20).flat_map(|path| (1..20).map(move |version| value(path, version, 100))).collect();
        assert!(all.len() == 20 * 19 && all.iter().all(|value| value.len() == 100));
        assert_eq!(value(1, 1, 16), value(1, 1, 16));
    }
}

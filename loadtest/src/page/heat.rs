//! Load by shard: a tile a shard, as dark (or, in the dark, as bright) as its share.
//!
//! # Promises
//! 1. Every tile names its shard; colour repeats what its title and the sentence above say in words.

use std::{collections::BTreeMap, fmt::Write};

use super::text;
use crate::report::{Report, Shard};

/// Steps of the scale; see the style sheet's `h0` … `h6`.
const STEPS: usize = 7;
/// Beyond so many shards a tile only has room for its name.
const ROOMY: usize = 64;
/// Beyond so many, tiles would be dust.
const MOST: usize = 1024;

/// Both maps; nothing where the target did not tell its shards.
pub(super) fn figures(report: &Report) -> String {
    if report.shards.is_empty() {
        return String::new();
    }
    let shards = &report.shards[..report.shards.len().min(MOST)];
    let per_s = |shard: &Shard| Some(shard.ops as f64 / report.seconds).filter(|rate| rate.is_finite());
    let mut html =
        map("Operations by shard", &spread(report), shards, per_s, |rate| format!("{}/s", text::short(rate.round())));
    if shards.iter().any(|shard| shard.p99.is_some()) {
        let caption = "The 99th percentile of each shard's operations, from the intended start.";
        html.push_str(&map("p99 by shard", caption, shards, |shard| shard.p99, text::span));
    }
    html
}

/// How even the load is, in a sentence.
fn spread(report: &Report) -> String {
    let loads: Vec<f64> = report.shards.iter().map(|shard| shard.ops as f64).collect();
    let mean = loads.iter().sum::<f64>() / loads.len() as f64;
    let busiest = report.shards.iter().max_by_key(|shard| shard.ops);
    let mut words = match busiest {
        Some(shard) if mean > 0.0 => format!(
            "The busiest of {}, shard {}, has {} times the mean.",
            text::several(loads.len() as u64, "shard"),
            shard.id,
            text::number(shard.ops as f64 / mean)
        ),
        _ => "No shard had an operation.".to_owned(),
    };
    let mut nodes: BTreeMap<u32, (u32, f64)> = BTreeMap::new();
    for shard in &report.shards {
        if let Some(leader) = shard.leader {
            let node = nodes.entry(leader).or_default();
            *node = (node.0 + 1, node.1 + shard.ops as f64);
        }
    }
    let total: f64 = loads.iter().sum();
    if total > 0.0 && (2..=12).contains(&nodes.len()) {
        let parts: Vec<String> = nodes
            .iter()
            .map(|(node, (count, ops))| format!("node {node} led {count} with {:.0} %", 100.0 * ops / total))
            .collect();
        let _ = write!(words, " At the end {} of the load.", parts.join(", "));
    }
    if report.shards.len() > MOST {
        let _ = write!(words, " The first {MOST} are shown.");
    }
    words
}

fn map(
    title: &str,
    caption: &str,
    shards: &[Shard],
    figure: impl Fn(&Shard) -> Option<f64>,
    write_figure: impl Fn(f64) -> String,
) -> String {
    let values: Vec<Option<f64>> = shards.iter().map(&figure).collect();
    let low = values.iter().flatten().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
    // Shards that are within a tenth of each other are alike: a full scale of colours would make noise look like news.
    let width = (high - low).max(0.1 * high.abs()).max(f64::MIN_POSITIVE);
    let mut tiles = String::new();
    for (shard, value) in shards.iter().zip(&values) {
        let leader = shard.leader.map_or_else(String::new, |node| format!(", led by node {node}"));
        let (step, words) = match value {
            Some(value) => {
                let step = (((value - low) / width * STEPS as f64) as usize).min(STEPS - 1);
                (format!("h{step}"), write_figure(*value))
            }
            None => ("none".to_owned(), text::NONE.to_owned()),
        };
        let inside = if shards.len() <= ROOMY { format!("<small>{words}</small>") } else { String::new() };
        let _ = write!(
            tiles,
            "<li class=\"{step}\" title=\"shard {}: {words}{leader}\">{}{inside}</li>",
            shard.id, shard.id
        );
    }
    let scale = match low.is_finite() {
        true => {
            let steps: String = (0..STEPS).map(|step| format!("<i class=\"h{step}\"></i>")).collect();
            format!("<p class=\"scale\">{} {steps} {}</p>", write_figure(low), write_figure(low + width))
        }
        false => String::new(),
    };
    let roomy = if shards.len() <= ROOMY { "roomy" } else { "dense" };
    format!(
        "<figure class=\"heat\"><figcaption><h3>{title}</h3><p>{}</p></figcaption>{scale}<ol class=\"tiles {roomy}\">{tiles}</ol></figure>\n",
        text::escape(caption)
    )
}

//! What a run with chaos came to: a document, and a table for people.

use std::{collections::BTreeMap, fmt::Write};

use serde::Serialize;

use super::{
    book::{Checked, Counts},
    fault::Kind,
    strike::Struck,
};
use crate::{cluster::net::Carried, faults::Spread, told};

/// The version of the document's form.
pub(super) const SCHEMA: u32 = 2;

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    pub(super) schema: u32,
    pub(super) seed: u64,
    pub(super) nodes: u32,
    pub(super) shards: u32,
    pub(super) seconds: f64,
    /// Time without faults, and the operations that were answered in it.
    pub(super) calm_s: f64,
    pub(super) calm_ops_per_s: f64,
    pub(super) operations: Counts,
    /// Of locks and elections.
    pub(super) checked: Checked,
    pub(super) checked_paths: Checked,
    pub(super) watched: told::Sum,
    /// The online check's.
    pub(super) safety_violations: u64,
    pub(super) safety_examples: Vec<String>,
    pub(super) network: Carried,
    pub(super) faults: Vec<Struck>,
    pub(super) sums: Vec<Sum>,
    /// Kinds that were asked for and cannot be had on this machine, and why.
    pub(super) unavailable: BTreeMap<String, String>,
    /// Why the run is a failed one, if it is.
    pub(super) failures: Vec<String>,
}

/// All faults of a kind.
#[derive(Debug, Serialize)]
pub(super) struct Sum {
    pub(super) kind: String,
    pub(super) faults: usize,
    /// From a fault until every shard wrote again.
    pub(super) outage_s: Spread,
    /// From its end until all was well.
    pub(super) well_after_s: Spread,
}

/// By kind those that struck alone; those that struck two at a time; all.
pub(super) fn sums(faults: &[Struck]) -> Vec<Sum> {
    let mut by: BTreeMap<(u8, String), Vec<&Struck>> = BTreeMap::new();
    for fault in faults {
        let name = match fault.faults.as_slice() {
            [(kind, _)] => (0, kind.name().to_owned()),
            _ => (1, "two at once".to_owned()),
        };
        by.entry(name).or_default().push(fault);
        by.entry((2, "all".to_owned())).or_default().push(fault);
    }
    let sum = |((_, kind), of): ((u8, String), Vec<&Struck>)| Sum {
        kind,
        faults: of.len(),
        outage_s: Spread::of(of.iter().map(|fault| fault.outage_s).collect()),
        well_after_s: Spread::of(of.iter().map(|fault| fault.well_after_s).collect()),
    };
    by.into_iter().map(sum).collect()
}

/// How often each kind was done.
pub(super) fn by_kind(faults: &[Struck]) -> BTreeMap<Kind, u32> {
    let mut by = BTreeMap::new();
    faults.iter().flat_map(|fault| &fault.faults).for_each(|(kind, _)| *by.entry(*kind).or_default() += 1);
    by
}

/// As people read it.
pub(super) fn text(outcome: &Outcome) -> String {
    let Outcome { operations, checked, checked_paths, watched, .. } = outcome;
    let mut text = format!(
        "\n{:<12} {:>6}   {:>9} {:>7} {:>7}   {:>9} {:>7}\n",
        "FAULT", "TIMES", "OUT P50", "P99", "MAX S", "WELL P50", "MAX S"
    );
    let seconds = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.2}"));
    for sum in &outcome.sums {
        let Sum { kind, faults, outage_s, well_after_s } = sum;
        let _ = writeln!(
            text,
            "{kind:<12} {faults:>6}   {:>9} {:>7} {:>7}   {:>9} {:>7}",
            seconds(outage_s.median),
            seconds(outage_s.p99),
            seconds(outage_s.max),
            seconds(well_after_s.median),
            seconds(well_after_s.max),
        );
    }
    text += "\nOUT: from a fault until every shard took writes again. WELL: from its end until all nodes had caught up too.\n\n";
    for (kind, why) in &outcome.unavailable {
        let _ = writeln!(text, "not to be had on this machine: {kind}: {why}");
    }
    let _ = writeln!(
        text,
        "{} operations answered ({} reads, {} grants, {} refused, {} renewed, {} released, {} too late), {} failed, {} of \
         unknown outcome, {} repeated after a lost answer",
        operations.answered,
        operations.reads,
        operations.grants,
        operations.refused,
        operations.renewed,
        operations.released,
        operations.lost,
        operations.failed,
        operations.unknown,
        operations.repeated,
    );
    let _ = writeln!(
        text,
        "{} sessions: {} expired, {} clients died, {} were silent past their TTL; {:.0} operations/s in {:.0} s without faults",
        operations.sessions,
        operations.expired,
        operations.died,
        operations.paused,
        outcome.calm_ops_per_s,
        outcome.calm_s,
    );
    let Carried { carried, dropped, delayed } = outcome.network;
    let _ = writeln!(text, "{carried} datagrams carried, {dropped} dropped, {delayed} delayed");
    let _ = writeln!(
        text,
        "of these {} elected; {} looks at paths, {} changes, {} refused from another version",
        operations.elected, operations.path_reads, operations.changed, operations.mismatched,
    );
    for (of, checked) in [("locks and elections", checked), ("paths", checked_paths)] {
        let _ = writeln!(
            text,
            "{} histories of {} operations of {of} checked, the slowest in {:.0} ms: {} not linearizable, {} undecided",
            checked.histories, checked.operations, checked.slowest_ms, checked.violations, checked.undecided,
        );
    }
    let _ = writeln!(
        text,
        "{} watches were told {} events and resumed {} times: {} histories whole, {} with one of {} gaps, {} laws broken; \
         {} promises broken",
        watched.watches,
        watched.events,
        watched.resumed,
        watched.whole,
        watched.with_gaps,
        watched.gaps,
        watched.broken,
        outcome.safety_violations,
    );
    let examples = [&checked.examples, &checked_paths.examples, &watched.examples, &outcome.safety_examples];
    for example in examples.into_iter().flatten() {
        let _ = writeln!(text, "\n{example}");
    }
    for failure in &outcome.failures {
        let _ = writeln!(text, "FAILED: {failure}");
    }
    if outcome.failures.is_empty() {
        let _ = writeln!(
            text,
            "all histories are linearizable, all watches whole and no promise was broken; seed {}",
            outcome.seed
        );
    } else {
        let _ = writeln!(text, "seed {}", outcome.seed);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn struck(faults: &[(Kind, u32)], outage_s: f64) -> Struck {
        let faults = faults.to_vec();
        Struck { faults, at_s: 1.0, length_s: 1.0, well_after_s: 2.0, outage_s, shards_out: 1 }
    }

    #[test]
    fn a_kind_is_summed_by_the_faults_that_struck_alone() {
        let faults = [
            struck(&[(Kind::Kill, 1)], 0.5),
            struck(&[(Kind::Kill, 2)], 1.5),
            struck(&[(Kind::Kill, 1), (Kind::Cut, 2)], 9.0),
        ];
        let sums = sums(&faults);
        let named: Vec<(&str, usize, Option<f64>)> =
            sums.iter().map(|sum| (sum.kind.as_str(), sum.faults, sum.outage_s.max)).collect();
        assert_eq!(named, [("kill", 2, Some(1.5)), ("two at once", 1, Some(9.0)), ("all", 3, Some(9.0))]);
        assert_eq!(by_kind(&faults), [(Kind::Kill, 3), (Kind::Cut, 1)].into());
    }
}

use serde_json::Value;

use super::*;
use crate::{
    fixture::{Case, report},
    report::{Figures, Latencies},
};

/// A run of which nearly nothing could be measured.
fn bare() -> Report {
    let mut report = report(&Case { seconds: 1, shards: 1, ..Case::default() });
    report.latency_ms = Latencies::default();
    report.service_ms = Latencies::default();
    report.histograms.clear();
    report.shards.clear();
    report.series.clear();
    report.server_cpu_us_per_op = None;
    report.server_cpu_cores = None;
    report.generator_cpu_us_per_op = None;
    report.server_memory_bytes = None;
    report
}

/// Every text of `value`, and every name of an entry that a run chose, becomes `text`.
fn poison(value: &mut Value, text: &str, known: bool) {
    match value {
        Value::String(string) => *string = text.to_owned(),
        Value::Array(elements) => elements.iter_mut().for_each(|element| poison(element, text, known)),
        Value::Object(fields) if known => {
            for (name, field) in fields.iter_mut() {
                poison(field, text, name != "errors_by_kind");
            }
        }
        Value::Object(fields) => {
            let entries = std::mem::take(fields);
            fields.extend(entries.into_iter().map(|(_, field)| (text.to_owned(), field)));
        }
        _ => {}
    }
}

#[test]
fn a_hostile_report_adds_nothing_to_the_page() {
    let hostile = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&";
    let mut plain = report(&Case { stall_at: Some(3), seconds: 8, ..Case::default() });
    plain.safety_violations = 1;
    plain.safety_examples = vec!["x".to_owned()];
    plain.generator.limited = Some("x".to_owned());
    let mut poisoned = serde_json::to_value(&plain).expect("a report is JSON");
    poison(&mut poisoned, hostile, true);
    let poisoned: Report = serde_json::from_value(poisoned).expect("still a report");
    for (plain, poisoned) in [(vec![plain.clone()], vec![poisoned.clone()]), (vec![plain; 2], vec![poisoned; 2])] {
        let (plain, poisoned) = (html(&plain), html(&poisoned));
        assert!(poisoned.contains("&lt;script&gt;alert(1)"), "the text itself is shown");
        assert!(!poisoned.contains("<script>alert") && !poisoned.contains("<img"), "promise 2");
        assert_eq!(poisoned.matches('<').count(), plain.matches('<').count(), "promise 2: no element is added");
        assert_eq!(poisoned.matches('"').count(), plain.matches('"').count(), "promise 2: no attribute is ended");
    }
}

#[test]
fn the_page_loads_nothing() {
    let page = html(&[report(&Case::default()), report(&Case { clients: 64, ..Case::default() })]);
    for address in ["http://", "https://", "src=", "url(", "@import", "<link"] {
        let at = page.find(address).map(|at| &page[at..page.len().min(at + 60)]);
        // The cluster's address is a figure of the run, not a thing to load.
        assert!(at.is_none_or(|at| at.starts_with("http://127.0.0.1:7400</dd>")), "promise 1: {at:?}");
    }
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn what_is_not_there_is_not_shown() {
    let page = html(&[bare()]);
    assert!(page.contains("No operation was answered"));
    assert!(!page.contains("<figure"), "promise 3: no plot without figures");
    assert!(!page.contains("NaN") && !page.contains("inf"), "promise 3");
    assert!(page.contains("<b>–</b>"), "promise 3: a dash");
    assert!(html(&[]).contains("There is no run to show"));
}

#[test]
fn kinds_that_did_not_occur_are_named_and_have_no_row() {
    let page = html(&[report(&Case::default())]);
    assert!(page.contains("Did not occur: refused, queue wait, handoff, renew, keep-alive."));
    assert!(!page.contains(">Renew</th>") && page.contains(">Acquire</th>"));
}

#[test]
fn broken_safety_comes_before_the_figures() {
    let mut broken = report(&Case::default());
    broken.safety_violations = 2;
    broken.safety_examples = vec!["load/7: token 4 after token 5".to_owned()];
    let page = html(&[broken]);
    let (failed, figures) = (page.find("Failed: 2 safety violations"), page.find("<dl class=\"headline\">"));
    assert!(failed.expect("said") < figures.expect("shown"), "promise 4");
    assert!(page.contains("load/7: token 4 after token 5"));
}

#[test]
fn every_run_of_a_sweep_is_named_apart_and_none_is_forgotten() {
    let cases = [(16, 64), (16, 1000), (64, 64), (64, 1000), (64, 1000)];
    let reports: Vec<Report> =
        cases.map(|(shards, clients)| report(&Case { shards, clients, seconds: 2, ..Case::default() })).into();
    let names = runs::names(&reports);
    assert_eq!(names[0], "16 shards, 64 clients");
    assert_eq!(names[4], "64 shards, 1,000 clients, run 5");
    let page = html(&reports);
    assert!((1..=5).all(|run| page.contains(&format!("id=\"run-{run}\"")) && page.contains(&format!("#run-{run}\""))));
    assert!(page.contains("Throughput against latency"));
}

#[test]
fn an_hour_over_256_shards_stays_small() {
    let page = html(&[report(&Case { shards: 256, seconds: 3600, ..Case::default() })]);
    assert!(page.len() < 400_000, "{} bytes", page.len());
}

#[test]
fn figures_out_of_all_bounds_are_survived() {
    let mut wild = report(&Case { seconds: 2, ..Case::default() });
    let extremes = [f64::MAX, -1.0, 0.0, 1e-300];
    for (second, value) in wild.series.iter_mut().zip(extremes) {
        (second.at, second.p50, second.p99, second.max) = (value, Some(value), Some(-value), None);
    }
    wild.latency_ms.all = Figures { count: u64::MAX, p99: Some(f64::MAX), mean: Some(-5.0), ..Figures::default() };
    (wild.seconds, wild.throughput_ops_per_s, wild.offered_ops_per_s) = (0.0, f64::MAX, Some(f64::MAX));
    wild.shards[0].ops = u64::MAX;
    let page = html(&[wild.clone(), wild]);
    assert!(!page.contains("NaN") && !page.contains("\"inf"));
}

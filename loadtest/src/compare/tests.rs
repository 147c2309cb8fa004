use super::*;
use crate::fixture::{Case, report};

fn run(throughput: f64, write_ms: f64) -> Report {
    report(&Case { throughput, write_ms, seconds: 2, ..Case::default() })
}

fn verdict(a: &[Report], b: &[Report], conditions: &[&str]) -> (String, Verdict) {
    let conditions: Vec<Condition> = conditions.iter().map(|text| Condition::parse(text).expect(text)).collect();
    compare(a, b, &conditions)
}

#[test]
fn the_verdict_is_that_of_the_worst_condition() {
    let (a, b) = (run(200e3, 6.0), run(180e3, 9.0));
    let (a, b) = (std::slice::from_ref(&a), std::slice::from_ref(&b));
    assert_eq!(verdict(a, b, &[]).1, Verdict::Passed);
    assert_eq!(verdict(a, b, &["throughput<-11%", "safety_violations>0"]).1, Verdict::Passed);
    let (text, failed) = verdict(a, b, &["throughput<-11%", "throughput<-9%"]);
    assert_eq!(failed, Verdict::Failed, "promise 1");
    assert!(
        text.contains("ok         throughput<-11%")
            && text.contains("FAILED     throughput<-9%: 180000 ops/s, the limit is 182000 ops/s"),
        "{text}"
    );
    let (text, undecided) = verdict(a, b, &["handoff.p50>+10%", "throughput<-9%"]);
    assert_eq!(undecided, Verdict::Undecided, "promise 1: what was not measured passes no gate");
    assert!(text.contains("UNDECIDED  handoff.p50>+10%: B has no handoff.p50"), "{text}");
}

#[test]
fn medians_are_compared_and_the_spread_is_shown() {
    let a = [run(100e3, 6.0), run(190e3, 6.0), run(200e3, 6.0)];
    let b = [run(186e3, 6.0), run(10e3, 6.0), run(196e3, 6.0), run(188e3, 6.0)];
    let (text, verdict) = verdict(&a, &b, &["throughput<-3%"]);
    assert_eq!(verdict, Verdict::Passed, "187K against 190K: {text}");
    assert!(text.contains("A (median of 3)") && text.contains("B (median of 4)"));
    let row = text.lines().find(|line| line.starts_with("throughput")).expect("a row");
    assert!(row.contains("190000 ops/s") && row.contains("187000 ops/s") && row.contains("0.98 (-1.6 %)"), "{row}");
    assert!(row.contains("-47 … +5 %"), "{row}");
}

#[test]
fn what_makes_a_comparison_doubtful_is_named() {
    let a = run(200e3, 6.0);
    let mut b = report(&Case { clients: 64, seconds: 60, ..Case::default() });
    b.env.cpu = "another".to_owned();
    b.safety_violations = 3;
    b.generator.limited = Some("it used a whole core".to_owned());
    let text = verdict(std::slice::from_ref(&a), &[b], &[]).0;
    for part in [
        "cpu AMD EPYC 7B13 → another",
        "clients 1000 → 64",
        "doubtful",
        "B broke safety 3 times",
        "generator was the limit in B",
        "tail",
    ] {
        assert!(text.contains(part), "promises 2 and 3: {part} in {text}");
    }
    let mut same = a.clone();
    (same.env.started_at, same.env.version, same.env.target) =
        ("later".to_owned(), "0.2".to_owned(), "elsewhere".to_owned());
    assert!(!verdict(&[a], &[same], &[]).0.contains("warning"), "when, where to and which version is what is compared");
}

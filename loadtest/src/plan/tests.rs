use std::path::PathBuf;

use super::{
    model::{Load, Model, REPLICAS},
    *,
};
use crate::{
    fixture::{Case, report},
    sweep_file::{self, Cell},
};

/// A system whose costs are known.
const TRUTH: Model = Model {
    server: [1.1, 0.9, 22.0, 110.0],
    generator: [1.2, 4.0, 0.0, 0.0],
    mean: [0.6, 1.3, 0.0, 0.0],
    p99: [2.0, 2.4, 0.0, 0.0],
};

/// A cell as the true system would measure it, `noise` off.
fn cell(shards: u32, clients: u32, reads: f64, noise: f64) -> Cell {
    let load =
        Load { replicas: REPLICAS, shards: f64::from(shards), reads: reads / 100.0, in_flight: f64::from(clients) };
    let (throughput, p99) = TRUTH.closed_loop(&load, 2.0);
    let mut report =
        report(&Case { shards, clients, reads, seconds: 1, throughput: throughput * (1.0 + noise), ..Case::default() });
    report.server_cpu_us_per_op = Some(TRUTH.server_us(&load) * (1.0 - noise));
    let rounds = (load.shards
        * (2.0
            - (-load.reads * load.in_flight / load.shards).exp()
            - (-(1.0 - load.reads) * load.in_flight / load.shards).exp()))
        / load.in_flight;
    report.generator_cpu_us_per_op = Some(TRUTH.generator[0] + TRUTH.generator[1] * rounds);
    report.latency_ms.all.mean = Some(1e3 * f64::from(clients) / throughput * (1.0 - noise));
    report.latency_ms.all.p99 = Some(p99 * (1.0 + noise));
    Cell { nodes: 3, shards, clients, reads, report }
}

fn sweep(noise: f64, reads: &[f64]) -> Sweep {
    let mut cells = Vec::new();
    for shards in [4, 16, 64] {
        for clients in [16, 64, 256, 1000, 4000] {
            for reads in reads {
                let sign = if cells.len() % 2 == 0 { 1.0 } else { -1.0 };
                cells.push(cell(shards, clients, *reads, sign * noise));
            }
        }
    }
    Sweep { schema: sweep_file::SCHEMA, cells }
}

fn options(load: f64, reads: f64, p99: f64) -> Options {
    Options { sweep: PathBuf::new(), load, reads, p99, cores_per_node: Some(4), nodes_max: 15 }
}

#[test]
fn known_costs_are_recovered() {
    for (noise, within) in [(0.0, 0.01), (0.03, 0.25)] {
        let fitted = sweep::fit(&sweep(noise, &[0.0, 50.0, 80.0, 100.0])).expect("fitted");
        let pairs =
            [(fitted.model.server, TRUTH.server), (fitted.model.mean, TRUTH.mean), (fitted.model.p99, TRUTH.p99)];
        for (found, truth) in pairs.iter().flat_map(|(found, truth)| found.iter().zip(truth)) {
            assert!((found - truth).abs() <= within * truth, "{noise}: {found} is not {truth}: {:?}", fitted.model);
        }
        assert!(fitted.throughput_error.worst < 0.01 + 5.0 * noise, "{:?}", fitted.throughput_error);
        assert!(fitted.p99_error.median < 0.01 + 2.0 * noise, "{:?}", fitted.p99_error);
    }
}

#[test]
fn a_plan_names_nodes_and_shards_its_error_and_its_assumptions() {
    let (text, found) = plan(&sweep(0.02, &[0.0, 80.0, 100.0]), &options(100e3, 80.0, 20.0)).expect("planned");
    assert!(found, "{text}");
    for part in [
        "3 nodes, ",
        "one node lost",
        "headroom",
        "error       of cells it had not seen",
        "It assumes that",
        "Within what was measured",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn more_load_needs_more_nodes_and_the_rest_carries_it() {
    let fitted = sweep::fit(&sweep(0.01, &[0.0, 80.0, 100.0])).expect("fitted");
    let mut before = 0;
    for load in [50e3, 400e3, 1600e3, 4000e3] {
        let demand = Demand { load, reads: 80.0, p99_ms: 8.0, cores_per_node: 2.0, nodes_max: 200 };
        let chosen = *choose::candidates(&fitted, &demand).last().expect("one");
        assert!(chosen.suffices && chosen.nodes >= before, "{load}: {chosen:?}");
        let degraded = chosen.degraded.expect("carried");
        assert!(degraded.p99_ms <= 8.0 && chosen.most >= load, "promise 1 of choose: {chosen:?}");
        assert!(chosen.whole.expect("carried").p99_ms <= degraded.p99_ms, "a lost node makes nothing faster");
        before = chosen.nodes;
    }
    assert!(before > 3, "4M operations/s do not fit three small nodes");
}

#[test]
fn what_cannot_be_met_and_why_is_said() {
    let sweep = sweep(0.01, &[0.0, 80.0, 100.0]);
    let (text, found) = plan(&sweep, &options(1e3, 80.0, 1.0)).expect("planned");
    assert!(!found && text.contains("More nodes do not help"), "{text}");
    let (text, found) = plan(&sweep, &options(9e8, 80.0, 20.0)).expect("planned");
    assert!(!found && text.contains("raise --nodes-max"), "{text}");
}

#[test]
fn beyond_the_measured_range_it_says_so() {
    let (text, _) = plan(&sweep(0.01, &[70.0, 80.0]), &options(3e6, 95.0, 20.0)).expect("planned");
    assert!(text.contains("This extrapolates"), "{text}");
    assert!(text.contains("reads, percent: 95 lies outside the measured 70 to 80"), "{text}");
    assert!(text.contains("load, operations/s: 3000000 lies outside"), "{text}");
}

#[test]
fn a_sweep_that_cannot_carry_a_plan_is_refused() {
    let refused = |sweep: &Sweep, reads: f64| plan(sweep, &options(1e5, reads, 10.0)).expect_err("refused");
    let whole = sweep(0.0, &[80.0]);
    let few = Sweep { cells: whole.cells[..5].to_vec(), ..whole.clone() };
    assert!(refused(&few, 80.0).contains("5 usable cells are too few"), "promise 1");
    let flat = Sweep { cells: vec![whole.cells[3].clone(); 12], ..whole.clone() };
    assert!(refused(&flat, 80.0).contains("varies too little"), "promise 1");
    assert!(refused(&whole, 20.0).contains("all cells were measured at 80 % reads"), "promise 3");
    let mut mixed = whole.clone();
    mixed.cells[2].report.env.cpu = "another".to_owned();
    assert!(refused(&mixed, 80.0).contains("different machines"), "promise 1");
    let mut broken = whole.clone();
    broken.cells.iter_mut().take(9).for_each(|cell| cell.report.safety_violations = 1);
    let reason = refused(&broken, 80.0);
    assert!(reason.contains("6 usable cells") && reason.contains("9 broke safety"), "{reason}");
    let mut blind = whole;
    blind.cells.iter_mut().for_each(|cell| cell.report.server_cpu_us_per_op = None);
    assert!(refused(&blind, 80.0).contains("without the servers’ CPU"));
}

#[test]
fn figures_from_the_command_line() {
    assert_eq!((rate("100000"), rate("100K"), rate("1.5M")), (Ok(1e5), Ok(1e5), Ok(1.5e6)));
    assert_eq!((milliseconds("10ms"), milliseconds("500us"), milliseconds("0.5s")), (Ok(10.0), Ok(0.5), Ok(500.0)));
    assert_eq!((percent("80"), percent("80%")), (Ok(80.0), Ok(80.0)));
    for wrong in ["", "ten", "-1", "0", "1e99", "NaN"] {
        assert!(rate(wrong).is_err() && milliseconds(wrong).is_err(), "{wrong}");
    }
    assert!(percent("101").is_err() && percent("x").is_err());
}

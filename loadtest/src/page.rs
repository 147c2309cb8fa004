//! The page of plots: runs as one HTML file that a browser shows without a network, a library or a server.
//!
//! Plots are SVG, drawn here. A few lines of script show figures under the pointer; without them, and in print,
//! nothing is missing. Colours follow the reader's preference for light or dark.
//!
//! # Promises
//! 1. The page is a function of the reports, and loads nothing: it says so to the browser, too.
//! 2. Every text of a report is escaped: a hostile report cannot add an element or a script.
//! 3. What could not be measured is a dash or a gap. What did not happen has no row and no plot.
//! 4. A run that broke safety is called failed before any of its figures is shown.
//!
//! What the page does not do: hold the raw histograms. The JSON file does.

mod axis;
mod command;
mod heat;
mod load_curve;
mod over_time;
mod percentiles;
mod plot;
mod runs;
mod tables;
mod text;

use std::fmt::Write;

pub(crate) use command::{Options, command};

use crate::report::Report;

/// So many runs are shown unfolded.
const UNFOLDED: usize = 3;

/// The page.
pub(crate) fn html(reports: &[Report]) -> String {
    let names = runs::names(reports);
    let title = match reports {
        [] => "Load test".to_owned(),
        [one] => format!("Load test of {} over {}", one.env.system, one.env.protocol),
        many => format!("Load test: {} runs", many.len()),
    };
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n<style>\n{}</style>\n</head>\n\
         <body>\n<header><h1>{title}</h1>",
        include_str!("page/style.css"),
        title = text::escape(&title),
    );
    match reports {
        [] => page.push_str("<p class=\"lead\">There is no run to show.</p></header>\n"),
        [report] => {
            let _ = writeln!(page, "<p class=\"lead\">{}</p></header>", text::escape(&lead(report)));
            page.push_str(&run(report));
        }
        many => overview(many, &names, &mut page),
    }
    let _ = write!(page, "<script>\n{}</script>\n</body>\n</html>\n", include_str!("page/hover.js"));
    page
}

/// All runs side by side, then each.
fn overview(reports: &[Report], names: &[String], page: &mut String) {
    let first = &reports[0].env;
    let machine = match reports.iter().all(|report| (&report.env.cpu, report.env.cores) == (&first.cpu, first.cores)) {
        true => format!("All on {}, {}.", first.cpu, text::several(u64::from(first.cores), "core")),
        false => "On different machines: their figures are not comparable.".to_owned(),
    };
    let _ = writeln!(page, "<p class=\"lead\">{}</p></header>", text::escape(&machine));
    for (report, name) in reports.iter().zip(names).filter(|(report, _)| report.safety_violations > 0) {
        let _ = writeln!(
            page,
            "<div class=\"banner bad\" role=\"note\"><strong>{} failed:</strong> {}.</div>",
            text::escape(name),
            text::several(report.safety_violations, "safety violation")
        );
    }
    page.push_str(&runs::table(reports, names));
    let plots = [load_curve::of_many(reports, names), percentiles::of_many(reports, names)];
    let plots: String = plots.iter().flatten().map(|plot| plot.figure()).collect();
    let _ = writeln!(page, "<div class=\"plots\">{plots}</div>");
    for (index, (report, name)) in reports.iter().zip(names).enumerate() {
        let open = if reports.len() <= UNFOLDED { " open" } else { "" };
        let _ = writeln!(
            page,
            "<details class=\"run\"{open}><summary><h2>{}</h2></summary><p class=\"lead\" id=\"run-{}\">{}</p>{}</details>",
            text::escape(name),
            index + 1, // inside: a browser unfolds what holds the place that a link leads to
            text::escape(&lead(report)),
            run(report)
        );
    }
}

/// What was run, in a sentence.
fn lead(report: &Report) -> String {
    let (env, workload) = (&report.env, &report.workload);
    let schedule = match workload.rate {
        Some(rate) => format!("open loop ({}) at {} operations/s", workload.schedule, text::number(rate)),
        None => "closed loop".to_owned(),
    };
    format!(
        "{} % reads, {}, {}, {}; {}, {}; {} s from {}",
        text::short(workload.reads),
        text::several(u64::from(workload.clients), "client"),
        text::several(workload.names, "name"),
        schedule,
        text::several(u64::from(env.nodes), "node"),
        text::several(u64::from(env.shards), "shard"),
        text::short(report.seconds),
        env.started_at
    )
}

/// One run.
fn run(report: &Report) -> String {
    let plots =
        over_time::plots(report).into_iter().chain(percentiles::of_one(report)).chain(load_curve::of_one(report));
    let plots: String = plots.map(|plot| plot.figure()).collect();
    format!(
        "{}{}{}<div class=\"plots\">{plots}</div><div class=\"plots\">{}</div>{}",
        tables::warnings(report),
        tables::headline(report),
        tables::kinds(report),
        heat::figures(report),
        tables::circumstances(report)
    )
}

#[cfg(test)]
mod tests;

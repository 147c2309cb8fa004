//! Documents read back from files, which others may have written, cut or confused.
//!
//! # Promises
//! 1. A file larger than [`LARGEST`] is refused before it is read.
//! 2. A document's schema is looked at before its fields: an old file is called old, not broken.
//! 3. Each refusal names the file and says what would be right.

use std::{fs::File, io::Read, path::Path};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::{
    report::Report,
    sweep_file::{SCHEMA, Sweep},
};

/// No document of ours comes near.
const LARGEST: u64 = 512 << 20;

/// All reports of a file: one, a list of them, or a sweep's.
pub(crate) fn reports(path: &Path) -> anyhow::Result<Vec<Report>> {
    let value = value(path)?;
    let reports = match value {
        Value::Array(elements) => elements.into_iter().map(report).collect(),
        Value::Object(ref fields) if fields.contains_key("cells") => {
            sweep_of(value).map(|sweep| sweep.cells.into_iter().map(|cell| cell.report).collect())
        }
        other => report(other).map(|report| vec![report]),
    };
    let reports: Vec<Report> = reports.with_context(|| path.display().to_string())?;
    match reports.is_empty() {
        true => bail!("{}: there is no run in it", path.display()),
        false => Ok(reports),
    }
}

/// A sweep.
pub(crate) fn sweep(path: &Path) -> anyhow::Result<Sweep> {
    let value = value(path)?;
    if value.get("cells").is_none() {
        bail!("{}: not a sweep; `wardlock-loadtest sweep --json FILE` writes one", path.display());
    }
    sweep_of(value).with_context(|| path.display().to_string())
}

fn value(path: &Path) -> anyhow::Result<Value> {
    let file = File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
    let mut text = String::new();
    let size = file
        .take(LARGEST + 1)
        .read_to_string(&mut text)
        .with_context(|| format!("{} cannot be read", path.display()))?;
    if size as u64 > LARGEST {
        bail!("{} is larger than {} MiB: not a report", path.display(), LARGEST >> 20);
    }
    serde_json::from_str(&text)
        .with_context(|| format!("{} is not JSON; `wardlock-loadtest run --json FILE` writes a report", path.display()))
}

fn sweep_of(value: Value) -> anyhow::Result<Sweep> {
    match value["schema"].as_u64() {
        Some(found) if found == u64::from(SCHEMA) => {}
        Some(found) => {
            bail!("this sweep has schema {found}, and this program reads schema {SCHEMA}: measure again with it")
        }
        None => bail!("this is no sweep: it has no \"schema\""),
    }
    for cell in value["cells"].as_array().map_or(&[][..], Vec::as_slice) {
        report(cell["report"].clone())?;
    }
    serde_json::from_value(value).context("this is no whole sweep")
}

fn report(value: Value) -> anyhow::Result<Report> {
    Report::parse(&value.to_string()).context("`wardlock-loadtest run --json FILE` writes a report that can be read")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixture::{Case, report as made},
        sweep_file::Cell,
    };

    fn read_back(text: &str) -> Result<Vec<Report>, String> {
        let path = std::env::temp_dir().join(format!("wardlock-load-{}-{:x}", std::process::id(), text.len()));
        std::fs::write(&path, text).expect("a file");
        let reports = reports(&path).map_err(|error| format!("{error:#}"));
        std::fs::remove_file(&path).expect("it is there");
        reports
    }

    #[test]
    fn one_many_and_sweeps_are_read_back() {
        let report = made(&Case { seconds: 2, ..Case::default() });
        let cell = Cell { nodes: 3, shards: 16, clients: 1000, reads: 80.0, report: report.clone() };
        let sweep = Sweep { schema: SCHEMA, cells: vec![cell; 3] };
        let of = |text: serde_json::Result<String>| read_back(&text.expect("it is JSON")).map(|reports| reports.len());
        assert_eq!(of(serde_json::to_string(&report)), Ok(1));
        assert_eq!(of(serde_json::to_string(&[&report, &report])), Ok(2));
        assert_eq!(of(serde_json::to_string(&sweep)), Ok(3));
    }

    #[test]
    fn a_refusal_names_the_file_and_what_would_be_right() {
        let old = read_back("{\"schema\": 1, \"clients\": 3}").expect_err("old");
        assert!(old.contains("wardlock-load-") && old.contains("schema 1, and this program reads schema 2"), "{old}");
        let cut = read_back("{\"schema\": 2, \"env\": ").expect_err("cut");
        assert!(cut.contains("not JSON") && cut.contains("EOF"), "{cut}");
        let other = read_back("{\"a\": 1}").expect_err("something else");
        assert!(other.contains("no report"), "{other}");
        assert!(read_back("[]").expect_err("empty").contains("no run"));
        let missing = reports(Path::new("/nonexistent/x.json")).map_err(|error| format!("{error:#}"));
        assert!(missing.is_err_and(|error| error.contains("/nonexistent/x.json cannot be opened")));
    }
}

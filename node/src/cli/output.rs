//! What commands print: a table for people, JSON for programs.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

use super::failure::Failure;

/// The form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns for people. Their number and order may change.
    #[default]
    Table,
    /// The API's own fields, one document.
    Json,
}

/// Rows under a heading.
#[derive(Debug)]
pub struct Table {
    heading: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// No rows yet.
    pub fn new<const N: usize>(heading: [&'static str; N]) -> Table {
        Table { heading: heading.to_vec(), rows: Vec::new() }
    }

    /// Adds a row. Control characters in it are shown, not obeyed: names come from other people.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.iter().map(|cell| printable(cell)).collect());
    }

    /// The lines, columns aligned, two blanks apart.
    pub fn lines(&self) -> String {
        let heading = self.heading.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let all = || std::iter::once(&heading).chain(&self.rows);
        let width =
            |column: usize| all().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..heading.len()).map(width).collect();
        let mut text = String::new();
        for row in all() {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            let line = cells.collect::<Vec<_>>().join("  ");
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// The text with its control characters escaped.
pub fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// Writes to stdout. A reader that has gone away (`| head`) is no error.
///
/// # Errors
/// Where stdout cannot be written otherwise.
pub fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// The same of what need not be text.
///
/// # Errors
/// As [`print()`].
pub fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Failure::error(format!("cannot write to stdout: {e}"))),
        _ => Ok(()),
    }
}

/// Writes to stderr, where whoever started this may look. Nobody may be looking: a closed stderr is no
/// reason to end, as the standard macros would.
pub fn complain(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Prints one document: indented for people who look, on one line for a pipe.
///
/// # Errors
/// As [`print()`].
pub fn print_json(value: &Value) -> Result<(), Failure> {
    let text = if io::stdout().is_terminal() { format!("{value:#}\n") } else { format!("{value}\n") };
    print(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_control_characters_are_shown() {
        let mut table = Table::new(["NAME", "HOLDER"]);
        table.row(["orders/42".to_owned(), "me".to_owned()]);
        table.row(["a\x1b[2J".to_owned(), String::new()]);
        assert_eq!(table.lines(), "NAME        HOLDER\norders/42   me\na\\u{1b}[2J\n");
    }
}

//! How things look: colours, tables, progress.

use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::listing::{Entry, Form, Widths};

/// Colours, or none.
pub struct Style {
    colour: bool,
}

impl Style {
    /// Colours on a terminal, unless `NO_COLOR` is set.
    pub fn of_stdout() -> Style {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Style { colour: std::io::stdout().is_terminal() && !refused && !dumb }
    }

    /// No colours.
    pub fn plain() -> Style {
        Style { colour: false }
    }

    pub fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    pub fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    pub fn red(&self, text: &str) -> String {
        self.paint("31", text)
    }

    pub fn green(&self, text: &str) -> String {
        self.paint("32", text)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Rows of columns as wide as their widest entry.
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

/// Where entries stand in their column.
#[derive(Clone, Copy)]
pub enum Column {
    Left(&'static str),
    Right(&'static str),
}

impl Table {
    pub fn new(columns: &'static [Column]) -> Table {
        Table::of(columns.to_vec())
    }

    /// A table whose columns are found out at run time.
    pub fn of(columns: Vec<Column>) -> Table {
        Table { columns, rows: Vec::new() }
    }

    /// Adds a row of as many entries as there are columns.
    pub fn row<const N: usize>(&mut self, entries: [String; N]) {
        self.push(entries.into());
    }

    /// The same of a table whose columns were found out at run time.
    pub fn push(&mut self, entries: Vec<String>) {
        assert_eq!(entries.len(), self.columns.len());
        self.rows.push(entries);
    }

    /// The lines, the heading first, none with spaces at its end.
    pub fn lines(&self) -> Vec<String> {
        let mut widths = Widths::of(&self.columns);
        self.rows.iter().for_each(|row| widths.admit(row));
        let heading: Vec<String> = self.columns.iter().map(|c| c.heading().to_owned()).collect();
        let line = |row: &Vec<String>| {
            widths.line(&self.columns, row.iter().map(|entry| entry as &dyn Display)).to_string()
        };
        std::iter::once(&heading).chain(&self.rows).map(line).collect()
    }

    /// Writes it in one of three forms.
    pub fn write(&self, form: Form, style: &Style, out: &mut dyn io::Write) -> io::Result<()> {
        let rows = || self.rows.iter().map(|row| row.iter().map(|entry| Box::new(entry) as Entry).collect());
        form.write(&self.columns, rows, style, out)
    }
}

/// Bytes as people say them: `505.3 MB`.
pub fn bytes(n: u64) -> String {
    scaled(n, &["B", "KB", "MB", "GB", "TB", "PB", "EB"])
}

/// A number as people say it: `752.4 M`.
pub fn count(n: u64) -> String {
    scaled(n, &["", "K", "M", "B", "T", "P", "E"])
}

fn scaled(n: u64, units: &[&str]) -> String {
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < units.len() {
        (value, unit) = (value / 1000.0, unit + 1);
    }
    let number = if unit == 0 { n.to_string() } else { format!("{value:.1}") };
    format!("{number} {}", units[unit]).trim_end().to_owned()
}

/// A number with commas: `248,320`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl Column {
    pub fn heading(&self) -> &'static str {
        match self {
            Column::Left(heading) | Column::Right(heading) => heading,
        }
    }
}

/// Progress on standard error, if that is a terminal; gone when dropped.
pub struct Bar(ProgressBar);

impl Bar {
    pub fn new() -> Bar {
        Bar(ProgressBar::no_length())
    }
}

impl Bar {
    /// Work that is counted in bytes begins.
    pub fn begin_bytes(&self, what: &str, total: u64) {
        let template = "{msg} [{bar:30}] {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left";
        self.start(template, what, total);
    }

    fn start(&self, template: &str, what: &str, total: u64) {
        self.0.set_style(ProgressStyle::with_template(template).expect("a template of known keys"));
        self.0.set_message(what.to_owned());
        self.0.reset();
        self.0.set_length(total);
        self.0.enable_steady_tick(Duration::from_millis(250));
    }
}

impl eval::Progress for Bar {
    fn begin(&self, what: &str, total: u64) {
        let template =
            if total == 0 { "{spinner} {msg}  {elapsed}" } else { "{msg} [{bar:30}] {percent}%  {eta} left" };
        self.start(template, what, total);
    }

    fn reached(&self, done: u64) {
        self.0.set_position(done);
    }

    fn finished(&self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_without_spaces() {
        let mut table = Table::new(&[Column::Left("name"), Column::Right("size"), Column::Left("")]);
        table.row(["ä".into(), "10".into(), "x".into()]);
        table.row(["long name".into(), "1".into(), String::new()]);
        assert_eq!(table.lines(), ["name       size", "ä            10  x", "long name     1"]);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([bytes(0), bytes(999), bytes(1000), bytes(999_999)], ["0 B", "999 B", "1.0 KB", "1.0 MB"]);
        assert_eq!([count(7), count(752_393_024), count(u64::MAX)], ["7", "752.4 M", "18.4 E"]);
        assert_eq!(
            [grouped(0), grouped(999), grouped(248_320), grouped(1_000_000)],
            ["0", "999", "248,320", "1,000,000"]
        );
    }

    #[test]
    fn no_colour_is_no_escape() {
        assert_eq!(Style { colour: false }.red("x"), "x");
        assert_eq!(Style { colour: true }.red("x"), "\x1b[31mx\x1b[0m");
    }
}

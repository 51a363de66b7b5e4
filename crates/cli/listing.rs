//! Tables that are printed row by row: their rows are made anew whenever they are wanted, so that a million of them are
//! never held.

use std::fmt::{self, Display, Write};
use std::io;

use crate::render::{Column, Style};

/// Wider entries push the rest of their row to the right; they do not widen every other row.
const WIDEST: usize = 120;

/// What stands in one column of one row.
pub type Entry<'a> = Box<dyn Display + 'a>;

/// A row of whatever can be shown.
macro_rules! entries {
    ($($shown:expr),* $(,)?) => { vec![$(Box::new($shown) as crate::listing::Entry),*] };
}
pub(crate) use entries;

/// How a table is printed.
#[derive(Clone, Copy, PartialEq)]
pub enum Form {
    Text,
    Markdown,
    Csv,
}

impl Form {
    /// Writes a table of these rows. They are gone through twice as text, whose columns line up, and once else.
    pub fn write<'a, R: Iterator<Item = Vec<Entry<'a>>>>(
        self,
        columns: &[Column],
        rows: impl Fn() -> R,
        style: &Style,
        out: &mut dyn io::Write,
    ) -> io::Result<()> {
        let headings: Vec<&str> = columns.iter().map(Column::heading).collect();
        match self {
            Form::Text => {
                let mut widths = Widths::of(columns);
                rows().for_each(|row| widths.admit(&row));
                let heading = widths.line(columns, headings.iter().map(shown));
                writeln!(out, "{}", style.bold(&heading.to_string()))?;
                rows().try_for_each(|row| writeln!(out, "{}", widths.line(columns, row.iter().map(|e| &**e))))
            }
            Form::Markdown => {
                markdown_heading(columns).iter().try_for_each(|line| writeln!(out, "{line}"))?;
                rows().try_for_each(|row| writeln!(out, "{}", markdown(row.iter().map(|e| &**e))))
            }
            Form::Csv => {
                writeln!(out, "{}", csv(headings.iter().map(shown)))?;
                rows().try_for_each(|row| writeln!(out, "{}", csv(row.iter().map(|e| &**e))))
            }
        }
    }
}

fn shown<'e>(heading: &'e &str) -> &'e dyn Display {
    heading
}

/// How wide columns are.
pub struct Widths(Vec<usize>);

impl Widths {
    /// Wide enough for the headings.
    pub fn of(columns: &[Column]) -> Widths {
        Widths(columns.iter().map(|column| column.heading().chars().count()).collect())
    }

    /// Widens columns for the entries of a row.
    pub fn admit<E: Display>(&mut self, row: &[E]) {
        // Nothing lines up behind the last one, be it ever so long.
        let last = self.0.len().saturating_sub(1);
        for (width, entry) in self.0.iter_mut().zip(row).take(last) {
            *width = (*width).max(Characters::of(entry).min(WIDEST));
        }
        if let (Some(width), Some(entry)) = (self.0.last_mut(), row.get(last)) {
            *width = (*width).max(Characters::up_to(entry, WIDEST));
        }
    }

    /// A row, without spaces at its end.
    pub fn line<'a>(
        &'a self,
        columns: &'a [Column],
        entries: impl Iterator<Item = &'a dyn Display> + Clone + 'a,
    ) -> impl Display + 'a {
        Shown(move |f: &mut fmt::Formatter| {
            let mut line = Trimmed { out: f, spaces: 0 };
            for (i, ((entry, &width), column)) in entries.clone().zip(&self.0).zip(columns).enumerate() {
                line.spaces += if i > 0 { 2 } else { 0 };
                match column {
                    Column::Right(_) => {
                        line.spaces += width.saturating_sub(Characters::up_to(entry, WIDEST));
                        write!(line, "{entry}")?;
                    }
                    Column::Left(_) => {
                        let mut counted = Counted { out: &mut line, characters: 0 };
                        write!(counted, "{entry}")?;
                        let characters = counted.characters;
                        line.spaces += width.saturating_sub(characters);
                    }
                }
            }
            Ok(())
        })
    }
}

/// The heading of a table of Markdown.
fn markdown_heading(columns: &[Column]) -> [String; 2] {
    let headings: Vec<&str> = columns.iter().map(Column::heading).collect();
    let rule = columns.iter().map(|column| match column {
        Column::Left(_) => &"---" as &dyn Display,
        Column::Right(_) => &"---:",
    });
    [markdown(headings.iter().map(shown)).to_string(), markdown(rule).to_string()]
}

/// A row of Markdown.
fn markdown<'a>(entries: impl Iterator<Item = &'a dyn Display> + Clone + 'a) -> impl Display + 'a {
    Shown(move |f: &mut fmt::Formatter| {
        f.write_str("|")?;
        for entry in entries.clone() {
            f.write_str(" ")?;
            write!(Replaced { out: f, with: [('|', "\\|"), ('\n', "<br>")] }, "{entry}")?;
            f.write_str(" |")?;
        }
        Ok(())
    })
}

/// A row of comma-separated values (RFC 4180).
fn csv<'a>(entries: impl Iterator<Item = &'a dyn Display> + Clone + 'a) -> impl Display + 'a {
    Shown(move |f: &mut fmt::Formatter| {
        for (i, entry) in entries.clone().enumerate() {
            f.write_str(if i > 0 { "," } else { "" })?;
            if Special::is_in(entry) {
                f.write_str("\"")?;
                write!(Replaced { out: f, with: [('"', "\"\"")] }, "{entry}")?;
                f.write_str("\"")?;
            } else {
                write!(f, "{entry}")?;
            }
        }
        Ok(())
    })
}

/// Something that a closure shows.
struct Shown<F>(F);

impl<F: Fn(&mut fmt::Formatter) -> fmt::Result> Display for Shown<F> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0(f)
    }
}

/// Counts characters, up to a limit where nobody needs more.
struct Characters {
    n: usize,
    limit: usize,
}

impl Characters {
    fn of(entry: &(impl Display + ?Sized)) -> usize {
        Characters::up_to(entry, usize::MAX)
    }

    fn up_to(entry: &(impl Display + ?Sized), limit: usize) -> usize {
        let mut counted = Characters { n: 0, limit };
        // An error is how counting ends early.
        let _ = write!(counted, "{entry}");
        counted.n.min(limit)
    }
}

impl Write for Characters {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.n += text.chars().count();
        if self.n < self.limit { Ok(()) } else { Err(fmt::Error) }
    }
}

/// Passes text on and counts its characters.
struct Counted<'a, W> {
    out: &'a mut W,
    characters: usize,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.characters += text.chars().count();
        self.out.write_str(text)
    }
}

/// Holds spaces back until something follows them.
struct Trimmed<'a, W> {
    out: &'a mut W,
    spaces: usize,
}

impl<W: Write> Write for Trimmed<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let shown = text.trim_end_matches(' ');
        if !shown.is_empty() {
            for _ in 0..std::mem::take(&mut self.spaces) {
                self.out.write_char(' ')?;
            }
            self.out.write_str(shown)?;
        }
        self.spaces += text.len() - shown.len();
        Ok(())
    }
}

/// Replaces some characters.
struct Replaced<'a, W, const N: usize> {
    out: &'a mut W,
    with: [(char, &'static str); N],
}

impl<W: Write, const N: usize> Write for Replaced<'_, W, N> {
    fn write_str(&mut self, mut text: &str) -> fmt::Result {
        let found = |c: char| self.with.iter().find(|(replaced, _)| *replaced == c);
        while let Some((at, with)) = text.char_indices().find_map(|(at, c)| Some((at, found(c)?))) {
            self.out.write_str(&text[..at])?;
            self.out.write_str(with.1)?;
            text = &text[at + with.0.len_utf8()..];
        }
        self.out.write_str(text)
    }
}

/// Whether a field of comma-separated values must be quoted.
struct Special;

impl Special {
    fn is_in(entry: &dyn Display) -> bool {
        write!(Special, "{entry}").is_err()
    }
}

impl Write for Special {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.contains([',', '"', '\n', '\r']) { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[Column::Left("key"), Column::Right("n"), Column::Left("value")];

    fn printed(form: Form, rows: &[[&str; 3]]) -> String {
        let mut out = Vec::new();
        let made = || rows.iter().map(|row| row.iter().map(|&entry| Box::new(entry) as Entry).collect());
        form.write(COLUMNS, made, &Style::plain(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_line_up_and_lines_end_without_spaces() {
        let rows = [["ä", "10", "x  y "], ["longer", "1", ""], ["", "", " z"]];
        assert_eq!(
            printed(Form::Text, &rows),
            "key      n  value\nä       10  x  y\nlonger   1\n             z\n"
        );
    }

    /// Rust's own padding ends at 65,535, with a panic.
    #[test]
    fn one_long_entry_widens_no_other_row() {
        let long = "k".repeat(100_000);
        let text = printed(Form::Text, &[[&long, "1", &long], ["a", "22", "b"]]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], format!("{long}   1  {long}"));
        assert_eq!(lines[2], format!("a{}  22  b", " ".repeat(WIDEST - 1)));
    }

    #[test]
    fn entries_are_escaped_in_every_form() {
        let rows = [["a|b\n|", "1", "say \"c\", d"]];
        assert_eq!(
            printed(Form::Markdown, &rows),
            "| key | n | value |\n| --- | ---: | --- |\n| a\\|b<br>\\| | 1 | say \"c\", d |\n"
        );
        assert_eq!(printed(Form::Csv, &rows), "key,n,value\n\"a|b\n|\",1,\"say \"\"c\"\", d\"\n");
    }
}

//! Reports as pages: one HTML file that needs nothing else, no network, and little room.

use std::fmt::{Display, Write};
use std::io;

use crate::render::Column;

/// A page under construction. Whatever text it is given is escaped; only [`Html`] goes in as it is.
pub struct Page<'w> {
    html: String,
    /// Where it goes piece by piece, if not into one string.
    out: Option<&'w mut dyn io::Write>,
    written: io::Result<u64>,
}

/// Bytes of a page that are held before they are written.
const HELD: usize = 1 << 16;

/// Markup whose texts are escaped.
#[derive(Clone, Default)]
pub struct Html(String);

/// An entry of a table.
pub struct Cell {
    shown: Html,
    /// By what its column is sorted, if not by the text shown.
    sort: Option<f64>,
}

impl Page<'static> {
    /// A page of this title.
    pub fn new(title: &str) -> Page<'static> {
        Page::start(None, title)
    }
}

impl<'w> Page<'w> {
    /// The same, written while it is made: [`Page::close`] says whether that went well.
    pub fn to(out: &'w mut dyn io::Write, title: &str) -> Page<'w> {
        Page::start(Some(out), title)
    }

    /// The policy in its head forbids the browser to load anything.
    fn start(out: Option<&'w mut dyn io::Write>, title: &str) -> Page<'w> {
        let html = format!(
            "<!doctype html>\n<html lang=en><head><meta charset=utf-8><title>{}</title>\
             <meta name=viewport content='width=device-width,initial-scale=1'>\
             <meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'; \
             script-src 'unsafe-inline'\">\n<style>\n{}</style></head>\n<body>\n",
            Html::text(title).0,
            include_str!("page.css"),
        );
        let mut page = Page { html, out, written: Ok(0) };
        page.put("h1", "", title);
        page
    }

    /// A sentence below the title or a heading.
    pub fn lead(&mut self, text: &str) {
        self.put("p", "lead", text);
    }

    /// A paragraph. `class` is empty or one of good, warn, bad, faint, mono.
    pub fn paragraph(&mut self, class: &str, text: &str) {
        self.put("p", class, text);
    }

    /// A heading.
    pub fn heading(&mut self, text: &str) {
        self.put("h2", "", text);
    }

    /// What the page is about in few words, each with its label.
    pub fn facts<L: AsRef<str>, V: AsRef<str>>(&mut self, facts: impl IntoIterator<Item = (L, V)>) {
        self.html += "<dl class=facts>";
        for (label, value) in facts {
            let (label, value) = (Html::text(label.as_ref()), Html::text(value.as_ref()));
            self.html += &format!("<div><dt>{}</dt><dd>{}</dd></div>", label.0, value.0);
        }
        self.html += "</dl>\n";
    }

    /// A table whose rows can be sorted and filtered; each row has an entry for every column.
    pub fn table(&mut self, columns: &[Column], rows: impl IntoIterator<Item = Vec<Cell>>) {
        self.rows("sortable", columns, rows);
    }

    /// The same for sentences, which are broken into lines.
    pub fn wrapped(&mut self, columns: &[Column], rows: impl IntoIterator<Item = Vec<Cell>>) {
        self.rows("'sortable wrapped'", columns, rows);
    }

    fn rows(&mut self, class_of_table: &str, columns: &[Column], rows: impl IntoIterator<Item = Vec<Cell>>) {
        let class = |column: &Column| match column {
            Column::Left(_) => "",
            Column::Right(_) => " class=right",
        };
        self.html += &format!("<div class=scroll><table class={class_of_table}><thead><tr>");
        for column in columns {
            self.html += &format!("<th{}>{}</th>", class(column), Html::text(column.heading()).0);
        }
        self.html += "</tr></thead><tbody>\n";
        for row in rows {
            self.html += "<tr>";
            assert_eq!(row.len(), columns.len());
            for (Cell { shown, sort }, column) in row.iter().zip(columns) {
                let sort = sort.map_or(String::new(), |key| format!(" data-sort={key}"));
                self.html += &format!("<td{}{sort}>{}</td>", class(column), shown.0);
            }
            self.html += "</tr>\n";
            self.spill(HELD);
        }
        self.html += "</tbody></table></div>\n";
    }

    /// Markup of the caller's own, such as a picture.
    pub fn html(&mut self, html: &Html) {
        self.html += &html.0;
        self.html.push('\n');
    }

    /// The whole file.
    pub fn finish(mut self) -> String {
        self.html += &format!(
            "<footer>etalon {}</footer>\n<script>\n{}</script></body></html>\n",
            env!("CARGO_PKG_VERSION"),
            include_str!("page.js"),
        );
        self.html
    }

    /// Writes what is left of it and returns the bytes of all.
    pub fn close(mut self) -> io::Result<u64> {
        let (out, written) = (self.out.take(), std::mem::replace(&mut self.written, Ok(0)));
        let rest = self.finish();
        out.into_iter().try_for_each(|out| out.write_all(rest.as_bytes()))?;
        Ok(written? + rest.len() as u64)
    }

    /// Writes what is held, if it is as much as that and there is somewhere to write it to.
    fn spill(&mut self, held: usize) {
        let Some(out) = self.out.as_mut().filter(|_| self.html.len() >= held) else { return };
        if let Ok(written) = &mut self.written {
            *written += self.html.len() as u64;
            if let Err(error) = out.write_all(self.html.as_bytes()) {
                self.written = Err(error);
            }
        }
        self.html.clear();
    }

    fn put(&mut self, tag: &str, class: &str, text: &str) {
        let class = if class.is_empty() { String::new() } else { format!(" class={class}") };
        self.html += &format!("<{tag}{class}>{}</{tag}>\n", Html::text(text).0);
    }
}

impl Html {
    /// Text, escaped for use between tags and in attributes that stand in quotes.
    pub fn text(text: &str) -> Html {
        let mut html = String::with_capacity(text.len());
        for c in text.chars() {
            match c {
                '&' => html += "&amp;",
                '<' => html += "&lt;",
                '>' => html += "&gt;",
                '"' => html += "&quot;",
                '\'' => html += "&#39;",
                c if c.is_control() && c != '\n' => {
                    write!(html, "\\u{{{:x}}}", c as u32).expect("a string takes all")
                }
                c => html.push(c),
            }
        }
        Html(html)
    }

    /// Markup that the caller wrote.
    pub fn raw(markup: &str) -> Html {
        Html(markup.to_owned())
    }

    /// Appends.
    pub fn push(&mut self, more: &Html) {
        self.0 += &more.0;
    }

    /// Appends markup that the caller wrote.
    pub fn push_raw(&mut self, markup: &str) {
        self.0 += markup;
    }
}

impl Display for Html {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Cell {
    /// Text, sorted as text (with numbers in it by their value).
    pub fn text(text: &str) -> Cell {
        Cell { shown: Html::text(text), sort: None }
    }

    /// A number, shown as `text`.
    pub fn number(value: f64, text: &str) -> Cell {
        Cell { shown: Html::text(text), sort: Some(value) }
    }

    /// Text of a class: good, warn, bad, faint.
    pub fn marked(class: &str, text: &str) -> Cell {
        Cell { shown: Html(format!("<span class={class}>{}</span>", Html::text(text).0)), sort: None }
    }

    /// Markup of the caller's own, sorted by a number.
    pub fn html(html: Html, sort: f64) -> Cell {
        Cell { shown: html, sort: Some(sort) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_file_says_stays_text() {
        let hostile = "<script>alert('x')</script>\"&\u{0}";
        let mut page = Page::new(hostile);
        page.lead(hostile);
        page.heading(hostile);
        page.paragraph("bad", hostile);
        page.facts([(hostile, hostile)]);
        let cells = || vec![Cell::text(hostile), Cell::number(1.5, hostile), Cell::marked("bad", hostile)];
        page.table(&[Column::Left("a"), Column::Right("b"), Column::Left("c")], [cells()]);
        let html = page.finish();
        let escaped = "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&amp;\\u{0}";
        assert_eq!(html.matches(escaped).count(), 10);
        assert_eq!(html.matches("<script>").count(), 1);
        assert!(!html.contains(hostile));
    }

    /// Nothing in the frame can be fetched from anywhere.
    #[test]
    fn a_page_asks_for_nothing() {
        let html = Page::new("x").finish();
        for word in ["http://", "https://", "src=", "href", "@import", "url(", "fetch"] {
            assert!(!html.contains(word), "{word}");
        }
        assert!(html.contains("default-src 'none'") && html.len() < 10_000, "{}", html.len());
    }
}

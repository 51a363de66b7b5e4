//! Reports as pages: one HTML file that needs nothing else, no network, and little room.

use std::fmt::{Display, Write};

use crate::render::Column;

/// A page under construction. Whatever text it is given is escaped; only [`Html`] goes in as it is.
pub struct Page {
    title: String,
    body: String,
}

/// Markup whose texts are escaped.
#[derive(Clone, Default)]
pub struct Html(String);

/// An entry of a table.
pub struct Cell {
    shown: Html,
    /// By what its column is sorted, if not by the text shown.
    sort: Option<f64>,
}

impl Page {
    /// A page of this title.
    pub fn new(title: &str) -> Page {
        let mut page = Page { title: title.to_owned(), body: String::new() };
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
        self.body += "<dl class=facts>";
        for (label, value) in facts {
            let (label, value) = (Html::text(label.as_ref()), Html::text(value.as_ref()));
            self.body += &format!("<div><dt>{}</dt><dd>{}</dd></div>", label.0, value.0);
        }
        self.body += "</dl>\n";
    }

    /// A table whose rows can be sorted and filtered; each row has an entry for every column.
    pub fn table(&mut self, columns: &[Column], rows: impl IntoIterator<Item = Vec<Cell>>) {
        let class = |column: &Column| match column {
            Column::Left(_) => "",
            Column::Right(_) => " class=right",
        };
        self.body += "<div class=scroll><table class=sortable><thead><tr>";
        for column in columns {
            self.body += &format!("<th{}>{}</th>", class(column), Html::text(column.heading()).0);
        }
        self.body += "</tr></thead><tbody>\n";
        for row in rows {
            self.body += "<tr>";
            assert_eq!(row.len(), columns.len());
            for (Cell { shown, sort }, column) in row.iter().zip(columns) {
                let sort = sort.map_or(String::new(), |key| format!(" data-sort={key:e}"));
                self.body += &format!("<td{}{sort}>{}</td>", class(column), shown.0);
            }
            self.body += "</tr>\n";
        }
        self.body += "</tbody></table></div>\n";
    }

    /// Markup of the caller's own, such as a picture.
    pub fn html(&mut self, html: &Html) {
        self.body += &html.0;
        self.body.push('\n');
    }

    /// The whole file. Its policy forbids the browser to load anything.
    pub fn finish(self) -> String {
        let Page { title, body } = self;
        format!(
            "<!doctype html>\n<html lang=en><head><meta charset=utf-8><title>{}</title>\
             <meta name=viewport content='width=device-width,initial-scale=1'>\
             <meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'; \
             script-src 'unsafe-inline'\">\n<style>\n{}</style></head>\n<body>\n{body}<footer>etalon {}</footer>\n\
             <script>\n{}</script></body></html>\n",
            Html::text(&title).0,
            include_str!("page.css"),
            env!("CARGO_PKG_VERSION"),
            include_str!("page.js"),
        )
    }

    fn put(&mut self, tag: &str, class: &str, text: &str) {
        let class = if class.is_empty() { String::new() } else { format!(" class={class}") };
        self.body += &format!("<{tag}{class}>{}</{tag}>\n", Html::text(text).0);
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

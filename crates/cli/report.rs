//! The judgement of a comparison, as people read it.

use trace::{LogitStats, PointReport, Report, Side, Verdict};

use crate::page::{Cell, Page};
use crate::render::{Column, Style, Table};

/// Which points to list.
#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
pub enum Only {
    All,
    /// Those beyond their limits.
    Failed,
}

/// How many names are listed of points that only one side has.
const NAMED: usize = 4;

const COLUMNS: &[Column] = &[
    Column::Left("point"),
    Column::Left("shape"),
    Column::Right("NMSE"),
    Column::Right("centered"),
    Column::Right("max |Δ|"),
    Column::Left("at"),
    Column::Right("reference"),
    Column::Right("candidate"),
    Column::Right("relative"),
    Column::Right("cosine"),
    Column::Left("limit"),
    Column::Left(""),
];

/// The whole report: who was compared, every point, the logits, the first divergence, the verdict.
pub fn text(report: &Report, only: Only, style: &Style) -> String {
    let mut lines = heading(report);
    lines.push(String::new());
    lines.extend(table(report, only, style));
    lines.push(String::new());
    lines.extend(report.points.iter().filter_map(|point| point.logits.as_ref()).flat_map(logits));
    lines.extend(remarks(report));
    lines.extend(divergence(report, style));
    lines.push(verdict(report, style));
    lines.join("\n") + "\n"
}

/// The same as a page.
pub fn page(report: &Report) -> String {
    let plain = Style::plain();
    let mut page = Page::new("A trace against the reference");
    page.paragraph(if report.passed { "good" } else { "bad" }, &verdict(report, &plain));
    let tokens = report.tokens.map_or("unknown".to_owned(), |tokens| tokens.to_string());
    let sides =
        [("reference", side(&report.reference)), ("candidate", side(&report.candidate)), ("tokens", tokens)];
    page.facts(sides);
    let logits_of = report.points.iter().filter_map(|point| point.logits.as_ref()).flat_map(logits);
    logits_of.chain(remarks(report)).for_each(|line| page.paragraph("", &line));
    divergence(report, &plain).iter().for_each(|line| page.paragraph("bad", line));
    page.heading("Every point");
    let cells = |point: &PointReport| {
        let class = match point.verdict {
            Verdict::FirstDivergence => "bad",
            Verdict::Downstream => "faint",
            Verdict::Pass | Verdict::Exonerated => "",
        };
        let mut cells: Vec<Cell> = row(point).iter().map(|entry| Cell::text(entry)).collect();
        cells[0] = Cell::marked(class, &point.name);
        cells[2] = Cell::number(point.measure, &row(point)[2]);
        cells
    };
    page.table(COLUMNS, report.points.iter().map(cells));
    page.finish()
}

fn heading(report: &Report) -> Vec<String> {
    let mut lines = vec![
        format!("reference  {}", side(&report.reference)),
        format!("candidate  {}", side(&report.candidate)),
    ];
    if let Some(tokens) = report.tokens {
        lines.push(format!("tokens     {tokens}"));
    }
    if let Some(contract) = &report.contract {
        lines.push(format!("contract   {contract}"));
    }
    lines
}

/// What changes no result (threads, kernels) is left to the JSON: two runs give the same text.
pub fn side(side: &Side) -> String {
    let producer = match &side.producer {
        Some(producer) => format!("{} {}", producer.name, producer.version).trim_end().to_owned(),
        None => "unknown producer".to_owned(),
    };
    let precision = side.precision.map_or(String::new(), |precision| format!(", {precision}"));
    let model = side.model.as_ref().map_or(String::new(), |model| format!(", {}", model.path));
    producer + &precision + &model
}

fn table(report: &Report, only: Only, style: &Style) -> Vec<String> {
    let shown: Vec<&PointReport> =
        report.points.iter().filter(|point| only == Only::All || !point.within_limit).collect();
    let mut table = Table::new(COLUMNS);
    shown.iter().for_each(|point| table.row(row(point)));
    let mut rows = table.lines().into_iter();
    let mut lines: Vec<String> = rows.next().map(|heading| style.bold(&heading)).into_iter().collect();
    for (row, point) in rows.zip(shown) {
        lines.push(match point.verdict {
            Verdict::FirstDivergence => style.red(&row),
            Verdict::Downstream => style.dim(&row),
            Verdict::Pass | Verdict::Exonerated => row,
        });
        lines.extend(point.fault.iter().map(|fault| format!("    {fault}")));
        lines.extend(point.notes.iter().map(|note| format!("    note: {note}")));
    }
    lines
}

fn row(point: &PointReport) -> [String; 12] {
    let stats = point.stats.as_ref();
    let worst = stats.and_then(|stats| stats.worst.as_ref());
    let number = |value: Option<f64>| value.map_or(String::new(), small);
    [
        point.name.clone(),
        format!("{:?}", point.shape),
        if point.fault.is_some() { String::new() } else { small(point.measure) },
        number(stats.map(|s| s.nmse_centered)),
        number(stats.map(|s| s.max_abs)),
        worst.map_or(String::new(), |worst| format!("{:?}", worst.index)),
        worst.map_or(String::new(), |worst| format!("{:.3e}", worst.reference)),
        worst.map_or(String::new(), |worst| format!("{:.3e}", worst.candidate)),
        number(worst.map(|worst| worst.relative)),
        stats.map_or(String::new(), |s| format!("{:.6}", s.cosine)),
        small(point.limit),
        status(point),
    ]
}

fn status(point: &PointReport) -> String {
    let judged = match (point.verdict, point.within_limit) {
        (Verdict::FirstDivergence, _) => "FIRST",
        (Verdict::Downstream, true) => "ok, downstream",
        (Verdict::Downstream, false) => "FAIL, downstream",
        (Verdict::Pass | Verdict::Exonerated, _) => "ok",
    };
    match &point.choices {
        Some(c) => format!("{judged} ({} of {} tokens choose alike)", c.equal_sets, c.tokens),
        None => judged.to_owned(),
    }
}

/// Two digits are enough to tell distances apart.
pub fn small(value: f64) -> String {
    if value == 0.0 { "0".into() } else { format!("{value:.1e}").replace(".0e", "e") }
}

fn logits(logits: &LogitStats) -> Vec<String> {
    let mut lines = vec![format!(
        "logits     top-1 agrees at {} of {} positions, KL mean {}, max {}{}",
        logits.top1_agree,
        logits.positions,
        small(logits.kl_mean),
        small(logits.kl_max),
        logits.kl_max_at.map_or(String::new(), |at| format!(" at position {at}"))
    )];
    for d in &logits.disagreements {
        lines.push(format!(
            "           position {}: reference {} (by {}), candidate {} (by {})",
            d.position,
            d.reference,
            small(d.reference_margin),
            d.candidate,
            small(d.candidate_margin)
        ));
    }
    lines
}

fn remarks(report: &Report) -> Vec<String> {
    let mut lines: Vec<String> = report.notes.iter().map(|note| format!("note       {note}")).collect();
    for (side, names) in [("reference", &report.only_reference), ("candidate", &report.only_candidate)] {
        if !names.is_empty() {
            lines.push(format!("note       only the {side} has {}", listed(names)));
        }
    }
    if !report.unused_limits.is_empty() {
        lines.push(format!("note       limits that match no point: {}", report.unused_limits.join(", ")));
    }
    lines
}

fn listed(names: &[String]) -> String {
    let rest = names.len().saturating_sub(NAMED);
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ") + &more
}

pub fn divergence(report: &Report, style: &Style) -> Vec<String> {
    let Some(divergence) = &report.divergence else { return Vec::new() };
    let first = report.points.iter().position(|point| point.name == divergence.point);
    let mut lines = vec![format!("first      {}", style.red(&divergence.point))];
    if let Some(first) = first {
        let point = &report.points[first];
        let measured = match &point.fault {
            Some(fault) => fault.clone(),
            None => format!("{} > {} ({})", small(point.measure), small(point.limit), point.limit_from),
        };
        lines.push(format!("           {measured}"));
        lines.push(format!(
            "           {first} points before it exonerated, {} after it downstream",
            report.points.len() - first - 1
        ));
    }
    if !divergence.uncompared_before.is_empty() {
        let names = listed(&divergence.uncompared_before);
        lines.push(format!("           not compared between it and the last point that agrees: {names}"));
    }
    lines.extend(divergence.causes.iter().enumerate().map(|(n, cause)| {
        let label = if n == 0 { "causes" } else { "" };
        format!("{label:<11}- {cause}")
    }));
    if !divergence.independent.is_empty() {
        lines.push(format!(
            "also       {}: wrong though all its inputs agree",
            listed(&divergence.independent)
        ));
    }
    lines
}

fn verdict(report: &Report, style: &Style) -> String {
    let beyond = report.points.iter().filter(|point| !point.within_limit).count();
    match beyond {
        0 => format!("{}       all {} points within their limits", style.green("PASS"), report.points.len()),
        _ => format!(
            "{}       {beyond} of {} points beyond their limits",
            style.red("FAIL"),
            report.points.len()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<String> = (0..6).map(|n| n.to_string()).collect();
        assert_eq!(listed(&names[..2]), "0, 1");
        assert_eq!(listed(&names), "0, 1, 2, 3 and 2 more");
    }
}

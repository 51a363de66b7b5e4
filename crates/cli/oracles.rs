//! How a trace compares with both oracles, as people read it.

use std::collections::HashMap;

use eval::{Identified, Match, Oracle};
use trace::PointReport;

use crate::page::{Cell, Page};
use crate::render::{Column, Style, Table};
use crate::report::{self, Only, small};

const COLUMNS: &[Column] = &[
    Column::Left("point"),
    Column::Left("shape"),
    Column::Right("f32"),
    Column::Right("limit"),
    Column::Right("ggml"),
    Column::Right("limit"),
    Column::Right("apart"),
    Column::Left("matches"),
];

/// Point by point against both; the first divergence of the nearest, if neither matches; the verdict.
pub fn text(report: &Identified, only: Only, style: &Style) -> String {
    let mut lines = facts(report).map(|(label, value)| format!("{label:<11}{value}")).to_vec();
    lines.push("apart      how far the oracles themselves are apart on the same input".to_owned());
    lines.push(String::new());
    let shown: Vec<_> = rows(report)
        .into_iter()
        .filter(|(f32, ggml, _)| only == Only::All || !f32.within_limit && !ggml.within_limit)
        .collect();
    let mut table = Table::new(COLUMNS);
    shown.iter().for_each(|row| table.row(entries(row)));
    let mut rows = table.lines().into_iter();
    lines.extend(rows.next().map(|heading| style.bold(&heading)));
    for (row, (f32, ggml, _)) in rows.zip(&shown) {
        lines.push(if f32.within_limit || ggml.within_limit { row } else { style.red(&row) });
        lines.extend(f32.fault.iter().map(|fault| format!("    {fault}")));
    }
    lines.push(String::new());
    lines.extend(report.ggml.notes.iter().map(|note| format!("note       {note}")));
    for oracle in told(report) {
        lines.push(format!("{:<11}{}", "not", name(oracle)));
        lines.extend(report::divergence(report.by(oracle), style));
    }
    lines.push(verdict(report, style));
    lines.join("\n") + "\n"
}

/// The same as a page.
pub fn page(report: &Identified) -> String {
    let plain = Style::plain();
    let mut page = Page::new("A trace against both oracles");
    page.paragraph(if report.passed { "good" } else { "bad" }, &verdict(report, &plain));
    page.facts(facts(report));
    report.ggml.notes.iter().for_each(|note| page.paragraph("", note));
    for oracle in told(report) {
        page.heading(&format!("Why not {}", name(oracle)));
        report::divergence(report.by(oracle), &plain).iter().for_each(|line| page.paragraph("", line));
    }
    page.heading("Every point");
    page.lead(
        "Σ(a−b)²/Σb²; choices of experts as the share of tokens that differ. Apart: the oracles themselves.",
    );
    let row = |row: (&PointReport, &PointReport, Option<f64>)| {
        let [point, shape, f32, f32_limit, ggml, ggml_limit, apart, matches] = entries(&row);
        let class = if matches == "neither" { "bad" } else { "" };
        vec![
            Cell::text(&point),
            Cell::text(&shape),
            Cell::number(row.0.measure, &f32),
            Cell::number(row.0.limit, &f32_limit),
            Cell::number(row.1.measure, &ggml),
            Cell::number(row.1.limit, &ggml_limit),
            Cell::number(row.2.unwrap_or(f64::NAN), &apart),
            Cell::marked(class, &matches),
        ]
    };
    page.table(COLUMNS, rows(report).into_iter().map(row));
    page.finish()
}

fn facts(report: &Identified) -> [(&'static str, String); 4] {
    [
        ("f32", format!("{}, {}", report::side(&report.f32.reference), contract(&report.f32))),
        ("ggml", format!("{}, {}", report::side(&report.ggml.reference), contract(&report.ggml))),
        ("candidate", report::side(&report.f32.candidate)),
        ("tokens", report.f32.tokens.map_or("unknown".to_owned(), |tokens| tokens.to_string())),
    ]
}

fn contract(report: &trace::Report) -> &str {
    report.contract.as_deref().unwrap_or_default()
}

/// A point against both oracles, and how far these are apart.
fn rows(report: &Identified) -> Vec<(&PointReport, &PointReport, Option<f64>)> {
    let apart: HashMap<&str, f64> = report.parted.iter().map(|p| (p.name.as_str(), p.measure)).collect();
    let pairs = report.f32.points.iter().zip(&report.ggml.points);
    pairs.map(|(f32, ggml)| (f32, ggml, apart.get(f32.name.as_str()).copied())).collect()
}

fn entries((f32, ggml, apart): &(&PointReport, &PointReport, Option<f64>)) -> [String; 8] {
    let measure = |point: &PointReport| match point.fault {
        Some(_) => "fault".to_owned(),
        None => small(point.measure),
    };
    let matches = match (f32.within_limit, ggml.within_limit) {
        (true, true) => "both",
        (true, false) => "f32",
        (false, true) => "ggml",
        (false, false) => "neither",
    };
    [
        f32.name.clone(),
        format!("{:?}", f32.shape),
        measure(f32),
        small(f32.limit),
        measure(ggml),
        small(ggml.limit),
        apart.map_or(String::new(), small),
        matches.to_owned(),
    ]
}

/// The oracles whose first divergence is worth telling: of those asked for that do not match; the nearest first.
fn told(report: &Identified) -> Vec<Oracle> {
    let mut told: Vec<Oracle> =
        report.wanted.iter().copied().filter(|oracle| !report.passed && !report.by(*oracle).passed).collect();
    told.sort_by_key(|oracle| *oracle != report.nearest);
    told
}

fn name(oracle: Oracle) -> &'static str {
    match oracle {
        Oracle::F32 => "the f32 oracle",
        Oracle::Ggml => "ggml's 8-bit oracle",
    }
}

fn verdict(report: &Identified, style: &Style) -> String {
    let mark = if report.passed { style.green("PASS") } else { style.red("FAIL") };
    let found = match report.matches {
        Match::F32 => format!("matches {}", name(Oracle::F32)),
        Match::Ggml => format!("matches {}", name(Oracle::Ggml)),
        Match::Both => "matches both oracles: here they are not told apart".to_owned(),
        Match::Neither => {
            let first = report.by(report.nearest).divergence.as_ref().map_or("", |d| d.point.as_str());
            format!("matches neither: nearest is {}, first divergence {first}", name(report.nearest))
        }
    };
    format!("{mark}       {found}")
}

//! How one engine compares with the other, as people read it.

use eval::{Judged, Regressed, Tie, Top1};
use trace::PointReport;

use crate::page::{Cell, Page};
use crate::render::{Column, Style, Table};
use crate::report::{self, Only, small};

/// How many ties or flips are listed one by one.
const LISTED: usize = 8;

const COLUMNS: &[Column] = &[
    Column::Left("point"),
    Column::Left("shape"),
    Column::Right("local"),
    Column::Right("limit"),
    Column::Right("free"),
    Column::Right("limit"),
    Column::Left(""),
];

/// Point by point in both ways of feeding; the logits; the first divergence of each; the verdict.
pub fn text(report: &Regressed, only: Only, style: &Style) -> String {
    let mut lines = vec![
        format!("model      {}", report.model),
        format!("reference  {}", report::side(&report.local.report.reference)),
        format!("candidate  {}", report::side(&report.local.report.candidate)),
        format!("tokens     {}", report.tokens),
        "local      each block on the reference's input".to_owned(),
        "free       the candidate on its own".to_owned(),
        String::new(),
    ];
    let mut table = Table::new(COLUMNS);
    let shown: Vec<_> = pairs(report)
        .filter(|(local, free)| only == Only::All || !local.within_limit || !free.within_limit)
        .collect();
    for (local, free) in &shown {
        table.row([
            local.name.clone(),
            format!("{:?}", local.shape),
            measure(local),
            small(local.limit),
            measure(free),
            small(free.limit),
            status(local, free),
        ]);
    }
    let mut rows = table.lines().into_iter();
    lines.extend(rows.next().map(|heading| style.bold(&heading)));
    for (row, (local, free)) in rows.zip(&shown) {
        lines.push(if local.within_limit && free.within_limit { row } else { style.red(&row) });
        lines.extend(local.fault.iter().chain(&free.fault).map(|fault| format!("    {fault}")));
    }
    lines.push(String::new());
    for (name, judged) in both(report) {
        lines.extend(top1(name, &judged.top1, style));
        lines.extend(ties(name, &judged.ties));
        if !judged.report.passed {
            lines.push(format!("{name:<11}{}", style.bold("first divergence")));
            lines.extend(report::divergence(&judged.report, style));
        }
    }
    lines.push(verdict(report, style));
    lines.join("\n") + "\n"
}

/// The same as a page.
pub fn page(report: &Regressed) -> String {
    let mut page = Page::new("One engine against the other");
    let class = if report.passed { "good" } else { "bad" };
    page.paragraph(class, &verdict(report, &Style::plain()));
    page.facts([
        ("model", report.model.clone()),
        ("reference", report::side(&report.local.report.reference)),
        ("candidate", report::side(&report.local.report.candidate)),
        ("tokens", report.tokens.to_string()),
    ]);
    for (name, judged) in both(report) {
        page.heading(if name == "local" {
            "Each block on the reference's input"
        } else {
            "The candidate on its own"
        });
        let logits = top1(name, &judged.top1, &Style::plain()).into_iter().chain(ties(name, &judged.ties));
        logits.for_each(|line| page.paragraph("", &line));
        report::divergence(&judged.report, &Style::plain())
            .iter()
            .for_each(|line| page.paragraph("bad", line));
    }
    page.heading("Every point");
    page.lead("Σ(a−b)²/Σb² against the reference; choices of experts as the share of tokens that differ.");
    let row = |(local, free): (&PointReport, &PointReport)| {
        let number = |point: &PointReport| Cell::number(point.measure, &measure(point));
        let fine = local.within_limit && free.within_limit;
        vec![
            Cell::text(&local.name),
            Cell::text(&format!("{:?}", local.shape)),
            number(local),
            Cell::number(local.limit, &small(local.limit)),
            number(free),
            Cell::number(free.limit, &small(free.limit)),
            Cell::marked(if fine { "good" } else { "bad" }, &status(local, free)),
        ]
    };
    page.table(COLUMNS, pairs(report).map(row));
    page.finish()
}

/// A point in both ways of feeding.
fn pairs(report: &Regressed) -> impl Iterator<Item = (&PointReport, &PointReport)> {
    report.local.report.points.iter().zip(&report.free_running.report.points)
}

fn both(report: &Regressed) -> [(&'static str, &Judged); 2] {
    [("local", &report.local), ("free", &report.free_running)]
}

fn measure(point: &PointReport) -> String {
    if point.fault.is_some() { "fault".to_owned() } else { small(point.measure) }
}

fn status(local: &PointReport, free: &PointReport) -> String {
    match (local.within_limit, free.within_limit) {
        (true, true) => String::new(),
        (false, true) => "local".to_owned(),
        (true, false) => "free".to_owned(),
        (false, false) => "local, free".to_owned(),
    }
}

fn top1(name: &str, top1: &Top1, style: &Style) -> Vec<String> {
    if top1.positions == 0 {
        return Vec::new();
    }
    let mut lines = vec![format!(
        "{name:<11}top-1 agrees at {} of {} positions; the reference's own margin is {} at least, the noise {}",
        top1.agree,
        top1.positions,
        small(top1.least_margin),
        small(top1.noise)
    )];
    lines.extend(top1.flips.iter().take(LISTED).map(|flip| {
        let judged = if flip.within_noise { "within noise".to_owned() } else { style.red("beyond noise") };
        let (reference, candidate, margin) = (flip.reference, flip.candidate, small(flip.margin));
        format!("           position {}: {reference} by {margin}, here {candidate}: {judged}", flip.position)
    }));
    lines.extend(more(top1.flips.len()));
    lines
}

fn ties(name: &str, ties: &[Tie]) -> Vec<String> {
    let line = |tie: &Tie| {
        format!(
            "{name:<11}layer {}, position {}: other experts within noise (margin {}, noise {}); what follows is not judged",
            tie.layer,
            tie.token,
            small(tie.margin),
            small(tie.noise)
        )
    };
    ties.iter().take(LISTED).map(line).chain(more(ties.len())).collect()
}

fn more(count: usize) -> Option<String> {
    count.checked_sub(LISTED).filter(|&rest| rest > 0).map(|rest| format!("           and {rest} more"))
}

fn verdict(report: &Regressed, style: &Style) -> String {
    let beyond: usize =
        both(report).iter().map(|(_, j)| j.report.points.iter().filter(|p| !p.within_limit).count()).sum();
    let points = report.local.report.points.len();
    match (report.passed, beyond) {
        (true, _) => format!(
            "{}       all {points} points within their limits, locally and on its own",
            style.green("PASS")
        ),
        (false, 0) => format!("{}       first choices differ beyond noise", style.red("FAIL")),
        (false, _) => {
            format!("{}       {beyond} of {} measures beyond their limits", style.red("FAIL"), 2 * points)
        }
    }
}

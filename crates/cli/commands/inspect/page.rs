//! A checkpoint as a page.

use std::io::Write;
use std::path::{Path, PathBuf};

use format::TensorInfo;
use inspect::stats::Stats;
use inspect::{Finding, Overview, Severity, TensorRow};
use serde::Serialize;

use super::stats::{measure, number};
use super::tensors::purpose;
use super::{Selected, kv, overview, picture, shape};
use crate::commands::Outcome;
use crate::page::{Cell, Html, Page};
use crate::render::{Column, bytes, count};

#[derive(Serialize)]
struct Written {
    path: PathBuf,
    bytes: u64,
}

pub(super) fn run(selected: &Selected, stats: bool, path: &Path, force: bool) -> anyhow::Result<Outcome> {
    let written = crate::file::write_with(path, force, |out| write(selected, stats, out))?;
    let written = Written { path: path.to_owned(), bytes: written };
    Ok(Outcome::fine(written, |written, _| format!("{}: {}\n", written.path.display(), bytes(written.bytes))))
}

/// Writes the page and returns its bytes.
fn write(selected: &Selected, stats: bool, out: &mut dyn Write) -> anyhow::Result<u64> {
    let subject = &selected.subject;
    let overview = Overview::of(subject);
    let rows: Vec<TensorRow> = selected.rows().collect();
    let mut page = Page::to(out, &title(&overview));
    page.lead(&subject.path().display().to_string());
    page.facts(overview::facts(&overview));
    findings(&mut page, &overview.findings);
    if !rows.is_empty() {
        page.heading("The model as it is stored");
        if let Some(letters) = &overview.layers {
            page.lead(&format!("Layers: {}.", overview::layers(letters)));
        }
        page.html(&picture::draw(&rows, overview.layers.as_deref()));
        page.lead("Every area is as large as the tensor's bytes; point at one for details.");
        page.heading("Parts");
        parts(&mut page, &overview);
        if stats {
            page.heading("Values");
            values(&mut page, measure(selected));
        }
        page.heading("Tensors");
        tensors(&mut page, &rows);
    }
    let mut keys = kv::shown(subject).peekable();
    if keys.peek().is_some() {
        page.heading("Keys");
        page.table(kv::COLUMNS, keys.map(|row| row.iter().map(|text| Cell::text(text)).collect()));
    }
    Ok(page.close()?)
}

fn title(overview: &Overview) -> String {
    let file = overview.path.file_name().map(|name| name.to_string_lossy().into_owned());
    overview.name.clone().or(file).unwrap_or_else(|| overview.path.display().to_string())
}

fn findings(page: &mut Page, findings: &[Finding]) {
    if findings.is_empty() {
        page.paragraph("good", "No contradictions were found.");
        return;
    }
    page.heading("Findings");
    let columns =
        [Column::Left(""), Column::Left("where"), Column::Left("evidence"), Column::Left("what to do")];
    page.wrapped(
        &columns,
        findings.iter().map(|finding| {
            let class = match finding.severity {
                Severity::Error => "bad",
                Severity::Warning => "warn",
                Severity::Note => "faint",
            };
            vec![
                Cell::marked(class, finding.severity.name()),
                Cell::text(&finding.subject),
                Cell::text(&finding.evidence),
                Cell::text(&finding.advice),
            ]
        }),
    );
}

fn parts(page: &mut Page, overview: &Overview) {
    let columns = [
        Column::Left("part"),
        Column::Right("tensors"),
        Column::Right("parameters"),
        Column::Right("bytes"),
        Column::Right("share"),
        Column::Left("encodings"),
    ];
    page.table(
        &columns,
        overview.classes.iter().map(|part| {
            let encodings: Vec<String> =
                part.encodings.iter().map(|(name, n)| format!("{name} ×{n}")).collect();
            vec![
                Cell::text(part.class.name()),
                Cell::number(part.tensors as f64, &part.tensors.to_string()),
                Cell::number(part.parameters as f64, &count(part.parameters)),
                Cell::number(part.bytes as f64, &bytes(part.bytes)),
                Cell::number(part.share, &format!("{:.1} %", part.share * 100.0)),
                Cell::text(&encodings.join(", ")),
            ]
        }),
    );
}

fn tensors(page: &mut Page, rows: &[TensorRow]) {
    let mapped = rows.iter().any(|row| row.status.is_some());
    let mut columns = vec![
        Column::Left("name"),
        Column::Left("encoding"),
        Column::Left("shape"),
        Column::Right("bytes"),
        Column::Right("offset"),
        Column::Left("part"),
    ];
    if mapped {
        columns.extend([
            Column::Left("role"),
            Column::Left("to canonical form"),
            Column::Left("in the other format"),
        ]);
    }
    page.table(
        &columns,
        rows.iter().map(|row| {
            let mut cells = vec![
                Cell::text(&row.name),
                Cell::text(row.encoding),
                Cell::number(row.elements as f64, &shape(&row.shape)),
                Cell::number(row.bytes as f64, &bytes(row.bytes)),
                Cell::number(row.offset as f64, &row.offset.to_string()),
                Cell::text(row.class.name()),
            ];
            if mapped {
                cells.extend([
                    Cell::text(&purpose(row)),
                    Cell::text(&row.steps),
                    Cell::text(&row.there.join(" | ")),
                ]);
            }
            cells
        }),
    );
}

fn values<'s>(page: &mut Page, measured: impl Iterator<Item = (&'s TensorInfo, Stats)>) {
    let columns = [
        Column::Left("name"),
        Column::Left("encoding"),
        Column::Left("histogram"),
        Column::Right("min"),
        Column::Right("max"),
        Column::Right("mean"),
        Column::Right("std"),
        Column::Right("kurtosis"),
        Column::Right("largest row / middle"),
        Column::Right("zeros"),
        Column::Right("NaN, inf"),
        Column::Right("saturated"),
    ];
    let cell = |value: Option<f64>| Cell::number(value.unwrap_or(f64::NEG_INFINITY), &number(value));
    page.table(
        &columns,
        measured.map(|(info, stats)| {
            let ratio =
                stats.row_norms.as_ref().filter(|rows| rows.median > 0.0).map(|rows| rows.max / rows.median);
            let saturated = stats.blocks.as_ref().and_then(|blocks| blocks.saturated);
            vec![
                Cell::text(&info.name),
                Cell::text(info.encoding.name()),
                Cell::html(histogram(&stats), stats.std.unwrap_or(0.0)),
                cell(stats.min.map(f64::from)),
                cell(stats.max.map(f64::from)),
                cell(stats.mean),
                cell(stats.std),
                cell(stats.kurtosis),
                cell(ratio),
                Cell::number(stats.zeros as f64, &stats.zeros.to_string()),
                Cell::number((stats.nan + stats.infinite) as f64, &(stats.nan + stats.infinite).to_string()),
                Cell::number(
                    saturated.unwrap_or(-1.0),
                    &saturated.map_or(String::new(), |s| format!("{:.2} %", s * 100.0)),
                ),
            ]
        }),
    );
}

/// Bars on a root scale, so that tails are seen.
fn histogram(stats: &Stats) -> Html {
    const HEIGHT: f64 = 22.0;
    const BAR: f64 = 5.0;
    let most = f64::from(stats.histogram.iter().copied().max().unwrap_or(0).max(1));
    let mut path = String::new();
    for (i, &n) in stats.histogram.iter().enumerate() {
        let height = (f64::from(n) / most).sqrt() * HEIGHT;
        if n > 0 {
            path += &format!("M{:.0} {HEIGHT}v-{height:.1}h{:.0}v{height:.1}z", i as f64 * BAR, BAR - 1.0);
        }
    }
    let width = stats.histogram.len() as f64 * BAR;
    let tip = format!(
        "{} values from {} to {}, heights by their square roots",
        stats.sampled,
        number(stats.min.map(f64::from)),
        number(stats.max.map(f64::from))
    );
    Html::raw(&format!(
        "<svg width={width} height={HEIGHT} data-tip='{}'><path fill=var(--accent) d='{path}'/></svg>",
        Html::text(&tip)
    ))
}

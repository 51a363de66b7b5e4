//! Statistics of tensors.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use eval::Progress;
use inspect::stats::Stats;
use inspect::{Selection, Subject, TensorRow};
use rayon::prelude::*;
use serde::Serialize;

use super::{Each, Form, rows, shape};
use crate::commands::Outcome;
use crate::render::{Bar, Column, Style, Table};

#[derive(Serialize)]
struct Measured {
    path: PathBuf,
    tensors: Vec<TensorStats>,
}

/// A tensor and what its values are like.
#[derive(Serialize)]
pub(super) struct TensorStats {
    pub(super) name: String,
    pub(super) encoding: &'static str,
    pub(super) shape: Vec<u64>,
    #[serde(flatten)]
    pub(super) stats: Stats,
}

pub(super) fn run(subjects: &[Subject], selection: &Selection, form: Form) -> anyhow::Result<Outcome> {
    let measured: Vec<Measured> = subjects
        .iter()
        .map(|subject| Measured {
            path: subject.path().to_owned(),
            tensors: measure(subject, &rows(subject, selection)),
        })
        .collect();
    anyhow::ensure!(measured.iter().any(|m| !m.tensors.is_empty()), "no tensor is selected");
    Ok(Outcome::new(Each(measured), false, move |each: &Each<Measured>, style| {
        each.text(|measured| &measured.path, style, |measured| text(measured, form, style))
    }))
}

/// Reads every byte of these tensors, on all threads.
pub(super) fn measure(subject: &Subject, rows: &[TensorRow]) -> Vec<TensorStats> {
    let bar = Bar::new();
    bar.begin("reading tensors", rows.iter().map(|row| row.bytes).sum());
    let done = AtomicU64::new(0);
    let progress = |bytes| bar.reached(done.fetch_add(bytes, Ordering::Relaxed) + bytes);
    let source = subject.source();
    rows.par_iter()
        .filter_map(|row| {
            let stats = inspect::stats::stats(source, source.tensor(&row.name)?, &progress);
            Some(TensorStats {
                name: row.name.clone(),
                encoding: row.encoding,
                shape: row.shape.clone(),
                stats,
            })
        })
        .collect()
}

/// Counts as a line of eight heights.
pub(super) fn spark(histogram: &[u64]) -> String {
    const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = histogram.iter().copied().max().unwrap_or(0).max(1);
    let height = |&n: &u64| match n {
        0 => ' ',
        n => HEIGHTS[((n as f64 / most as f64 * 8.0).ceil() as usize).clamp(1, 8) - 1],
    };
    histogram.iter().map(height).collect()
}

pub(super) fn number(value: Option<f64>) -> String {
    value.map_or(String::new(), |value| match value.abs() {
        0.0 => "0".to_owned(),
        1e-3..1e4 => format!("{value:.4}"),
        _ => format!("{value:.2e}"),
    })
}

fn text(measured: &Measured, form: Form, style: &Style) -> Vec<String> {
    let mut table = Table::new(&[
        Column::Left("name"),
        Column::Left("encoding"),
        Column::Left("shape"),
        Column::Right("min"),
        Column::Right("max"),
        Column::Right("mean"),
        Column::Right("std"),
        Column::Right("rms"),
        Column::Right("|max|"),
        Column::Left("at"),
        Column::Right("kurtosis"),
        Column::Right("zeros"),
        Column::Right("subnormal"),
        Column::Right("NaN/inf"),
        Column::Left("row norms"),
        Column::Left("scales"),
        Column::Right("saturated"),
        Column::Left("histogram"),
    ]);
    for TensorStats { name, encoding, shape: dims, stats } in &measured.tensors {
        let wide = |value: Option<f32>| number(value.map(f64::from));
        let spread = |spread: &inspect::stats::Spread| {
            let [min, median, max] = [spread.min, spread.median, spread.max].map(|value| number(Some(value)));
            format!("{min} · {median} · {max}")
        };
        let blocks = stats.blocks.as_ref();
        let scales = blocks.and_then(|blocks| blocks.scale.as_ref().or(blocks.factor.as_ref()));
        table.row([
            name.clone(),
            (*encoding).to_owned(),
            shape(dims),
            wide(stats.min),
            wide(stats.max),
            number(stats.mean),
            number(stats.std),
            number(stats.rms),
            wide(stats.absmax),
            stats.absmax_at.as_deref().map_or(String::new(), shape),
            stats.kurtosis.map_or(String::new(), |k| format!("{k:.2}")),
            stats.zeros.to_string(),
            stats.subnormals.to_string(),
            (stats.nan + stats.infinite).to_string(),
            stats.row_norms.as_ref().map_or(String::new(), spread),
            scales.map_or(String::new(), spread),
            blocks.and_then(|b| b.saturated).map_or(String::new(), |share| format!("{:.2} %", share * 100.0)),
            spark(&stats.histogram),
        ]);
    }
    form.lines(&table, style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_heights_shows_what_is_rare() {
        assert_eq!(spark(&[0, 1, 4, 8, 1000]), " ▁▁▁█");
        assert_eq!(spark(&[0, 0]), "  ");
        assert_eq!(number(Some(0.5)), "0.5000");
        assert_eq!(number(Some(1e-5)), "1.00e-5");
    }
}

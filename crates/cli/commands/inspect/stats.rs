//! Statistics of tensors.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use eval::Progress;
use format::TensorInfo;
use inspect::stats::Stats;
use rayon::prelude::*;
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::{Each, Selected, Sequence, shape};
use crate::commands::Outcome;
use crate::listing::{Form, entries};
use crate::render::{Bar, Column, Style};

struct Measured {
    selected: Selected,
    /// Of each of the selected.
    stats: Vec<Stats>,
}

/// A tensor and what its values are like.
#[derive(Serialize)]
struct TensorStats<'a> {
    name: &'a str,
    encoding: &'static str,
    shape: &'a [u64],
    #[serde(flatten)]
    stats: &'a Stats,
}

impl Measured {
    fn new(selected: Selected) -> Measured {
        let mut stats = Vec::with_capacity(selected.places.len());
        stats.extend(measure(&selected).map(|(_, stats)| stats));
        Measured { selected, stats }
    }

    fn tensors(&self) -> impl Iterator<Item = TensorStats<'_>> {
        self.selected.infos().zip(&self.stats).map(|(info, stats)| TensorStats {
            name: &info.name,
            encoding: info.encoding.name(),
            shape: info.shape.dims(),
            stats,
        })
    }
}

impl Serialize for Measured {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut measured = serializer.serialize_struct("Measured", 2)?;
        measured.serialize_field("path", self.selected.subject.path())?;
        measured.serialize_field("tensors", &Sequence(|| self.tensors()))?;
        measured.end()
    }
}

pub(super) fn run(selected: Vec<Selected>, form: Form) -> anyhow::Result<Outcome> {
    anyhow::ensure!(selected.iter().any(|selected| !selected.places.is_empty()), "no tensor is selected");
    let measured = Each(selected.into_iter().map(Measured::new).collect());
    Ok(Outcome::streamed(measured, false, move |each: &Each<Measured>, style, out| {
        each.write(
            |measured| measured.selected.subject.path(),
            style,
            out,
            |measured, out| write(measured, form, style, out),
        )
    }))
}

/// Tensors that are read before the first of them is handed on: enough for all threads, few enough to be held.
const AT_ONCE: usize = 4096;

/// Reads every byte of these tensors, on all threads.
pub(super) fn measure(selected: &Selected) -> impl Iterator<Item = (&TensorInfo, Stats)> {
    let bar = Bar::new();
    bar.begin("reading tensors", selected.infos().map(|info| info.size).sum());
    let done = AtomicU64::new(0);
    let source = selected.subject.source();
    selected.places.chunks(AT_ONCE).flat_map(move |places| {
        let progress = |bytes| bar.reached(done.fetch_add(bytes, Ordering::Relaxed) + bytes);
        let of = |&place: &usize| {
            let info = &source.tensors()[place];
            (info, inspect::stats::stats(source, info, &progress))
        };
        places.par_iter().map(of).collect::<Vec<_>>()
    })
}

/// Counts as a line of eight heights.
pub(super) fn spark(histogram: &[u32]) -> String {
    const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = histogram.iter().copied().max().unwrap_or(0).max(1);
    let height = |&n: &u32| match n {
        0 => ' ',
        n => HEIGHTS[((f64::from(n) / f64::from(most) * 8.0).ceil() as usize).clamp(1, 8) - 1],
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

const COLUMNS: &[Column] = &[
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
];

fn write(measured: &Measured, form: Form, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let row = |TensorStats { name, encoding, shape: dims, stats }| {
        let wide = |value: Option<f32>| number(value.map(f64::from));
        let spread = |spread: &inspect::stats::Spread| {
            let [min, median, max] = [spread.min, spread.median, spread.max].map(|value| number(Some(value)));
            format!("{min} · {median} · {max}")
        };
        let blocks = stats.blocks.as_ref();
        let scales = blocks.and_then(|blocks| blocks.scale.as_ref().or(blocks.factor.as_ref()));
        entries![
            name,
            encoding,
            shape(dims),
            wide(stats.min),
            wide(stats.max),
            number(stats.mean),
            number(stats.std),
            number(stats.rms),
            wide(stats.absmax),
            stats.absmax_at.as_deref().map_or(String::new(), shape),
            stats.kurtosis.map_or(String::new(), |k| format!("{k:.2}")),
            stats.zeros,
            stats.subnormals,
            stats.nan + stats.infinite,
            stats.row_norms.as_ref().map_or(String::new(), spread),
            scales.map_or(String::new(), spread),
            blocks.and_then(|b| b.saturated).map_or(String::new(), |share| format!("{:.2} %", share * 100.0)),
            spark(&stats.histogram)
        ]
    };
    form.write(COLUMNS, || measured.tensors().map(row), style, out)
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

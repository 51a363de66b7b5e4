//! How far the fast engine may be from the reference on the same file: one table, by encoding.
//!
//! The measure is Σ(a−b)²/Σb², as everywhere. Both engines decode a weight to the same real number, so an encoding
//! matters only for how its kernel adds up; what differs is rounding to f32 (u = 2⁻²⁴) inside operations.

use std::collections::BTreeSet;

use codec::Encoding;
use model::{Checkpoint, Place, Use};
use trace::{GlobError, Limits, Precision, Report, Row, Trace};

/// The limits of matrices of one kind of kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Of every point of a block that is fed the reference's input.
    pub local: f64,
    /// Of every point of a pass on its own.
    pub free_running: f64,
}

/// Weights that are floating-point numbers: products and sums in f32. A sum of n terms in 16 lanes errs by a random walk
/// of n/16 steps of u²/3 of its square: 9e-13 for the longest row, 12,288. Norms, gates and the recurrence of a block
/// raise that by two decades at most.
const FLOAT: Tolerance = Tolerance { local: 1e-10, free_running: 1e-8 };

/// Blocks of integers. Activations may be written as fixed-point digits, 22 bits below the largest of a block, and an
/// activation that stands out by a factor of 30 leaves the rest with 17: 2⁻³⁴ / 3 = 2e-11 of the square in the worst
/// row, 1e-13 in most. Sums over digits are exact.
const BLOCKS: Tolerance = Tolerance { local: 1e-10, free_running: 1e-8 };

/// The table. A pass of its own adds up the errors of up to 64 layers, each of which may magnify what it is given:
/// two decades over a block alone.
pub fn tolerance(encoding: Encoding) -> Tolerance {
    if encoding.block_len() == 1 { FLOAT } else { BLOCKS }
}

/// Whether blocks are fed the reference's input or their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    /// The reference's.
    Local,
    /// Their own.
    FreeRunning,
}

/// A limit for every point: of each layer by the widest tolerance among its matrices.
pub fn rows(checkpoint: &Checkpoint, feed: Feed) -> Vec<Row> {
    let of = |place: Option<usize>| -> BTreeSet<&'static str> {
        encodings(checkpoint, place).into_iter().map(Encoding::name).collect()
    };
    let widest = |place: Option<usize>| {
        let limits = encodings(checkpoint, place).into_iter().map(tolerance).map(|t| match feed {
            Feed::Local => t.local,
            Feed::FreeRunning => t.free_running,
        });
        limits.fold(0.0, f64::max)
    };
    let kind = match feed {
        Feed::Local => "local",
        Feed::FreeRunning => "free",
    };
    let row = |pattern: String, place| {
        let names = of(place).into_iter().collect::<Vec<_>>().join(" ");
        Row { pattern, value: widest(place), label: format!("{kind} {names}") }
    };
    let mut rows = vec![row("model.norm".to_owned(), None), row("lm_head".to_owned(), None)];
    for l in 0..checkpoint.config().num_hidden_layers {
        rows.push(row(format!("model.layers.{l}"), Some(l)));
        rows.push(row(format!("model.layers.{l}.*"), Some(l)));
    }
    rows
}

/// A trace in single precision, judged block by block: Transformers' own runs are at most 2.9e-12 off at any point of the
/// bundled models. One and a half decades more for wider ones.
const LOCAL_F32: f64 = 1e-10;

/// Limits for a trace that is judged block by block: in single precision fifty times as sharp as for a whole pass. The
/// rounding of coarser formats happens in every block, so that their limits stay.
pub fn trace_rows(trace: &Trace) -> Vec<Row> {
    if coarsest(trace) != Some(Precision::F32) {
        return Vec::new();
    }
    let row = |pattern: &str| Row { pattern: pattern.into(), value: LOCAL_F32, label: "local f32".into() };
    ["model.layers.*", "model.norm", "lm_head"].map(row).into()
}

/// The coarsest precision that a trace states or stores.
fn coarsest(trace: &Trace) -> Option<Precision> {
    let stated = trace
        .manifest()
        .and_then(|m| m.producer.as_ref()?.precision.as_deref())
        .and_then(Precision::from_name);
    let stored = trace.names().filter_map(|name| trace.info(name)).map(|info| Precision::of(info.dtype));
    stored.chain(stated).max()
}

/// How much of what parts the two oracles at a point may part a trace from ggml's: a quarter of the square, half of the
/// distance. Within it a trace is nearer to ggml's oracle than to the other, wherever it lies.
///
/// Kernels of that design add f32 partial sums in other orders and round norms otherwise: δ, about an f32's last bit
/// (1e-7), is enough to send an activation of q steps to the next whole number with a chance of 2qδ, 3e-5 at most. That
/// moves it by a step where rounding to 8 bits had moved all of them by 1/√12 of one: 4e-4 of what parts the oracles, on
/// average. One that has gone astray moves everything behind it in its token by more than δ, up to the next residual, so that
/// a few tokens may be as far off as the oracles are; with d activations a token they are one in 1/(6e-6·d), 1.5 % at
/// d = 2560, and more of the square where such a token outweighs the others. Measured with every norm's gains a unit in the
/// last place off, 48 tokens: 5e-3 (Q4_K) and 0.18 (Q8_0, one token); in llama.cpp's own traces 5e-9. What computes something
/// else is off by as much as the oracles are, or more.
const GGML_SHARE: f64 = 0.25;

/// Limits for a trace that is judged block by block by ggml's 8-bit scheme: where `parted`, the oracles on the same input,
/// are further apart than a trace may be from the reference, a share of that.
///
/// # Errors
/// A name that is no pattern.
pub fn ggml_rows(trace: &Trace, parted: &Report) -> Result<Vec<Row>, GlobError> {
    let precision = coarsest(trace).unwrap_or(Precision::F32).max(Precision::F32);
    let exact = Limits::default().with_rows(trace_rows(trace))?;
    let row = |(name, measure): (&str, f64)| {
        let (least, share) = (exact.of(name, precision), GGML_SHARE * measure);
        match share > least.value {
            true => Row {
                pattern: name.into(),
                value: share,
                label: "a quarter of what parts the oracles".into(),
            },
            false => {
                let label = least.label.unwrap_or_else(|| format!("built-in {precision}"));
                Row { pattern: name.into(), value: least.value, label }
            }
        }
    };
    Ok(parted.points.iter().map(|point| row((&point.name, point.measure))).collect())
}

/// The encodings of the matrices of a layer, or outside layers.
fn encodings(checkpoint: &Checkpoint, layer: Option<usize>) -> Vec<Encoding> {
    let layout = checkpoint.layout();
    let place = layer.map_or(Place::Global, Place::Layer);
    let tensors = checkpoint.source().tensors().iter().zip(&layout.uses);
    let here = tensors.filter(|(_, used)| match used {
        Use::Slots(slots) => slots.iter().any(|&slot| layout.slots[slot].place == place),
        _ => false,
    });
    here.filter(|(info, _)| info.shape.dims().len() > 1).map(|(info, _)| info.encoding).collect()
}

//! IQ1_S and IQ1_M: eight values of −1, 0, 1 at a time by a point of a grid, all shifted a little up or down.

use std::array;
use std::cmp::Ordering;
use std::sync::LazyLock;

use crate::anatomy::{Group, Plan, Point};
use crate::arithmetic::{magnitude, sum_of_squares, weigh};
use crate::blocks::{Weights, fields, fields_mut};
use crate::float16::{f16_to_f32, f32_to_f16, scale, store_scale};
use crate::grid::{self, with_levels};
use crate::lattice::{Lattice, Place, least, odd_multiples};

/// The points of IQ1_S and IQ1_M, unshifted.
pub static POINTS: [[i8; 8]; 2048] = with_levels(&grid::IQ1, &[-1, 0, 1]);

/// How far the values are shifted, in steps.
const SHIFT: f32 = 0.125;

/// y = step·(q ± shift), minus if `down`.
#[inline(always)]
fn dequantize(step: f32, point: usize, down: bool, out: &mut [f32; 8]) {
    let shift = if down { -SHIFT } else { SHIFT };
    for (y, q) in out.iter_mut().zip(POINTS[point]) {
        *y = step * (f32::from(q) + shift);
    }
}

/// A step is the odd number 2s + 1, three-bit s, times d.
#[inline(always)]
fn step(d: f32, s: u16) -> f32 {
    d * f32::from(2 * (s & 7) + 1)
}

/// IQ1_S: f16 d; the low bits of 11-bit points of eight values; for each of eight groups of 32 values a u16: four times
/// the points' upper three bits, a scale, and the shift's sign.
#[inline(always)]
pub(crate) fn decode_iq1_s(block: &[u8; 50], out: &mut [f32; 256]) {
    fields!(block => d: 2, low: 32, high: 16);
    let d = scale(*d);
    let groups = low.as_chunks::<4>().0.iter().zip(high.as_chunks().0);
    for (out, (low, high)) in out.as_chunks_mut::<32>().0.iter_mut().zip(groups) {
        let high = u16::from_le_bytes(*high);
        let step = step(d, high >> 12);
        for (i, (out, low)) in out.as_chunks_mut::<8>().0.iter_mut().zip(low).enumerate() {
            let point = usize::from(*low) | usize::from(high >> (3 * i) & 7) << 8;
            dequantize(step, point, high >> 15 == 1, out);
        }
    }
}

/// IQ1_M: the low bits of 11-bit points of eight values; nibbles of the points' upper three bits and the shift's sign;
/// four u16, each with four scales of 16 values and, on top, a nibble of the f16 d.
#[inline(always)]
pub(crate) fn decode_iq1_m(block: &[u8; 56], out: &mut [f32; 256]) {
    fields!(block => low: 32, high: 16, scales: 8);
    let scales: [u16; 4] = array::from_fn(|i| u16::from_le_bytes([scales[2 * i], scales[2 * i + 1]]));
    let d = f16_to_f32(scales[0] >> 12 | scales[1] >> 12 << 4 | scales[2] >> 12 << 8 | scales[3] >> 12 << 12);
    for (i, (out, low)) in out.as_chunks_mut::<8>().0.iter_mut().zip(low).enumerate() {
        let high = high[i / 2] >> (4 * (i % 2));
        let step = step(d, scales[i / 8] >> (3 * (i / 2 % 4)));
        dequantize(step, usize::from(*low) | usize::from(high & 7) << 8, high & 8 != 0, out);
    }
}

/// What [`decode_iq1_s`] reads, taken apart: y = step·q − minimum.
pub(crate) fn plan_iq1_s(block: &[u8; 50]) -> Option<Plan> {
    fields!(block => d: 2, low: 32, high: 16);
    let d = scale(*d);
    let high: [u16; 8] = array::from_fn(|g| u16::from_le_bytes([high[2 * g], high[2 * g + 1]]));
    let group = |high: u16| shifted(step(d, high >> 12), high >> 15 == 1);
    let index = |i: usize| u16::from(low[i]) | (high[i / 4] >> (3 * (i % 4)) & 7) << 8;
    Some(Plan {
        factors: vec![("d", d)],
        groups: high.into_iter().map(group).collect(),
        points: (0..32).map(|i| Point { index: index(i), minuses: None }).collect(),
        range: (-1, 1),
    })
}

/// What [`decode_iq1_m`] reads, taken apart. Each point has its shift, so that groups are of eight values.
pub(crate) fn plan_iq1_m(block: &[u8; 56]) -> Option<Plan> {
    fields!(block => low: 32, high: 16, scales: 8);
    let scales: [u16; 4] = array::from_fn(|i| u16::from_le_bytes([scales[2 * i], scales[2 * i + 1]]));
    let d = f16_to_f32((0..4).fold(0, |bits, i| bits | scales[i] >> 12 << (4 * i)));
    let high: [u8; 32] = array::from_fn(|i| high[i / 2] >> (4 * (i % 2)) & 15);
    let group = |i: usize| shifted(step(d, scales[i / 8] >> (3 * (i / 2 % 4))), high[i] & 8 != 0);
    let index = |i: usize| u16::from(low[i]) | u16::from(high[i] & 7) << 8;
    Some(Plan {
        factors: vec![("d", d)],
        groups: (0..32).map(group).collect(),
        points: (0..32).map(|i| Point { index: index(i), minuses: None }).collect(),
        range: (-1, 1),
    })
}

fn shifted(step: f32, down: bool) -> Group {
    Group { scale: step, minimum: if down { step * SHIFT } else { -step * SHIFT } }
}

pub(crate) static LATTICE: LazyLock<Lattice<8>> = LazyLock::new(|| Lattice::new(&grid::IQ1, 3, 3));

/// The levels of the codes 0, 1, 2, shifted up.
pub(crate) const UP: [f32; 3] = [-1.0 + SHIFT, SHIFT, 1.0 + SHIFT];
/// The levels of the codes 0, 1, 2, shifted down.
pub(crate) const DOWN: [f32; 3] = [-1.0 - SHIFT, -SHIFT, 1.0 - SHIFT];

fn levels(down: bool) -> &'static [f32; 3] {
    if down { &DOWN } else { &UP }
}

/// A group of `POINTS` eights as scale·(codes' levels), each eight shifted up or down.
#[derive(Clone, Copy)]
pub(crate) struct Fit<const POINTS: usize> {
    scale: f32,
    points: [u16; POINTS],
    down: [bool; POINTS],
}

impl<const POINTS: usize> Fit<POINTS> {
    pub const ZERO: Self = Fit { scale: 0.0, points: [0; POINTS], down: [false; POINTS] };
}

/// Where the sorted values of a group part into codes 0, 1 and 2, and what that gives.
pub(crate) struct Split<const POINTS: usize> {
    pub scale: f32,
    /// The first value with code 1, the first one with code 2.
    pub at: [usize; 2],
    pub down: [bool; POINTS],
}

/// Eight values, and the scale and the shift under which they are to be a point.
pub(crate) struct Eight<'a> {
    pub x: &'a [f32; 8],
    pub weights: &'a [f32; 8],
    pub scale: f32,
    pub down: bool,
}

/// The point of these codes, or else the neighbour with the least error; and whether they are one.
fn place(codes: &[u8; 8], eight: &Eight<'_>) -> (u16, bool) {
    match LATTICE.place(codes) {
        Place::On(point) => (*point, true),
        Place::Off(neighbours) => {
            let levels = levels(eight.down);
            let error = |point: u16| {
                let quants = LATTICE.codes(point).iter().map(|&code| levels[usize::from(code)]);
                let values = eight.x.iter().zip(eight.weights).zip(quants);
                values.fold(0.0, |sum, ((x, w), q)| {
                    let error = eight.scale * q - x;
                    sum + w * error * error
                })
            };
            (least(neighbours, error), false)
        }
    }
}

/// Positions of values in ascending order, equal ones as they come.
pub(crate) fn sorted<const LEN: usize>(x: &[f32; LEN]) -> [usize; LEN] {
    let mut order = array::from_fn(|i| i);
    order.sort_by(|&a: &usize, &b: &usize| x[a].partial_cmp(&x[b]).unwrap_or(Ordering::Equal));
    order
}

/// From a split to points of the grid, each as `place` finds it: where codes are none, the scale is fitted anew.
#[inline(always)]
pub(crate) fn snap<const POINTS: usize>(
    x: &[[f32; 8]],
    weights: &[[f32; 8]],
    order: &[usize],
    split: Split<POINTS>,
    place: impl Fn(&[u8; 8], &Eight<'_>) -> (u16, bool),
) -> Fit<POINTS> {
    let Split { mut scale, at, mut down } = split;
    let mut codes = [[0; 8]; POINTS];
    for (rank, &i) in order.iter().enumerate() {
        codes[i / 8][i % 8] = u8::from(rank >= at[0]) + u8::from(rank >= at[1]);
    }
    if scale < 0.0 {
        scale = -scale;
        codes = codes.map(|codes| codes.map(|code| 2 - code));
        down = down.map(|down| !down);
    }
    let mut all_on_grid = true;
    let points = array::from_fn(
        #[inline(always)]
        |k| {
            let eight = Eight { x: &x[k], weights: &weights[k], scale, down: down[k] };
            let (point, on_grid) = place(&codes[k], &eight);
            all_on_grid &= on_grid;
            point
        },
    );
    if !all_on_grid {
        let mut sums = Sums::default();
        for k in 0..POINTS {
            sums.add(&x[k], &weights[k], points[k], down[k], 1.0);
        }
        if sums.xq > 0.0 && sums.qq > 0.0 {
            scale = sums.xq / sums.qq;
        }
    }
    Fit { scale, points, down }
}

/// Σ w·q·x and Σ w·q².
#[derive(Default)]
struct Sums {
    xq: f32,
    qq: f32,
}

impl Sums {
    /// Adds eight values whose levels are multiplied by `factor`.
    fn add(&mut self, x: &[f32; 8], weights: &[f32; 8], point: u16, down: bool, factor: f32) {
        let levels = levels(down);
        for ((x, w), &code) in x.iter().zip(weights).zip(LATTICE.codes(point)) {
            let q = levels[usize::from(code)] * factor;
            self.xq += w * q * x;
            self.qq += w * q * q;
        }
    }
}

/// The best of all splits of 32 values under a common shift.
fn split_together(x: &[f32; 32], weights: &[f32; 32], order: &[usize; 32]) -> Option<Split<4>> {
    // Sums over the first so many of the sorted values.
    let (mut wx, mut w) = ([0.0; 33], [0.0; 33]);
    for (rank, &i) in order.iter().enumerate() {
        wx[rank + 1] = wx[rank] + weights[i] * x[i];
        w[rank + 1] = w[rank] + weights[i];
    }
    let mut best_score = f32::MIN;
    let mut best = None;
    for first in 0..=32 {
        for second in first..=32 {
            for down in [false, true] {
                let levels = levels(down);
                let xq = (wx[first] - wx[0]) * levels[0]
                    + (wx[second] - wx[first]) * levels[1]
                    + (wx[32] - wx[second]) * levels[2];
                let qq = (w[first] - w[0]) * levels[0] * levels[0]
                    + (w[second] - w[first]) * levels[1] * levels[1]
                    + (w[32] - w[second]) * levels[2] * levels[2];
                if qq > 0.0 && xq * xq > best_score * qq {
                    let scale = xq / qq;
                    best_score = scale * xq;
                    best = Some(Split { scale, at: [first, second], down: [down; 4] });
                }
            }
        }
    }
    best
}

/// IQ1_S: groups with nothing above this count as zeros.
pub(crate) const S_ZERO: f32 = 1e-12;
/// IQ1_M.
pub(crate) const M_ZERO: f32 = 1e-7;

/// IQ1_S; needs importance.
pub(crate) fn encode_iq1_s(values: &[f32; 256], weights: Weights<'_, 256>, block: &mut [u8; 50]) {
    let power = 2.0 * sum_of_squares(values) / 256.0;
    let fits: [Fit<4>; 8] = array::from_fn(|g| {
        let x: &[f32; 32] = &values.as_chunks().0[g];
        if magnitude(x) < S_ZERO {
            return Fit::ZERO;
        }
        let weights = weigh(x, weights.group(g), power);
        let order = sorted(x);
        let split = split_together(x, &weights, &order);
        split.map_or(Fit::ZERO, |split| snap(x.as_chunks().0, weights.as_chunks().0, &order, split, place))
    });
    finish_iq1_s(&fits, block);
}

pub(crate) fn finish_iq1_s(fits: &[Fit<4>; 8], block: &mut [u8; 50]) {
    *block = [0; 50];
    fields_mut!(block => d: 2, low: 32, high: 16);
    for (i, low) in low.iter_mut().enumerate() {
        *low = fits[i / 4].points[i % 4] as u8;
    }
    let scales = odd_multiples(&fits.map(|fit| fit.scale), 15);
    if let Some((unrounded, _)) = scales {
        // The factor was found by trial: it lowers the error.
        store_scale(d, unrounded * 1.125);
    }
    for (g, (high, fit)) in high.as_chunks_mut().0.iter_mut().zip(fits).enumerate() {
        let points = fit.points.iter().rev().fold(0, |joined, point| joined << 3 | point >> 8);
        let scale = scales.map_or(0, |(_, scales)| u16::from(scales[g]) | u16::from(fit.down[0]) << 3);
        *high = (points | scale << 12).to_le_bytes();
    }
}

/// The best of all splits of 16 values whose halves are shifted each in its own way.
fn split_apart(x: &[f32; 16], weights: &[f32; 16], order: &[usize; 16]) -> Option<Split<2>> {
    // Sums over those of the first so many sorted values that lie in either half.
    let (mut wx, mut w) = ([[0.0; 17]; 2], [[0.0; 17]; 2]);
    for (rank, &i) in order.iter().enumerate() {
        for half in 0..2 {
            let here = i / 8 == half;
            wx[half][rank + 1] = wx[half][rank] + if here { weights[i] * x[i] } else { 0.0 };
            w[half][rank + 1] = w[half][rank] + if here { weights[i] } else { 0.0 };
        }
    }
    let mut best_score = f32::MIN;
    let mut best = None;
    for first in 0..=16 {
        for second in first..=16 {
            // Neighbouring levels differ by 1, so that both sums come from the upper level's over all values.
            let half = |half: usize, down: bool| {
                let levels = levels(down);
                let [low, middle, high] = levels.map(|level| level * level);
                let (wx, w) = (&wx[half], &w[half]);
                let xq = wx[16] * levels[2] - (wx[first] + wx[second]);
                let qq =
                    w[16] * levels[2] * levels[2] + w[first] * (low - middle) + w[second] * (middle - high);
                (xq, qq)
            };
            for down in [[false, false], [false, true], [true, false], [true, true]] {
                let ((xq0, qq0), (xq1, qq1)) = (half(0, down[0]), half(1, down[1]));
                let (xq, qq) = (xq0 + xq1, qq0 + qq1);
                if qq > 0.0 && xq * xq > best_score * qq {
                    let scale = xq / qq;
                    best_score = scale * xq;
                    best = Some(Split { scale, at: [first, second], down });
                }
            }
        }
    }
    best
}

/// IQ1_M. An unweighed value weighs its own square.
pub(crate) fn encode_iq1_m(values: &[f32; 256], weights: Option<Weights<'_, 256>>, block: &mut [u8; 56]) {
    let power = 2.0 * sum_of_squares(values) / 256.0;
    let groups = values.as_chunks::<16>().0;
    let weights: [[f32; 16]; 16] = array::from_fn(|g| match weights {
        None => groups[g].map(|x| x * x),
        Some(weights) => weigh(&groups[g], weights.group(g), power),
    });
    let fits: [Fit<2>; 16] = array::from_fn(|g| {
        let x = &groups[g];
        if magnitude(x) < M_ZERO {
            return Fit::ZERO;
        }
        let order = sorted(x);
        let split = split_apart(x, &weights[g], &order);
        split.map_or(Fit::ZERO, |split| snap(x.as_chunks().0, weights[g].as_chunks().0, &order, split, place))
    });
    finish_iq1_m(values, &weights, &fits, block);
}

pub(crate) fn finish_iq1_m(
    values: &[f32; 256],
    weights: &[[f32; 16]; 16],
    fits: &[Fit<2>; 16],
    block: &mut [u8; 56],
) {
    let groups = values.as_chunks::<16>().0;
    *block = [0; 56];
    fields_mut!(block => low: 32, high: 16, packed_scales: 8);
    for (i, low) in low.iter_mut().enumerate() {
        let [point_low, point_high] = fits[i / 2].points[i % 2].to_le_bytes();
        *low = point_low;
        high[i / 2] |= point_high << (4 * (i % 2));
    }
    let Some((unrounded, scales)) = odd_multiples(&fits.map(|fit| fit.scale), 15) else { return };
    let mut sums = Sums::default();
    for (g, fit) in fits.iter().enumerate() {
        high[g] |= u8::from(fit.down[0]) << 3 | u8::from(fit.down[1]) << 7;
        for k in 0..2 {
            let (x, weights) = (&groups[g].as_chunks().0[k], &weights[g].as_chunks().0[k]);
            sums.add(x, weights, fit.points[k], fit.down[k], f32::from(2 * scales[g] + 1));
        }
    }
    let d = if sums.qq > 0.0 { sums.xq / sums.qq } else { unrounded };
    // The factor was found by trial: it lowers the error.
    let d = f32_to_f16(d * 1.1125);
    for (i, packed) in packed_scales.as_chunks_mut().0.iter_mut().enumerate() {
        let scales = (0..4).fold(0, |packed, j| packed | u16::from(scales[4 * i + j]) << (3 * j));
        *packed = (scales | (d >> (4 * i) & 15) << 12).to_le_bytes();
    }
}

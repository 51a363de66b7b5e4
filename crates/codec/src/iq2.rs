//! IQ2_XXS, IQ2_XS and IQ2_S: eight magnitudes at a time by a point of a grid, and their signs.

use std::array;
use std::sync::LazyLock;

use crate::anatomy::{self, Plan, Point};
use crate::arithmetic::{sum_of_squares, weigh};
use crate::blocks::{Weights, fields, fields_mut};
use crate::float16::{scale, store_scale};
use crate::grid::{self, dequantize, even_signs, with_levels};
use crate::lattice::{Again, Group, Lattice, Search, odd_multiples};
use crate::search::ZERO;

/// The magnitudes that a grid's coordinates stand for, near eight times 1, 3, 5.
const LEVELS: [i8; 3] = [8, 25, 43];

/// The points of IQ2_XXS.
pub static XXS: [[i8; 8]; 256] = with_levels(&grid::IQ2_XXS, &LEVELS);
/// The points of IQ2_XS.
pub static XS: [[i8; 8]; 512] = with_levels(&grid::IQ2_XS, &LEVELS);
/// The points of IQ2_S.
pub static S: [[i8; 8]; 1024] = with_levels(&grid::IQ2_S, &LEVELS);

/// A group's step: an eighth of the odd number 2s + 1, four-bit s, times d.
#[inline(always)]
fn step(d: f32, s: u32) -> f32 {
    d * (0.5 + s as f32) * 0.25
}

/// IQ2_XXS: f16 d; for each of eight groups of 32 values four 8-bit points, then four times seven signs and a 4-bit
/// scale in a u32.
#[inline(always)]
pub(crate) fn decode_iq2_xxs(block: &[u8; 66], out: &mut [f32; 256]) {
    fields!(block => d: 2, groups: 64);
    let d = scale(*d);
    for (out, group) in out.as_chunks_mut::<32>().0.iter_mut().zip(groups.as_chunks::<8>().0) {
        fields!(group => points: 4, signs_and_scale: 4);
        let signs_and_scale = u32::from_le_bytes(*signs_and_scale);
        let step = step(d, signs_and_scale >> 28);
        for (i, (out, point)) in out.as_chunks_mut::<8>().0.iter_mut().zip(points).enumerate() {
            let signs = even_signs(signs_and_scale >> (7 * i));
            dequantize(step, &XXS[usize::from(*point)], signs, out);
        }
    }
}

/// IQ2_XS: f16 d; for each eight values a u16 of a 9-bit point and seven signs; a 4-bit scale for each 16 values.
#[inline(always)]
pub(crate) fn decode_iq2_xs(block: &[u8; 74], out: &mut [f32; 256]) {
    fields!(block => d: 2, points: 64, scales: 8);
    let d = scale(*d);
    let groups = out.as_chunks_mut::<32>().0.iter_mut().zip(points.as_chunks::<8>().0);
    for ((out, points), s) in groups.zip(scales) {
        let steps = [step(d, u32::from(s & 15)), step(d, u32::from(s >> 4))];
        for (i, (out, point)) in out.as_chunks_mut::<8>().0.iter_mut().zip(points.as_chunks().0).enumerate() {
            let point = u16::from_le_bytes(*point);
            dequantize(steps[i / 2], &XS[usize::from(point % 512)], even_signs(u32::from(point >> 9)), out);
        }
    }
}

/// IQ2_S: f16 d; for each eight values the low bits of a 10-bit point; eight signs each; the points' upper bits, four
/// to a byte; a 4-bit scale for each 16 values.
#[inline(always)]
pub(crate) fn decode_iq2_s(block: &[u8; 82], out: &mut [f32; 256]) {
    fields!(block => d: 2, low: 32, signs: 32, high: 8, scales: 8);
    let d = scale(*d);
    let groups = low.as_chunks::<4>().0.iter().zip(signs.as_chunks::<4>().0).zip(high.iter().zip(scales));
    for (out, ((low, signs), (high, s))) in out.as_chunks_mut::<32>().0.iter_mut().zip(groups) {
        let steps = [step(d, u32::from(s & 15)), step(d, u32::from(s >> 4))];
        for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let point = usize::from(low[i]) | usize::from(high >> (2 * i) & 3) << 8;
            dequantize(steps[i / 2], &S[point], signs[i], out);
        }
    }
}

/// What [`decode_iq2_xxs`] reads, taken apart.
pub(crate) fn plan_iq2_xxs(block: &[u8; 66]) -> Option<Plan> {
    fields!(block => d: 2, groups: 64);
    let d = scale(*d);
    let (mut steps, mut points) = (Vec::new(), Vec::new());
    for group in groups.as_chunks::<8>().0 {
        fields!(group => indices: 4, signs_and_scale: 4);
        let signs_and_scale = u32::from_le_bytes(*signs_and_scale);
        steps.push(step(d, signs_and_scale >> 28));
        let signs = |i: usize| even_signs(signs_and_scale >> (7 * i));
        points.extend(indices.iter().enumerate().map(|(i, &index)| point(u16::from(index), signs(i))));
    }
    Some(plan(d, steps, points))
}

/// What [`decode_iq2_xs`] reads, taken apart.
pub(crate) fn plan_iq2_xs(block: &[u8; 74]) -> Option<Plan> {
    fields!(block => d: 2, points: 64, scales: 8);
    let d = scale(*d);
    let points = points.as_chunks().0.iter().map(|&bytes| {
        let bits = u16::from_le_bytes(bytes);
        point(bits % 512, even_signs(u32::from(bits >> 9)))
    });
    Some(plan(d, steps(d, scales), points.collect()))
}

/// What [`decode_iq2_s`] reads, taken apart.
pub(crate) fn plan_iq2_s(block: &[u8; 82]) -> Option<Plan> {
    fields!(block => d: 2, low: 32, signs: 32, high: 8, scales: 8);
    let d = scale(*d);
    let index = |i: usize| u16::from(low[i]) | u16::from(high[i / 4] >> (2 * (i % 4)) & 3) << 8;
    Some(plan(d, steps(d, scales), (0..32).map(|i| point(index(i), signs[i])).collect()))
}

/// Of sixteen groups, two to a byte.
fn steps(d: f32, scales: &[u8; 8]) -> Vec<f32> {
    scales.iter().flat_map(|s| [step(d, u32::from(s & 15)), step(d, u32::from(s >> 4))]).collect()
}

fn point(index: u16, minuses: u8) -> Point {
    Point { index, minuses: Some(minuses) }
}

fn plan(d: f32, steps: Vec<f32>, points: Vec<Point>) -> Plan {
    let groups = steps.into_iter().map(|scale| anatomy::Group { scale, minimum: 0.0 }).collect();
    Plan { factors: vec![("d", d)], groups, points, range: (-43, 43) }
}

pub(crate) static XXS_LATTICE: LazyLock<Lattice<8>> = LazyLock::new(|| Lattice::new(&grid::IQ2_XXS, 3, 2));
pub(crate) static XS_LATTICE: LazyLock<Lattice<8>> = LazyLock::new(|| Lattice::new(&grid::IQ2_XS, 3, 2));
pub(crate) static S_LATTICE: LazyLock<Lattice<8>> = LazyLock::new(|| Lattice::new(&grid::IQ2_S, 3, 1));

/// Nibbles of consecutive codes, the first one low.
fn pack_scales(codes: &[u8; 16]) -> [u8; 8] {
    array::from_fn(|i| codes[2 * i] | codes[2 * i + 1] << 4)
}

/// How IQ2_XXS looks for points.
pub(crate) const XXS_SEARCH: Search =
    Search { even_signs: true, zero: ZERO, fits_first: true, trials: 6, by: 0.1, again: Again::All };
/// How IQ2_XS does.
pub(crate) const XS_SEARCH: Search =
    Search { even_signs: true, zero: ZERO, fits_first: false, trials: 9, by: 0.1, again: Again::OffGrid };
/// How IQ2_S does.
pub(crate) const S_SEARCH: Search =
    Search { even_signs: false, zero: 1e-8, fits_first: false, trials: 9, by: 0.1, again: Again::OffGrid };

/// IQ2_XXS; needs importance.
pub(crate) fn encode_iq2_xxs(values: &[f32; 256], weights: Weights<'_, 256>, block: &mut [u8; 66]) {
    let power = sum_of_squares(values) / 256.0;
    let fits = array::from_fn(|g| {
        let x = &values.as_chunks::<32>().0[g];
        XXS_SEARCH.group(&XXS_LATTICE, x, &weigh(x, weights.group(g), power))
    });
    finish_iq2_xxs(&fits, block);
}

pub(crate) fn finish_iq2_xxs(fits: &[Group<4, 4>; 8], block: &mut [u8; 66]) {
    *block = [0; 66];
    let Some((unrounded, scales)) = odd_multiples(&fits.map(|fit| fit.scale), 31) else { return };
    fields_mut!(block => d: 2, groups: 64);
    store_scale(d, unrounded);
    for ((group, fit), s) in groups.as_chunks_mut::<8>().0.iter_mut().zip(fits).zip(scales) {
        fields_mut!(group => points: 4, signs_and_scale: 4);
        *points = fit.points.map(|point| point as u8);
        *signs_and_scale = join_signs_and_scale(fit.signs, s);
    }
}

/// Four times seven signs, then four bits of scale.
pub(crate) fn join_signs_and_scale(signs: [u8; 4], scale: u8) -> [u8; 4] {
    let signs = signs.iter().rev().fold(0, |joined, &signs| joined << 7 | u32::from(signs));
    (signs | u32::from(scale) << 28).to_le_bytes()
}

/// IQ2_XS; needs importance.
pub(crate) fn encode_iq2_xs(values: &[f32; 256], weights: Weights<'_, 256>, block: &mut [u8; 74]) {
    let power = sum_of_squares(values) / 256.0;
    let fits = array::from_fn(|g| {
        let x = &values.as_chunks::<16>().0[g];
        XS_SEARCH.group(&XS_LATTICE, x, &weigh(x, weights.group(g), power))
    });
    finish_iq2_xs(&fits, block);
}

pub(crate) fn finish_iq2_xs(fits: &[Group<2, 2>; 16], block: &mut [u8; 74]) {
    *block = [0; 74];
    let Some((unrounded, codes)) = odd_multiples(&fits.map(|fit| fit.scale), 31) else { return };
    fields_mut!(block => d: 2, points: 64, scales: 8);
    store_scale(d, unrounded);
    for (i, bytes) in points.as_chunks_mut().0.iter_mut().enumerate() {
        let fit = &fits[i / 2];
        *bytes = (fit.points[i % 2] | u16::from(fit.signs[i % 2]) << 9).to_le_bytes();
    }
    *scales = pack_scales(&codes);
}

/// What a value weighs in IQ2_S if nothing else does: its square, and a bit for what surrounds it.
#[inline(always)]
pub(crate) fn iq2_s_weight(x: f32, power: f32) -> f32 {
    0.25 * power + x * x
}

/// IQ2_S.
pub(crate) fn encode_iq2_s(values: &[f32; 256], weights: Option<Weights<'_, 256>>, block: &mut [u8; 82]) {
    let power = 2.0 * sum_of_squares(values) / 256.0;
    let fits = array::from_fn(|g| {
        let x = &values.as_chunks::<16>().0[g];
        let weights = match weights {
            None => x.map(|x| iq2_s_weight(x, power)),
            Some(weights) => weigh(x, weights.group(g), power),
        };
        S_SEARCH.group(&S_LATTICE, x, &weights)
    });
    finish_iq2_s(&fits, block);
}

pub(crate) fn finish_iq2_s(fits: &[Group<2, 2>; 16], block: &mut [u8; 82]) {
    *block = [0; 82];
    fields_mut!(block => d: 2, low: 32, signs: 32, high: 8, scales: 8);
    for i in 0..32 {
        let fit = &fits[i / 2];
        let [point_low, point_high] = fit.points[i % 2].to_le_bytes();
        low[i] = point_low;
        high[i / 4] |= point_high << (2 * (i % 4));
        signs[i] = fit.signs[i % 2];
    }
    if let Some((unrounded, codes)) = odd_multiples(&fits.map(|fit| fit.scale), 31) {
        // The factor was found by trial: it lowers the error.
        store_scale(d, unrounded * 0.9875);
        *scales = pack_scales(&codes);
    }
}

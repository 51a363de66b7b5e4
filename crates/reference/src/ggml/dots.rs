//! ggml's inner products of a row's whole numbers with a token's, in its order of operations.
//!
//! Sums of whole numbers are exact and have no order. What is rounded to f32 does: each function says how a block's sums
//! join the row's.

use codec::{Encoding, Whole};

use super::activations::{BLOCK, Rounded, SUMMED, SUPER_BLOCK};

/// `Σ w·x` of a row taken apart, with activations in the encoding's partner form; `None` if ggml has no such product.
#[inline(always)]
pub(crate) fn dot(encoding: Encoding, w: &Whole, x: &Rounded) -> Option<f32> {
    use Encoding::*;
    Some(match encoding {
        Q4_0 => q4_0(w, x),
        Q5_0 | Q8_0 | Iq4Nl | Mxfp4 => groups::<32>(w, x),
        Nvfp4 => groups::<16>(w, x),
        Q4_1 | Q5_1 => affine(w, x),
        Q1_0 => nested::<4>(w, x),
        Q2_0 => nested::<2>(w, x),
        Tq1_0 | Tq2_0 => unscaled(w, x),
        Q2K => q2_k(w, x),
        Q3K | Q6K => lanes::<16>(w, x),
        Q4K | Q5K => lanes::<32>(w, x),
        Iq2Xxs => 0.125 * scaled::<32>(w, x),
        Iq2Xs | Iq2S => 0.125 * scaled::<16>(w, x),
        Iq3Xxs => 0.25 * scaled::<32>(w, x),
        Iq3S => scaled::<32>(w, x),
        Iq1S => iq1::<32, 32>(w, x),
        Iq1M => iq1::<16, 8>(w, x),
        Iq4Xs => iq4_xs(w, x),
        F32 | F16 | BF16 | F64 | I8 | I16 | I32 | I64 | U8 | U16 | U32 | U64 | Bool | F8E4M3 | F8E5M2
        | Q8_1 | Q8K => return None,
    })
}

/// Runs of `N` levels and activations.
#[inline(always)]
fn runs<'a, const N: usize>(w: &'a [i8], x: &'a [i8]) -> impl Iterator<Item = (&'a [i8; N], &'a [i8; N])> {
    w.as_chunks().0.iter().zip(x.as_chunks().0)
}

/// Σ of products of a run.
#[inline(always)]
fn sum<const N: usize>(w: &[i8; N], x: &[i8; N]) -> i32 {
    let mut sum = 0;
    for i in 0..N {
        sum += i32::from(w[i]) * i32::from(x[i]);
    }
    sum
}

/// A block's `Σ scale · Σ` over groups of `N`.
#[inline(always)]
fn scaled_sum<const N: usize>(w: &[i8; SUPER_BLOCK], x: &[i8; SUPER_BLOCK], scales: &[i16]) -> i32 {
    let groups = runs::<N>(w, x).zip(scales);
    groups.fold(0, |total, ((w, x), &scale)| total + i32::from(scale) * sum(w, x))
}

/// The super-blocks of a row: number, levels, activations.
#[inline(always)]
fn super_blocks<'a>(
    w: &'a Whole,
    x: &'a Rounded,
) -> impl Iterator<Item = (usize, &'a [i8; SUPER_BLOCK], &'a [i8; SUPER_BLOCK])> {
    runs::<SUPER_BLOCK>(&w.levels, &x.levels).enumerate().map(|(i, (w, x))| (i, w, x))
}

/// `+= (Σ · d) · d'`.
#[inline(always)]
fn q4_0(w: &Whole, x: &Rounded) -> f32 {
    let mut total = 0.0;
    for (i, (levels, q)) in runs::<BLOCK>(&w.levels, &x.levels).enumerate() {
        total += sum(levels, q) as f32 * w.factors[i] * x.d[i];
    }
    total
}

/// `+= (d · d') · Σ` for each `N` values, which have a factor.
#[inline(always)]
fn groups<const N: usize>(w: &Whole, x: &Rounded) -> f32 {
    let mut total = 0.0;
    for (i, (levels, q)) in runs::<N>(&w.levels, &x.levels).enumerate() {
        total += w.factors[i] * x.d[i * N / BLOCK] * sum(levels, q) as f32;
    }
    total
}

/// `+= (d · d') · Σ + m · s`.
#[inline(always)]
fn affine(w: &Whole, x: &Rounded) -> f32 {
    let mut total = 0.0;
    for (i, (levels, q)) in runs::<BLOCK>(&w.levels, &x.levels).enumerate() {
        let (d, m) = (w.factors[2 * i], w.factors[2 * i + 1]);
        total += d * x.d[i] * sum(levels, q) as f32 + m * x.s[i];
    }
    total
}

/// Blocks of weights as long as `BLOCKS` of activations: `+= d · Σ (d' · Σ)`.
#[inline(always)]
fn nested<const BLOCKS: usize>(w: &Whole, x: &Rounded) -> f32 {
    let mut total = 0.0;
    let mut blocks = runs::<BLOCK>(&w.levels, &x.levels).zip(&x.d);
    for &d in &w.factors {
        let mut inner = 0.0;
        for ((levels, q), dx) in blocks.by_ref().take(BLOCKS) {
            inner += dx * sum(levels, q) as f32;
        }
        total += d * inner;
    }
    total
}

/// `+= Σ · (d · d')`.
#[inline(always)]
fn unscaled(w: &Whole, x: &Rounded) -> f32 {
    let mut total = 0.0;
    for (i, levels, q) in super_blocks(w, x) {
        total += sum(levels, q) as f32 * (w.factors[i] * x.d[i]);
    }
    total
}

/// `+= (d · d') · Σ scale · Σ` over groups of `N`.
#[inline(always)]
fn scaled<const N: usize>(w: &Whole, x: &Rounded) -> f32 {
    let mut total = 0.0;
    for (i, levels, q) in super_blocks(w, x) {
        let scales = &w.scales[i * (SUPER_BLOCK / N)..];
        total += w.factors[i] * x.d[i] * scaled_sum::<N>(levels, q, scales) as f32;
    }
    total
}

/// `+= (d · d') · Σ scale · Σ − (dmin · d') · Σ min · Σx`.
#[inline(always)]
fn q2_k(w: &Whole, x: &Rounded) -> f32 {
    const GROUPS: usize = SUPER_BLOCK / SUMMED;
    let mut total = 0.0;
    for (i, levels, q) in super_blocks(w, x) {
        let (d, dmin) = (w.factors[2 * i] * x.d[i], w.factors[2 * i + 1] * x.d[i]);
        let products = scaled_sum::<SUMMED>(levels, q, &w.scales[GROUPS * i..]);
        let minima = w.offsets[GROUPS * i..].iter().zip(&x.sums[GROUPS * i..][..GROUPS]);
        let minima: i32 = minima.map(|(&min, sum)| i32::from(min) * sum).sum();
        total += d * products as f32 - dmin * minima as f32;
    }
    total
}

/// Eight lanes by index modulo 8, each `+= (d · d') · Σ scale · Σ` over groups of `N`. The minima of Q4_K and Q5_K are
/// taken off first, block by block, `(dmin · d') · Σ min · Σx`; then the lanes are added in order.
#[inline(always)]
fn lanes<const N: usize>(w: &Whole, x: &Rounded) -> f32 {
    let has_minima = !w.offsets.is_empty();
    let mut lanes = [0f32; 8];
    let mut total = 0.0;
    for (i, levels, q) in super_blocks(w, x) {
        let mut sums = [0i32; 8];
        let scales = &w.scales[i * (SUPER_BLOCK / N)..];
        for ((levels, q), &scale) in runs::<N>(levels, q).zip(scales) {
            let mut group = [0i32; 8];
            for (levels, q) in runs::<8>(levels, q) {
                for l in 0..8 {
                    group[l] += i32::from(levels[l]) * i32::from(q[l]);
                }
            }
            for l in 0..8 {
                sums[l] += i32::from(scale) * group[l];
            }
        }
        let d = w.factors[if has_minima { 2 * i } else { i }] * x.d[i];
        for l in 0..8 {
            lanes[l] += d * sums[l] as f32;
        }
        if has_minima {
            let dmin = w.factors[2 * i + 1] * x.d[i];
            let minima = w.offsets[8 * i..].iter().zip(x.sums[16 * i..][..16].as_chunks::<2>().0);
            let minima: i32 = minima.map(|(&min, sums)| i32::from(min) * (sums[0] + sums[1])).sum();
            total -= dmin * minima as f32;
        }
    }
    lanes.iter().for_each(|lane| total += lane);
    total
}

/// `+= (d · d') · (Σ scale · Σ + ⅛ Σ scale · shift · Σx)`: a scale for each `N` values, a shift for each `SHIFTED`.
#[inline(always)]
fn iq1<const N: usize, const SHIFTED: usize>(w: &Whole, x: &Rounded) -> f32 {
    let mut total = 0.0;
    for (i, levels, q) in super_blocks(w, x) {
        let scales = &w.scales[i * (SUPER_BLOCK / N)..];
        let shifts = &w.offsets[i * (SUPER_BLOCK / SHIFTED)..];
        let mut shifted = 0;
        for (j, q) in q.as_chunks::<SHIFTED>().0.iter().enumerate() {
            let sum: i32 = q.iter().map(|&q| i32::from(q)).sum();
            shifted += i32::from(scales[j * SHIFTED / N]) * i32::from(shifts[j]) * sum;
        }
        let products = scaled_sum::<N>(levels, q, scales);
        total += w.factors[i] * x.d[i] * (products as f32 + 0.125 * shifted as f32);
    }
    total
}

/// `+= ((d · d') · scale) · Σ` for each 32 values.
#[inline(always)]
fn iq4_xs(w: &Whole, x: &Rounded) -> f32 {
    let mut total = 0.0;
    for (i, (levels, q)) in runs::<32>(&w.levels, &x.levels).enumerate() {
        total += w.factors[i / 8] * x.d[i / 8] * f32::from(w.scales[i]) * sum(levels, q) as f32;
    }
    total
}

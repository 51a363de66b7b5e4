//! Matrix times many tokens, in f32: one definition over lanes, compiled for every instruction set.

use ndarray::ArrayViewMut2;

use super::lane::{LANES, Lane, Lanes};

/// Lane groups multiplied before the next rows take their turn: so many of a tile of tokens stay in the first-level
/// cache while the rows of a task go by. The lanes go on where they stopped.
const BLOCK: usize = 64;

/// Activations of some tokens: whole tiles of tokens interleaved, then those left over one by one. What fills up the
/// last lane group of a token is zero.
#[derive(Clone, Copy)]
pub(crate) struct Tokens<'a> {
    pub lanes: &'a [Lane],
    pub tokens: usize,
    /// Lane groups of a token.
    pub groups: usize,
}

/// Decoded rows of a matrix, `stride` lane groups apart.
pub(crate) struct Panel<'a> {
    pub lanes: &'a [Lane],
    pub stride: usize,
}

/// `out[t, r] = Σ x[t]·w[r]`: each lane sums its own products in order, the fixed tree adds the lanes.
///
/// `R` rows and `T` tokens share what is loaded; that changes no sum.
#[inline(always)]
pub(crate) fn product<L: Lanes, const R: usize, const T: usize>(
    w: &Panel<'_>,
    x: Tokens<'_>,
    out: &mut ArrayViewMut2<'_, f32>,
    sums: &mut Vec<Lane>,
) {
    let whole = x.tokens / T * T;
    let (tiles, rest) = x.lanes.split_at(whole * x.groups);
    for (i, tile) in tiles.chunks_exact(T * x.groups).enumerate() {
        tokens::<L, R, T>(w, tile, x.groups, i * T, out, sums);
    }
    for (i, token) in rest.chunks_exact(x.groups.max(1)).enumerate() {
        tokens::<L, R, 1>(w, token, x.groups, whole + i, out, sums);
    }
}

#[inline(always)]
fn tokens<L: Lanes, const R: usize, const T: usize>(
    w: &Panel<'_>,
    x: &[Lane],
    groups: usize,
    first: usize,
    out: &mut ArrayViewMut2<'_, f32>,
    sums: &mut Vec<Lane>,
) {
    let rows = out.ncols();
    sums.clear();
    sums.resize(rows.div_ceil(R) * R * T, Lane::ZERO);
    for start in (0..groups).step_by(BLOCK) {
        let end = groups.min(start + BLOCK);
        let x = &x[start * T..end * T];
        for (g, sums) in sums.chunks_exact_mut(R * T).enumerate() {
            let row = |r: usize| &w.lanes[(g * R + r).min(rows - 1) * w.stride..][start..end];
            tile::<L, R, T>(&row, x, sums, end == groups);
        }
    }
    for r in 0..rows {
        for t in 0..T {
            out[[first + t, r]] = sums[r * T + t].0[0];
        }
    }
}

/// Adds products to the lanes; the last time each sum goes to its first lane.
#[inline(always)]
fn tile<'a, L: Lanes, const R: usize, const T: usize>(
    row: &impl Fn(usize) -> &'a [Lane],
    x: &[Lane],
    sums: &mut [Lane],
    last: bool,
) {
    let mut lanes = [[L::splat(0.0); T]; R];
    let mut w: [&[Lane]; R] = [&[]; R];
    for r in 0..R {
        w[r] = row(r);
        for t in 0..T {
            lanes[r][t] = L::load(&sums[r * T + t].0);
        }
    }
    for (i, x) in x.chunks_exact(T).enumerate() {
        let mut tokens = [L::splat(0.0); T];
        for t in 0..T {
            tokens[t] = L::load(&x[t].0);
        }
        for r in 0..R {
            let w = L::load(&w[r][i].0);
            for t in 0..T {
                lanes[r][t] = lanes[r][t].add_product(w, tokens[t]);
            }
        }
    }
    for r in 0..R {
        for t in 0..T {
            let sum = &mut sums[r * T + t].0;
            if last { sum[0] = lanes[r][t].sum() } else { lanes[r][t].store(sum) }
        }
    }
}

/// `Σ a·b` of any length, in the lanes of [`product`].
#[inline(always)]
pub(crate) fn dot<L: Lanes>(a: &[f32], b: &[f32]) -> f32 {
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let mut lanes = L::splat(0.0);
    for (a, b) in a.iter().zip(b) {
        lanes = lanes.add_product(L::load(a), L::load(b));
    }
    if !a_rest.is_empty() {
        let (mut a, mut b) = ([0.0; LANES], [0.0; LANES]);
        a[..a_rest.len()].copy_from_slice(a_rest);
        b[..b_rest.len()].copy_from_slice(b_rest);
        lanes = lanes.add_product(L::load(&a), L::load(&b));
    }
    lanes.sum()
}

/// A number type that rows are multiplied in as they lie in the file.
pub(crate) trait Number {
    const BYTES: usize;
    fn load<L: Lanes>(from: &[u8]) -> L;
}

macro_rules! number {
    ($($name:ident $bytes:literal $load:ident),*) => {$(
        pub(crate) struct $name;
        impl Number for $name {
            const BYTES: usize = $bytes;
            #[inline(always)]
            fn load<L: Lanes>(from: &[u8]) -> L {
                L::$load(from.first_chunk().expect("a lane group's bytes"))
            }
        }
    )*};
}
number!(F32 4 load_f32, F16 2 load_f16, Bf16 2 load_bf16);

/// Rows that are multiplied together, so that one waits while another adds.
pub(crate) const TOGETHER: usize = 4;

/// [`product`] of some rows of plain numbers, all of whole lane groups, with one token.
#[inline(always)]
pub(crate) fn numbers<L: Lanes, N: Number>(rows: [&[u8]; TOGETHER], x: &[Lane]) -> [f32; TOGETHER] {
    let mut sums = [L::splat(0.0); TOGETHER];
    let step = N::BYTES * LANES;
    for r in rows {
        assert!(r.len() == x.len() * step);
    }
    for (i, x) in x.iter().enumerate() {
        let x = L::load(&x.0);
        for r in 0..TOGETHER {
            // As far ahead as these rows are long: the next ones, since rows follow each other. Half a line is no line.
            if (i * step).is_multiple_of(64) {
                super::prefetch(rows[r].as_ptr().wrapping_add(i * step + TOGETHER * rows[r].len()));
            }
            sums[r] = sums[r].add_product(N::load::<L>(&rows[r][i * step..(i + 1) * step]), x);
        }
    }
    let mut out = [0.0; TOGETHER];
    for r in 0..TOGETHER {
        out[r] = sums[r].sum();
    }
    out
}

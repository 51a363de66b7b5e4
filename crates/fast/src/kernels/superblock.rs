//! Superblocks of 256 weights as whole numbers times a factor, sixteen rows at a time, and their product with
//! whole activations.
//!
//! A weight of these encodings is `d · code · scale`, less a minimum that its group shares; code times scale is a whole
//! number of at most 13 bits. A superblock's products with a token's whole numbers are summed exactly, whatever
//! the order, and the sum is rounded to f32 once. That is what makes the bits the same for every instruction set.

use std::marker::PhantomData;

use codec::Encoding;
use ndarray::ArrayViewMut2;

use super::digits::{LEVELS, half, q3_k_scales, scales_and_mins};
use super::fixed::{COLUMNS, TOKENS, TokenTile};
use super::lane::{LANES, Lane, Lanes, Plain};

/// Rows of a [`RowTile`].
pub(crate) const ROWS: usize = 16;

/// Row tiles that are multiplied at a time, at most.
pub(crate) const TILES: usize = 8;

/// An encoding that is multiplied so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Super {
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Iq4Xs,
}

impl Super {
    pub(crate) const ALL: [(Super, Encoding); 6] = [
        (Super::Q2K, Encoding::Q2K),
        (Super::Q3K, Encoding::Q3K),
        (Super::Q4K, Encoding::Q4K),
        (Super::Q5K, Encoding::Q5K),
        (Super::Q6K, Encoding::Q6K),
        (Super::Iq4Xs, Encoding::Iq4Xs),
    ];

    pub(crate) fn of(encoding: Encoding) -> Option<Super> {
        Super::ALL.iter().find(|(_, e)| *e == encoding).map(|(coding, _)| *coding)
    }

    /// Bytes of a row's superblock.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Super::Q2K => 84,
            Super::Q3K => 110,
            Super::Q4K => 144,
            Super::Q5K => 176,
            Super::Q6K => 210,
            Super::Iq4Xs => 136,
        }
    }

    /// Groups that have a minimum.
    pub(crate) fn minima(self) -> usize {
        match self {
            Super::Q2K => 16,
            Super::Q4K | Super::Q5K => 8,
            Super::Q3K | Super::Q6K | Super::Iq4Xs => 0,
        }
    }
}

/// What a row's superblock brings beside its whole numbers.
pub(crate) struct Factors {
    pub d: f32,
    /// What the groups' sums of activations are multiplied by: the minima, negated.
    pub minima: [f32; 16],
}

/// A superblock of sixteen rows.
#[derive(Clone)]
#[repr(C, align(64))]
pub(crate) struct RowTile {
    pub d: Lane,
    pub minima: [Lane; ROWS],
    /// The whole numbers, as the instruction set wants them.
    pub lines: [[u8; 64]; 128],
}

impl RowTile {
    pub(crate) const ZERO: RowTile =
        RowTile { d: Lane::ZERO, minima: [Lane::ZERO; ROWS], lines: [[0; 64]; 128] };

    /// Row `r`'s factors.
    #[inline(always)]
    pub(crate) fn set(&mut self, r: usize, factors: Factors) {
        self.d.0[r] = factors.d;
        self.minima[r].0 = factors.minima;
    }
}

/// Opens a row's superblock: codes times their scales, from −4064 to 4096, go to `whole`. `levels` are those of IQ4's
/// nibbles, lower ones first.
#[inline(always)]
pub(crate) fn open(
    coding: Super,
    block: &[u8],
    whole: &mut [i16; COLUMNS],
    levels: impl Fn(&[u8; 16]) -> [[i16; 16]; 2],
) -> Factors {
    match coding {
        Super::Q2K => q2_k(block, whole),
        Super::Q3K => q3_k(block, whole),
        Super::Q4K => q4_k(block, whole),
        Super::Q5K => q5_k(block, whole),
        Super::Q6K => q6_k(block, whole),
        Super::Iq4Xs => iq4_xs(block, whole, levels),
    }
}

/// [`open`] as row `r` of a tile, its whole numbers in order.
#[inline(always)]
pub(crate) fn open_in_rows(coding: Super, block: &[u8], r: usize, tile: &mut RowTile) {
    let mut whole = [0; COLUMNS];
    tile.set(r, open(coding, block, &mut whole, levels));
    let row = tile.lines[8 * r..8 * r + 8].as_flattened_mut().as_chunks_mut::<2>().0;
    for (to, x) in row.iter_mut().zip(whole) {
        *to = x.to_le_bytes();
    }
}

#[inline(always)]
fn q2_k(bytes: &[u8], whole: &mut [i16; COLUMNS]) -> Factors {
    let (scales, rest) = bytes.split_at(16);
    let (codes, factors) = rest.split_at(64);
    let dmin = half(&factors[2..]);
    let mut minima = [0.0; 16];
    for (minimum, scale) in minima.iter_mut().zip(scales) {
        *minimum = -(dmin * f32::from(scale >> 4));
    }
    for (h, codes) in codes.as_chunks::<32>().0.iter().enumerate() {
        for pair in 0..4 {
            let to = &mut whole[128 * h + 32 * pair..][..32];
            for i in 0..32 {
                let scale = i16::from(scales[8 * h + 2 * pair + i / 16] & 15);
                to[i] = i16::from(codes[i] >> (2 * pair) & 3) * scale;
            }
        }
    }
    Factors { d: half(factors), minima }
}

#[inline(always)]
fn q3_k(bytes: &[u8], whole: &mut [i16; COLUMNS]) -> Factors {
    let (thirds, rest) = bytes.split_at(32);
    let (codes, rest) = rest.split_at(64);
    let packed: &[u8; 12] = rest.first_chunk().expect("a block's scales");
    let scales = q3_k_scales(packed).map(u64::to_le_bytes);
    for (h, codes) in codes.as_chunks::<32>().0.iter().enumerate() {
        for pair in 0..4 {
            let to = &mut whole[128 * h + 32 * pair..][..32];
            for i in 0..32 {
                let code = codes[i] >> (2 * pair) & 3 | (thirds[i] >> (4 * h + pair) & 1) << 2;
                to[i] = (i16::from(code) - 4) * (i16::from(scales[h][2 * pair + i / 16]) - 32);
            }
        }
    }
    Factors { d: half(&rest[12..]), minima: [0.0; 16] }
}

/// The six-bit scales and the minima that Q4_K and Q5_K share.
#[inline(always)]
fn k_header(bytes: &[u8]) -> ([i16; 8], Factors) {
    let header: &[u8; 16] = bytes.first_chunk().expect("a block begins with its header");
    let dmin = half(&header[2..]);
    let [scales, codes] = scales_and_mins(header).map(u64::to_le_bytes);
    let mut minima = [0.0; 16];
    for (to, minimum) in minima.iter_mut().zip(codes) {
        *to = -(dmin * f32::from(minimum));
    }
    (scales.map(i16::from), Factors { d: half(header), minima })
}

/// Thirty-two codes times their scale.
#[inline(always)]
fn scale(codes: impl Fn(usize) -> u8, scale: i16, to: &mut [i16; 32]) {
    for (i, to) in to.iter_mut().enumerate() {
        *to = i16::from(codes(i)) * scale;
    }
}

#[inline(always)]
fn q4_k(bytes: &[u8], whole: &mut [i16; COLUMNS]) -> Factors {
    let (scales, factors) = k_header(bytes);
    let groups = whole.as_chunks_mut::<32>().0.as_chunks_mut::<2>().0;
    let codes = bytes[16..].as_chunks::<32>().0;
    for ((codes, [lower, upper]), scales) in codes.iter().zip(groups).zip(scales.as_chunks::<2>().0) {
        scale(|i| codes[i] & 15, scales[0], lower);
        scale(|i| codes[i] >> 4, scales[1], upper);
    }
    factors
}

#[inline(always)]
fn q5_k(bytes: &[u8], whole: &mut [i16; COLUMNS]) -> Factors {
    let (scales, factors) = k_header(bytes);
    let fifths: &[u8; 32] = bytes[16..].first_chunk().expect("a block's fifth bits");
    let groups = whole.as_chunks_mut::<32>().0.as_chunks_mut::<2>().0;
    let codes = bytes[48..].as_chunks::<32>().0;
    for (p, ((codes, [lower, upper]), scales)) in
        codes.iter().zip(groups).zip(scales.as_chunks::<2>().0).enumerate()
    {
        scale(|i| codes[i] & 15 | (fifths[i] >> (2 * p) & 1) << 4, scales[0], lower);
        scale(|i| codes[i] >> 4 | (fifths[i] >> (2 * p + 1) & 1) << 4, scales[1], upper);
    }
    factors
}

#[inline(always)]
fn q6_k(bytes: &[u8], whole: &mut [i16; COLUMNS]) -> Factors {
    let (low, rest) = bytes.split_at(128);
    let (high, rest) = rest.split_at(64);
    let (scales, d) = rest.split_at(16);
    for h in 0..2 {
        let (low, high) = (&low[64 * h..][..64], &high[32 * h..][..32]);
        for quarter in 0..4 {
            let to = &mut whole[128 * h + 32 * quarter..][..32];
            let low = &low[32 * (quarter % 2)..][..32];
            for i in 0..32 {
                let scale = i16::from(scales[8 * h + 2 * quarter + i / 16].cast_signed());
                let code = low[i] >> (4 * (quarter / 2)) & 15 | (high[i] >> (2 * quarter) & 3) << 4;
                to[i] = (i16::from(code) - 32) * scale;
            }
        }
    }
    Factors { d: half(d), minima: [0.0; 16] }
}

/// What the lower and the upper nibbles of IQ4 stand for.
#[inline(always)]
fn levels(codes: &[u8; 16]) -> [[i16; 16]; 2] {
    let level = |code: u8| i16::from(LEVELS[usize::from(code)]) - 128;
    [codes.map(|code| level(code & 15)), codes.map(|code| level(code >> 4))]
}

#[inline(always)]
fn iq4_xs(bytes: &[u8], whole: &mut [i16; COLUMNS], levels: impl Fn(&[u8; 16]) -> [[i16; 16]; 2]) -> Factors {
    let high = u16::from_le_bytes([bytes[2], bytes[3]]);
    let groups = bytes[8..].as_chunks::<16>().0.iter().zip(whole.as_chunks_mut::<32>().0);
    for (g, (codes, to)) in groups.enumerate() {
        let low = bytes[4 + g / 2] >> (4 * (g % 2)) & 15;
        let scale = i16::from(low | ((high >> (2 * g) & 3) << 4) as u8) - 32;
        for (to, level) in to.iter_mut().zip(levels(codes).as_flattened()) {
            *to = level * scale;
        }
    }
    Factors { d: half(bytes), minima: [0.0; 16] }
}

/// Sixteen tokens' sums of whole numbers, and what becomes of them. Used only where the instruction set is there.
pub(crate) trait Sums: Lanes {
    type Whole: Copy;
    fn none() -> Self::Whole;
    /// Adds a pair of weights times each token's pair of 16-bit numbers; `HALF` if those of the upper eight tokens are all
    /// 0 and need no work.
    fn add_pairs<const HALF: bool>(sums: Self::Whole, w: [u8; 4], x: &[u8; 64]) -> Self::Whole;
    /// `4096·high + low`, rounded once.
    fn total(high: Self::Whole, low: Self::Whole) -> Self;
}

/// Rows whose sums a step works out together.
pub(crate) const TOGETHER: usize = 4;

/// How an instruction set adds a superblock's products.
pub(crate) trait Add {
    /// Adds a superblock's `Σ x·w` to `sums`, `[token tile, row tile, row]` with a token in each lane: rounded once, then by a
    /// fused multiply-add; and then its minima, of which each row has so many. There are at most [`TILES`] row tiles.
    fn add<const MINIMA: usize>(rows: &[RowTile], tokens: &[TokenTile], sums: &mut [Lane]);
}

/// [`Add::add`], compiled for every number of minima that there is.
#[inline(always)]
pub(crate) fn add<A: Add>(rows: &[RowTile], tokens: &[TokenTile], minima: usize, sums: &mut [Lane]) {
    match minima {
        0 => A::add::<0>(rows, tokens, sums),
        8 => A::add::<8>(rows, tokens, sums),
        _ => A::add::<16>(rows, tokens, sums),
    }
}

/// Row by row, in any lanes: the definition.
pub(crate) struct InRows<L>(PhantomData<L>);

impl<L: Sums> Add for InRows<L> {
    #[inline(always)]
    fn add<const MINIMA: usize>(rows: &[RowTile], tokens: &[TokenTile], sums: &mut [Lane]) {
        for (x, sums) in tokens.iter().zip(sums.chunks_exact_mut(rows.len() * ROWS)) {
            if x.is_half() {
                add_tile::<L, true>(rows, x, MINIMA, sums);
            } else {
                add_tile::<L, false>(rows, x, MINIMA, sums);
            }
        }
    }
}

#[inline(always)]
fn add_tile<L: Sums, const HALF: bool>(rows: &[RowTile], x: &TokenTile, minima: usize, sums: &mut [Lane]) {
    for (w, sums) in rows.iter().zip(sums.as_chunks_mut::<ROWS>().0) {
        for first in (0..ROWS).step_by(TOGETHER) {
            let whole = add_rows::<L, HALF>(w, first, x);
            for (r, whole) in (first..).zip(whole) {
                finish(whole, w, r, x, minima, &mut sums[r]);
            }
        }
    }
}

/// Exact sums of some rows with all tokens of a tile, rounded.
#[inline(always)]
fn add_rows<L: Sums, const HALF: bool>(w: &RowTile, first: usize, x: &TokenTile) -> [L; TOGETHER] {
    let mut sums = [[L::none(); 2]; TOGETHER];
    let mut rows = [&[[0u8; 4]; 0] as &[[u8; 4]]; TOGETHER];
    for (r, row) in rows.iter_mut().enumerate() {
        *row = w.lines[8 * (first + r)..][..8].as_flattened().as_chunks().0;
    }
    let (high, low) = x.lines.split_at(COLUMNS / 2);
    for k in 0..COLUMNS / 2 {
        for r in 0..TOGETHER {
            sums[r][0] = L::add_pairs::<HALF>(sums[r][0], rows[r][k], &high[k]);
            sums[r][1] = L::add_pairs::<HALF>(sums[r][1], rows[r][k], &low[k]);
        }
    }
    let mut totals = [L::splat(0.0); TOGETHER];
    for r in 0..TOGETHER {
        totals[r] = L::total(sums[r][0], sums[r][1]);
    }
    totals
}

/// A superblock's sums join those before it.
#[inline(always)]
pub(crate) fn finish<L: Sums>(whole: L, w: &RowTile, r: usize, x: &TokenTile, minima: usize, to: &mut Lane) {
    let mut sum = L::load(&to.0).add_product(whole, L::splat(w.d.0[r]).times(L::load(&x.scales.0)));
    let groups: &[Lane] = if minima == 8 { &x.thirty_twos } else { &x.sixteens };
    for (minimum, x) in w.minima[r].0[..minima].iter().zip(groups) {
        sum = sum.add_product(L::splat(*minimum), L::load(&x.0));
    }
    sum.store(&mut to.0);
}

/// Sums as [`add`] leaves them go to `[token, row]`.
#[inline(always)]
pub(crate) fn scatter(sums: &[Lane], out: &mut ArrayViewMut2<'_, f32>) {
    let rows = out.ncols().next_multiple_of(ROWS);
    for (t, mut out) in out.outer_iter_mut().enumerate() {
        for (out, sum) in out.iter_mut().zip(&sums[t / TOKENS * rows..]) {
            *out = sum.0[t % TOKENS];
        }
    }
}

const _: () = assert!(LANES == TOKENS);

impl Sums for Plain {
    type Whole = [i32; TOKENS];

    #[inline(always)]
    fn none() -> [i32; TOKENS] {
        [0; TOKENS]
    }

    #[inline(always)]
    fn add_pairs<const HALF: bool>(mut sums: [i32; TOKENS], w: [u8; 4], x: &[u8; 64]) -> [i32; TOKENS] {
        let number = |a: u8, b: u8| i32::from(i16::from_le_bytes([a, b]));
        for (sum, x) in sums.iter_mut().zip(x.as_chunks::<4>().0) {
            // The whole sum fits, whatever the order; parts of it may not.
            *sum = sum.wrapping_add(number(w[0], w[1]) * number(x[0], x[1]));
            *sum = sum.wrapping_add(number(w[2], w[3]) * number(x[2], x[3]));
        }
        sums
    }

    #[inline(always)]
    fn total(high: [i32; TOKENS], low: [i32; TOKENS]) -> Plain {
        let mut total = [0.0; TOKENS];
        for t in 0..TOKENS {
            total[t] = (4096 * i64::from(high[t]) + i64::from(low[t])) as f32;
        }
        Plain(total)
    }
}

//! Walks slices block by block, so that a codec is written for one block of fixed size.

use pulp::{Simd, WithSimd};

use crate::arithmetic::sum_of_squares;

/// What an encoder may know besides a block's values.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a, const LEN: usize> {
    /// How much an error in each value matters.
    pub importance: &'a [f32; LEN],
    /// Mean of the squares of the whole row that the block lies in.
    pub row_mean_square: f32,
}

impl<const LEN: usize> Weights<'_, LEN> {
    /// The importance of group `group` of `GROUP` values.
    #[inline(always)]
    pub fn group<const GROUP: usize>(&self, group: usize) -> &[f32; GROUP] {
        &self.importance.as_chunks().0[group]
    }
}

/// Decodes each `BYTES` of `bytes` into the next `LEN` of `out`. The caller has checked that the lengths agree.
///
/// Compiled once for every instruction set that this processor may have: the same plain code, so the same bits, in
/// wider registers.
#[inline(always)]
pub(crate) fn decode_blocks<const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    out: &mut [f32],
    decode: impl Fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    pulp::Arch::new().dispatch(DecodeBlocks { bytes, out, decode });
}

/// What [`decode_blocks`] compiles. No closure: the compiler wraps those in functions that it need not inline, and then
/// they are compiled for the oldest processor.
struct DecodeBlocks<'a, F, const BYTES: usize, const LEN: usize> {
    bytes: &'a [u8],
    out: &'a mut [f32],
    decode: F,
}

impl<F: Fn(&[u8; BYTES], &mut [f32; LEN]), const BYTES: usize, const LEN: usize> WithSimd
    for DecodeBlocks<'_, F, BYTES, LEN>
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (block, out) in self.bytes.as_chunks().0.iter().zip(self.out.as_chunks_mut().0) {
            (self.decode)(block, out);
        }
    }
}

/// Encodes each `LEN` of `values` into the next `BYTES` of `out`. `importance` is one row long and serves every row.
#[inline(always)]
pub(crate) fn encode_blocks<const BYTES: usize, const LEN: usize>(
    values: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
    encode: impl Fn(&[f32; LEN], Option<Weights<'_, LEN>>, &mut [u8; BYTES]),
) {
    if let Some(importance) = importance {
        encode_blocks_by_importance(values, importance, out, |values, weights, out| {
            encode(values, Some(weights), out);
        });
    } else {
        for (block, out) in values.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
            encode(block, None, out);
        }
    }
}

/// The same for encoders that cannot do without.
#[inline(always)]
pub(crate) fn encode_blocks_by_importance<const BYTES: usize, const LEN: usize>(
    values: &[f32],
    importance: &[f32],
    out: &mut [u8],
    encode: impl Fn(&[f32; LEN], Weights<'_, LEN>, &mut [u8; BYTES]),
) {
    let mut out = out.as_chunks_mut().0.iter_mut();
    let row_mean_squares = row_mean_squares(values, importance.len());
    for (row, row_mean_square) in values.chunks_exact(importance.len().max(1)).zip(row_mean_squares) {
        let blocks = row.as_chunks().0.iter().zip(importance.as_chunks().0);
        for ((block, importance), out) in blocks.zip(&mut out) {
            encode(block, Weights { importance, row_mean_square }, out);
        }
    }
}

/// The mean square of each row: squares are added in order, for a few rows at a time as they do not depend on each other.
pub(crate) fn row_mean_squares(values: &[f32], row: usize) -> Vec<f32> {
    const TOGETHER: usize = 8;
    let mut means = Vec::with_capacity(values.len() / row.max(1));
    let mut rows = values.chunks_exact((TOGETHER * row).max(1));
    for rows in &mut rows {
        let mut sums = [0.0_f32; TOGETHER];
        for i in 0..row {
            for (r, sum) in sums.iter_mut().enumerate() {
                *sum += rows[r * row + i] * rows[r * row + i];
            }
        }
        means.extend(sums.map(|sum| sum / row as f32));
    }
    means.extend(rows.remainder().chunks_exact(row.max(1)).map(|x| sum_of_squares(x) / row as f32));
    means
}

/// Encodes each value by itself; the error is the index of the first one that `encode` refuses.
#[inline(always)]
pub(crate) fn encode_numbers<const BYTES: usize>(
    values: &[f32],
    out: &mut [u8],
    encode: impl Fn(f32) -> Option<[u8; BYTES]>,
) -> Result<(), usize> {
    for (index, (value, out)) in values.iter().zip(out.as_chunks_mut().0).enumerate() {
        *out = encode(*value).ok_or(index)?;
    }
    Ok(())
}

/// Cuts a block into its consecutive fields: `fields!(block => d: 2, quants: 32)` binds `d: &[u8; 2]` and
/// `quants: &[u8; 32]`. Fields that do not add up to the block do not compile.
macro_rules! fields {
    ($block:expr => $($name:ident: $len:literal),+) => {
        let rest = $crate::blocks::whole::<_, { 0 $(+ $len)+ }>($block);
        $(let Some(($name, rest)) = rest.split_first_chunk::<$len>() else { unreachable!() };)+
        let [] = rest else { unreachable!() };
    };
}
pub(crate) use fields;

/// The same for a block to be written: binds `d: &mut [u8; 2]` and `quants: &mut [u8; 32]`.
macro_rules! fields_mut {
    ($block:expr => $($name:ident: $len:literal),+) => {
        let rest = $crate::blocks::whole_mut::<_, { 0 $(+ $len)+ }>($block);
        $(let Some(($name, rest)) = rest.split_first_chunk_mut::<$len>() else { unreachable!() };)+
        let [] = rest else { unreachable!() };
    };
}
pub(crate) use fields_mut;

/// A block whose fields take `FIELDS` bytes, which the compiler compares.
#[inline(always)]
pub(crate) fn whole<const BYTES: usize, const FIELDS: usize>(block: &[u8; BYTES]) -> &[u8] {
    const { assert!(BYTES == FIELDS, "the fields do not add up to the block") };
    block
}

/// A block whose fields take `FIELDS` bytes, which the compiler compares.
#[inline(always)]
pub(crate) fn whole_mut<const BYTES: usize, const FIELDS: usize>(block: &mut [u8; BYTES]) -> &mut [u8] {
    const { assert!(BYTES == FIELDS, "the fields do not add up to the block") };
    block
}

//! The encoders once more, faster, byte for byte the same.
//!
//! ggml adds f32 in order, so a sum within a block has no other form with the same bits. But blocks do not depend on each
//! other: each lane of a register takes a block of its own through the steps of the scalar encoder, in its order; where
//! that branches, lanes select. What a block's layout is made of, once its scales are known, is shared with the scalar
//! encoder, which also takes over the rare blocks that leave the common path.

mod affine_k;
mod grid;
mod iq1;
mod kernels;
mod levels;
mod neighbours;
mod search;
mod small;
mod symmetric_k;
#[cfg(test)]
mod tests;
mod vector;

use pulp::{Simd, WithSimd};

pub(crate) use kernels::Kernels;

use crate::blocks::{Weights, row_mean_squares};
use crate::{Encoding, fp4};
use search::Column;
use vector::Lanes;

/// Lanes of the widest registers.
const MOST: usize = 16;

/// Encodes whole blocks of finite values; `false` if there is no fast encoder and nothing was done.
pub(crate) fn encode(
    kernels: Kernels,
    encoding: Encoding,
    values: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
) -> bool {
    match (encoding, importance) {
        (Encoding::Q4_0, Some(_)) => run(kernels, small::Q4_0, (values, importance, out)),
        (Encoding::Q4_0, None) => run_alone(kernels, small::Q4_0, values, out),
        (Encoding::Q4_1, Some(_)) => run(kernels, small::Q4_1, (values, importance, out)),
        (Encoding::Q4_1, None) => run_alone(kernels, small::Q4_1, values, out),
        (Encoding::Q5_0, Some(_)) => run(kernels, small::Q5_0, (values, importance, out)),
        (Encoding::Q5_0, None) => run_alone(kernels, small::Q5_0, values, out),
        (Encoding::Q5_1, Some(_)) => run(kernels, small::Q5_1, (values, importance, out)),
        (Encoding::Q5_1, None) => run_alone(kernels, small::Q5_1, values, out),
        (Encoding::Q8_0, _) => run_alone(kernels, small::Q8_0, values, out),
        (Encoding::Q2K, _) => run(kernels, affine_k::Q2K, (values, importance, out)),
        (Encoding::Q3K, _) => run(kernels, symmetric_k::Q3K, (values, importance, out)),
        (Encoding::Q4K, _) => run(kernels, affine_k::Q4K, (values, importance, out)),
        (Encoding::Q5K, _) => run(kernels, affine_k::Q5K, (values, importance, out)),
        (Encoding::Q6K, _) => run(kernels, symmetric_k::Q6K, (values, importance, out)),
        (Encoding::Iq1S, Some(_)) => with_finder!(kernels, iq1::Iq1S, (values, importance, out)),
        (Encoding::Iq1M, _) => with_finder!(kernels, iq1::Iq1M, (values, importance, out)),
        (Encoding::Iq2Xxs, Some(_)) => with_finder!(kernels, grid::Iq2Xxs, (values, importance, out)),
        (Encoding::Iq2Xs, Some(_)) => with_finder!(kernels, grid::Iq2Xs, (values, importance, out)),
        (Encoding::Iq2S, _) => with_finder!(kernels, grid::Iq2S, (values, importance, out)),
        (Encoding::Iq3Xxs, _) => with_finder!(kernels, grid::Iq3Xxs, (values, importance, out)),
        (Encoding::Iq3S, _) => with_finder!(kernels, grid::Iq3S, (values, importance, out)),
        (Encoding::Iq4Nl, _) => run(kernels, levels::Iq4Nl, (values, importance, out)),
        (Encoding::Iq4Xs, _) => run(kernels, levels::Iq4Xs, (values, importance, out)),
        (Encoding::Mxfp4, _) => run_alone(kernels, Mxfp4, values, out),
        (Encoding::Nvfp4, _) => run_alone(kernels, Nvfp4, values, out),
        _ => return false,
    }
    true
}

/// Runs an encoder that looks up tables in registers, which is another instruction for each kind of them. Not by
/// `dispatch`: that would compile each finder for the other instruction sets, too.
macro_rules! with_finder {
    ($kernels:ident, $encoder:path, $input:expr) => {
        match $kernels {
            Kernels::Scalar => pulp::Scalar.vectorize(job($encoder(pulp::Scalar), $input)),
            #[cfg(target_arch = "x86_64")]
            Kernels::Avx2(v3) => Simd::vectorize(v3, job($encoder(v3), $input)),
            #[cfg(target_arch = "x86_64")]
            Kernels::Avx512(v4) => Simd::vectorize(v4, job($encoder(v4), $input)),
        }
    };
}
use with_finder;

/// As many blocks as there are lanes, or the last few.
struct Batch<'a, S: Simd, const LEN: usize> {
    /// Element i of each block; lanes beyond the last block repeat the first.
    x: Column<'a, S>,
    /// The same for what an error in each matters.
    importance: Option<Column<'a, S>>,
    /// Mean square of each block's row, if there is importance.
    row_mean_square: Lanes<S>,
    /// The blocks one by one.
    blocks: &'a [[f32; LEN]],
    weights: [Option<Weights<'a, LEN>>; MOST],
}

/// An encoder that takes a block in each lane.
trait Encoder<const LEN: usize, const BYTES: usize>: Copy + Sync {
    /// Encodes `batch.blocks` into as many blocks of bytes.
    fn encode<S: Simd>(self, batch: &Batch<'_, S, LEN>, out: &mut [[u8; BYTES]]);
}

/// Values, importance, and where the bytes go; lengths as `Encoding::encode` has checked them.
type Input<'a> = (&'a [f32], Option<&'a [f32]>, &'a mut [u8]);

fn run<const LEN: usize, const BYTES: usize>(
    kernels: Kernels,
    encoder: impl Encoder<LEN, BYTES>,
    input: Input<'_>,
) {
    kernels.dispatch(job(encoder, input));
}

fn job<E: Encoder<LEN, BYTES>, const LEN: usize, const BYTES: usize>(
    encoder: E,
    (values, importance, out): Input<'_>,
) -> Job<'_, E, LEN, BYTES> {
    Job {
        encoder,
        blocks: values.as_chunks().0,
        importance: importance
            .map(|importance| (importance.as_chunks().0, row_mean_squares(values, importance.len()))),
        out: out.as_chunks_mut().0,
    }
}

/// An encoder that takes one block after the other: where nothing is summed, values within a block are what registers
/// hold.
trait Alone<const LEN: usize, const BYTES: usize>: Copy + Sync {
    /// Encodes finite values.
    fn encode<S: Simd>(self, simd: S, values: &[f32; LEN], block: &mut [u8; BYTES]);
}

/// Encodes one block after the other.
fn run_alone<const LEN: usize, const BYTES: usize>(
    kernels: Kernels,
    encoder: impl Alone<LEN, BYTES>,
    values: &[f32],
    out: &mut [u8],
) {
    kernels.dispatch(AloneJob { encoder, blocks: values.as_chunks().0, out: out.as_chunks_mut().0 });
}

struct AloneJob<'a, E, const LEN: usize, const BYTES: usize> {
    encoder: E,
    blocks: &'a [[f32; LEN]],
    out: &'a mut [[u8; BYTES]],
}

impl<E: Alone<LEN, BYTES>, const LEN: usize, const BYTES: usize> WithSimd for AloneJob<'_, E, LEN, BYTES> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for (block, out) in self.blocks.iter().zip(self.out) {
            self.encoder.encode(simd, block, out);
        }
    }
}

/// The scalar encoders of four-bit floats: the compiler takes several values at a time.
macro_rules! plain {
    ($encoder:ident, $len:literal, $bytes:literal, $encode:path) => {
        #[derive(Clone, Copy)]
        struct $encoder;

        impl Alone<$len, $bytes> for $encoder {
            #[inline(always)]
            fn encode<S: Simd>(self, _: S, values: &[f32; $len], block: &mut [u8; $bytes]) {
                $encode(values, None, block);
            }
        }
    };
}

plain!(Mxfp4, 32, 17, fp4::encode_mxfp4);
plain!(Nvfp4, 64, 36, fp4::encode_nvfp4);

struct Job<'a, E, const LEN: usize, const BYTES: usize> {
    encoder: E,
    blocks: &'a [[f32; LEN]],
    /// Of the blocks of a row, and the mean square of each row.
    importance: Option<(&'a [[f32; LEN]], Vec<f32>)>,
    out: &'a mut [[u8; BYTES]],
}

/// One register an element, at the start of a cache line.
#[repr(C, align(64))]
struct Rows<const LEN: usize>([[f32; MOST]; LEN]);

impl<const LEN: usize> Rows<LEN> {
    /// Element i of every block into register i.
    #[inline(always)]
    fn fill<S: Simd>(&mut self, blocks: &[&[f32; LEN]; MOST]) {
        let lanes = S::F32_LANES;
        let flat = self.0.as_flattened_mut();
        for (i, row) in flat.chunks_exact_mut(lanes).take(LEN).enumerate() {
            for (x, block) in row.iter_mut().zip(blocks) {
                *x = block[i];
            }
        }
    }

    #[inline(always)]
    fn column<S: Simd>(&self, simd: S) -> Column<'_, S> {
        Column { simd, rows: &S::as_simd_f32s(self.0.as_flattened()).0[..LEN] }
    }
}

impl<E: Encoder<LEN, BYTES>, const LEN: usize, const BYTES: usize> WithSimd for Job<'_, E, LEN, BYTES> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let mut x = Rows([[0.0; MOST]; LEN]);
        let mut importance = Rows([[0.0; MOST]; LEN]);
        let lanes = S::F32_LANES;
        let batches = self.blocks.chunks(lanes).zip(self.out.chunks_mut(lanes));
        for (batch, (blocks, out)) in batches.enumerate() {
            let Some(first) = blocks.first() else { continue };
            let mut columns = [first; MOST];
            for (column, block) in columns.iter_mut().zip(blocks) {
                *column = block;
            }
            x.fill::<S>(&columns);
            let mut weights = [None; MOST];
            let mut row_mean_square = [0.0; MOST];
            if let Some((row, mean_squares)) = &self.importance {
                let mut columns = [&row[0]; MOST];
                for lane in 0..blocks.len() {
                    let block = batch * lanes + lane;
                    columns[lane] = &row[block % row.len()];
                    row_mean_square[lane] = mean_squares[block / row.len()];
                    weights[lane] =
                        Some(Weights { importance: columns[lane], row_mean_square: row_mean_square[lane] });
                }
                importance.fill::<S>(&columns);
            }
            let batch = Batch {
                x: x.column(simd),
                importance: self.importance.is_some().then(|| importance.column(simd)),
                row_mean_square: Lanes::new(simd, S::as_simd_f32s(&row_mean_square).0[0]),
                blocks,
                weights,
            };
            self.encoder.encode(&batch, out);
        }
    }
}

/// Importance times what a value's size adds to it, as `arithmetic::weigh` has it.
#[inline(always)]
fn weigh<S: Simd, const LEN: usize>(
    x: Column<'_, S>,
    importance: Column<'_, S>,
    power: Lanes<S>,
) -> [S::f32s; LEN] {
    let mut weights = [power.lanes(); LEN];
    for (i, weight) in weights.iter_mut().enumerate() {
        *weight = (importance.at(i) * (power + x.at(i) * x.at(i)).sqrt()).lanes();
    }
    weights
}

/// The same number of every lane, for each of several.
#[inline(always)]
fn by_lane<S: Simd, const COUNT: usize>(numbers: &[S::f32s; COUNT], simd: S) -> [[f32; COUNT]; MOST] {
    let mut lanes = [[0.0; MOST]; COUNT];
    for (lanes, number) in lanes.iter_mut().zip(numbers) {
        Lanes::new(simd, *number).store(lanes);
    }
    let mut transposed = [[0.0; COUNT]; MOST];
    for (lane, transposed) in transposed.iter_mut().enumerate() {
        for (to, from) in transposed.iter_mut().zip(&lanes) {
            *to = from[lane];
        }
    }
    transposed
}

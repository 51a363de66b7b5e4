//! Activations made ready to be multiplied by matrices: once for all that share them.

use std::sync::OnceLock;

use model::Tiling;
use ndarray::ArrayView2;

use crate::kernels::Table;
use crate::kernels::digits::{Chunk, Digits, Layout, UNIT};
use crate::kernels::lane::{LANES, Lane, flat, flat_mut};
use crate::kernels::tile::{Tokens, interleave};

/// The most tokens of a call whose rows are multiplied one by one, straight from the file's bytes.
pub(crate) const FEW: usize = 4;

/// The rows that enter one or more matrices.
pub(crate) struct Input {
    /// Columns of the matrices that these rows fit.
    pub width: usize,
    pub tokens: usize,
    /// Lane groups of a row.
    pub groups: usize,
    table: &'static Table,
    /// Rows one after the other if they are few, else interleaved in tiles.
    lanes: Vec<Lane>,
    /// By layout.
    digits: [OnceLock<Packed>; 3],
}

struct Packed {
    chunks: Vec<Chunk>,
    minus: Vec<Lane>,
}

impl Input {
    /// Rows in canonical order; `tiling` is how the matrices' columns are stored.
    pub(crate) fn new(x: ArrayView2<'_, f32>, tiling: Option<Tiling>, table: &'static Table) -> Input {
        let (tokens, width) = x.dim();
        let groups = width.div_ceil(LANES);
        let mut lanes = vec![Lane::ZERO; tokens * groups];
        for (x, lanes) in x.outer_iter().zip(lanes.chunks_exact_mut(groups)) {
            let x = x.to_slice().expect("rows of activations are contiguous");
            let row = &mut flat_mut(lanes)[..width];
            match tiling {
                None => row.copy_from_slice(x),
                Some(tiling) => {
                    for (i, run) in x.chunks_exact(tiling.run()).enumerate() {
                        row[tiling.stored(i * tiling.run())..][..tiling.run()].copy_from_slice(run);
                    }
                }
            }
        }
        if tokens > FEW {
            lanes = interleave(&lanes, groups, table.tile_tokens);
        }
        Input { width, tokens, groups, table, lanes, digits: Default::default() }
    }

    /// Whether rows of the matrix are multiplied one by one.
    pub(crate) fn is_few(&self) -> bool {
        self.tokens <= FEW
    }

    /// All tokens, interleaved for tiles: of an input that is not few.
    pub(crate) fn tiles(&self) -> Tokens<'_> {
        debug_assert!(!self.is_few());
        Tokens { lanes: &self.lanes, tokens: self.tokens, groups: self.groups }
    }

    /// One token of a few.
    pub(crate) fn token(&self, t: usize) -> Tokens<'_> {
        debug_assert!(self.is_few());
        Tokens { lanes: &self.lanes[t * self.groups..][..self.groups], tokens: 1, groups: self.groups }
    }

    /// One token of a few as digits; the width is of whole units.
    pub(crate) fn digits(&self, t: usize, layout: Layout) -> Digits<'_> {
        let (chunks, minus) = (self.width / UNIT * 2, (self.width / UNIT).div_ceil(2));
        let packed = self.digits[layout as usize].get_or_init(|| {
            let mut packed = Packed {
                chunks: vec![Chunk::ZERO; self.tokens * chunks],
                minus: vec![Lane::ZERO; self.tokens * minus],
            };
            let rows = packed.chunks.chunks_exact_mut(chunks).zip(packed.minus.chunks_exact_mut(minus));
            for (t, (chunks, minus)) in rows.enumerate() {
                (self.table.pack)(flat(self.token(t).lanes), layout, chunks, minus);
            }
            packed
        });
        Digits { chunks: &packed.chunks[t * chunks..][..chunks], minus: &packed.minus[t * minus..][..minus] }
    }
}

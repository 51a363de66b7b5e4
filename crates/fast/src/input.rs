//! Activations made ready to be multiplied by matrices: once for all that share them.

use std::sync::OnceLock;

use model::Tiling;
use ndarray::ArrayView2;

use crate::buffers::Buffers;
use crate::kernels::Table;
use crate::kernels::digits::{Chunk, Digits, Layout, UNIT};
use crate::kernels::fixed::{COLUMNS, TOKENS, TokenTile};
use crate::kernels::lane::{LANES, Lane, flat, flat_mut};
use crate::kernels::team::Team;
use crate::kernels::tile::Tokens;

/// The most tokens of a call whose rows are multiplied one by one, straight from the file's bytes.
pub(crate) const FEW: usize = 4;

/// The rows that enter one or more matrices.
pub(crate) struct Input<'a> {
    /// Columns of the matrices that these rows fit.
    pub width: usize,
    pub tokens: usize,
    /// Tokens of the call that these are of.
    call: usize,
    /// Lane groups of a row.
    pub groups: usize,
    x: ArrayView2<'a, f32>,
    tiling: Option<Tiling>,
    table: &'static Table,
    buffers: &'a Buffers,
    /// Rows one after the other if they are few, else interleaved in tiles.
    lanes: OnceLock<Vec<Lane>>,
    /// By layout.
    digits: [OnceLock<Packed>; 3],
    /// `[superblock, token tile]`.
    fixed: OnceLock<Vec<TokenTile>>,
}

struct Packed {
    chunks: Vec<Chunk>,
    minus: Vec<Lane>,
}

impl<'a> Input<'a> {
    /// Rows in canonical order, of a call of so many tokens; `tiling` is how the matrices' columns are stored.
    pub(crate) fn new(
        x: ArrayView2<'a, f32>,
        call: usize,
        tiling: Option<Tiling>,
        table: &'static Table,
        buffers: &'a Buffers,
    ) -> Input<'a> {
        let (tokens, width) = x.dim();
        Input {
            width,
            tokens,
            call,
            groups: width.div_ceil(LANES),
            x,
            tiling,
            table,
            buffers,
            lanes: OnceLock::new(),
            digits: Default::default(),
            fixed: OnceLock::new(),
        }
    }

    /// Whether rows of the matrix are multiplied one by one.
    pub(crate) fn is_few(&self) -> bool {
        self.call <= FEW
    }

    /// A token's activations in the order in which columns are stored, from column `first` on.
    fn copy(&self, t: usize, first: usize, to: &mut [f32]) {
        let x = self.x.row(t).to_slice().expect("rows of activations are contiguous");
        let Some(tiling) = self.tiling else {
            return to.copy_from_slice(&x[first..first + to.len()]);
        };
        let mut done = 0;
        while done < to.len() {
            let stored = first + done;
            let run = tiling.run_from(stored).min(to.len() - done);
            to[done..done + run].copy_from_slice(&x[tiling.canonical(stored)..][..run]);
            done += run;
        }
    }

    /// Rows one after the other.
    fn rows(&self) -> &[Lane] {
        debug_assert!(self.is_few());
        self.lanes.get_or_init(|| {
            let mut lanes = vec![Lane::ZERO; self.tokens * self.groups];
            for (t, lanes) in lanes.chunks_exact_mut(self.groups).enumerate() {
                self.copy(t, 0, &mut flat_mut(lanes)[..self.width]);
            }
            lanes
        })
    }

    /// Makes tiles of an input that is not few, if that has not been done.
    pub(crate) fn interleave(&self, team: &Team) {
        debug_assert!(!self.is_few());
        self.lanes.get_or_init(|| {
            let (groups, tile) = (self.groups, self.table.tile_tokens);
            let mut lanes = vec![Lane::ZERO; self.tokens * groups];
            let mut tiles: Vec<_> = lanes.chunks_mut(tile * groups).enumerate().collect();
            team.each(&mut tiles, |(i, lanes)| {
                let together = lanes.len() / groups;
                let mut row = vec![Lane::ZERO; groups];
                for t in 0..together {
                    self.copy(*i * tile + t, 0, &mut flat_mut(&mut row)[..self.width]);
                    // What is left over is no tile, and its rows follow each other.
                    let (first, step) = if together == tile { (t, tile) } else { (t * groups, 1) };
                    for (to, lane) in lanes[first..].iter_mut().step_by(step).zip(&row) {
                        *to = *lane;
                    }
                }
            });
            lanes
        });
    }

    /// All tokens, interleaved for tiles: of an input that is not few; [`Input::interleave`] has been called.
    pub(crate) fn tiles(&self) -> Tokens<'_> {
        let lanes = self.lanes.get().expect("tiles were made before");
        Tokens { lanes, tokens: self.tokens, groups: self.groups }
    }

    /// One token of a few.
    pub(crate) fn token(&self, t: usize) -> Tokens<'_> {
        Tokens { lanes: &self.rows()[t * self.groups..][..self.groups], tokens: 1, groups: self.groups }
    }

    /// Makes digits of a few tokens, if that has not been done; the width is of whole units.
    pub(crate) fn pack(&self, layout: Layout) {
        self.digits[layout as usize].get_or_init(|| {
            let (chunks, minus) = self.digit_widths();
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
    }

    /// Chunks and lane groups of a token's digits.
    fn digit_widths(&self) -> (usize, usize) {
        (self.width / UNIT * 2, (self.width / UNIT).div_ceil(2))
    }

    /// One token of a few as digits; [`Input::pack`] has been called.
    pub(crate) fn digits(&self, t: usize, layout: Layout) -> Digits<'_> {
        let (chunks, minus) = self.digit_widths();
        let packed = self.digits[layout as usize].get().expect("digits were made before");
        Digits { chunks: &packed.chunks[t * chunks..][..chunks], minus: &packed.minus[t * minus..][..minus] }
    }

    /// All tokens' part of a superblock; [`fix`] has been called.
    pub(crate) fn token_tiles(&self, superblock: usize) -> &[TokenTile] {
        let tiles = self.tokens.div_ceil(TOKENS);
        let fixed = self.fixed.get().expect("activations were made whole numbers before");
        &fixed[superblock * tiles..][..tiles]
    }

    /// A superblock of all tokens. What fills up the last tile is of no token, and its sums go nowhere.
    fn fix_superblock(&self, superblock: usize, tiles: &mut [TokenTile]) {
        let mut x = [[0.0; COLUMNS]; TOKENS];
        for (first, tile) in (0..self.tokens).step_by(TOKENS).zip(tiles) {
            for (t, x) in (first..self.tokens).zip(&mut x) {
                self.copy(t, superblock * COLUMNS, x);
            }
            (self.table.fix_tokens)(&x, tile);
        }
    }
}

/// Makes whole numbers of these inputs' activations, where that has not been done: all at once, so that threads have
/// enough to share.
pub(crate) fn fix(inputs: &[&Input<'_>], team: &Team) {
    let mut fresh: Vec<(&Input<'_>, Vec<TokenTile>)> = Vec::new();
    for input in inputs {
        if input.fixed.get().is_none() && !fresh.iter().any(|(known, _)| std::ptr::eq(*known, *input)) {
            let count = input.tokens.div_ceil(TOKENS) * (input.width / COLUMNS);
            fresh.push((input, input.buffers.tiles(count)));
        }
    }
    let superblocks = fresh.iter_mut().flat_map(|(input, tiles)| {
        let input = *input;
        tiles.chunks_exact_mut(input.tokens.div_ceil(TOKENS)).enumerate().map(move |(s, t)| (input, s, t))
    });
    let mut superblocks: Vec<_> = superblocks.collect();
    team.each(&mut superblocks, |(input, superblock, tiles)| input.fix_superblock(*superblock, tiles));
    for (input, tiles) in fresh {
        input.fixed.get_or_init(|| tiles);
    }
}

impl Drop for Input<'_> {
    fn drop(&mut self) {
        if let Some(tiles) = self.fixed.take() {
            self.buffers.recycle_tiles(tiles);
        }
    }
}

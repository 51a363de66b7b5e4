//! Matrices times activations: several at once, their rows split among threads, never a sum.

use std::cell::RefCell;

use instructions::prefetch;
use model::Matrix;
use ndarray::{Array2, ArrayViewMut2, Axis};

use crate::forward::Model;
use crate::input::{Input, fix};
use crate::kernels::digits::{Coding, Layout};
use crate::kernels::fixed::{COLUMNS, TOKENS};
use crate::kernels::lane::{LANES, Lane, flat_mut};
use crate::kernels::superblock::{ROWS, RowTile, Super, TILES};
use crate::kernels::tile::{Panel, TOGETHER};
use crate::kernels::{Numbers, Rows, Table};

/// Rows decoded at a time: of 4096 columns half a megabyte, which a core's own cache holds while the tokens go by.
const PANEL_ROWS: usize = 32;

/// Rows whose superblocks are opened at a time, for all tokens to go by: a second-level cache holds them.
const OPENED_ROWS: usize = TILES * ROWS;

/// Superblocks between the one that is opened and the one that memory is asked for.
const AHEAD: usize = 16;

/// Quantized rows that a kernel is called for at a time.
const CALLED_ROWS: usize = 16;

/// Bytes that a thread streams through when tokens are few: much less, and memory does not get up to speed.
const PART_BYTES: usize = 256 << 10;

/// A matrix, what enters it and where it goes: `y[t, n] = Σ_k x[t, k] · w[n, k]`.
pub(crate) struct Product<'a, 'x> {
    pub w: &'a Matrix<'a>,
    pub x: &'a Input<'x>,
    pub y: &'a mut Array2<f32>,
}

/// How a product is done.
#[derive(Clone, Copy)]
enum Way {
    /// Few tokens: each row straight from its codes.
    Codes(Coding),
    /// Few tokens: rows of plain numbers straight from the file.
    Numbers(Numbers),
    /// Few tokens: each row decoded.
    Decoded,
    /// Many tokens: superblocks opened to whole numbers.
    Superblocks(Super),
    /// Many tokens: rows decoded, in tiles.
    Tiles,
}

impl Way {
    fn of(w: &Matrix<'_>, x: &Input<'_>, table: &Table) -> Way {
        let encoding = w.encoding();
        if !x.is_few() {
            return Super::of(encoding).map_or(Way::Tiles, Way::Superblocks);
        }
        match (Coding::of(encoding, w.cols()), table.numbers(encoding)) {
            (Some(coding), _) => Way::Codes(coding),
            (None, Some(numbers)) if w.cols().is_multiple_of(LANES) => Way::Numbers(numbers),
            _ => Way::Decoded,
        }
    }

    /// Rows that a thread takes at a time.
    fn rows(self, w: &Matrix<'_>) -> usize {
        match self {
            // Few tokens are over so soon that the parts must be large for the memory to stream.
            Way::Codes(_) | Way::Numbers(_) | Way::Decoded => {
                (PART_BYTES / w.row_bytes(0).len()).next_multiple_of(TOGETHER).max(TOGETHER)
            }
            Way::Superblocks(_) => OPENED_ROWS,
            Way::Tiles => PANEL_ROWS,
        }
    }
}

/// Some rows of a product.
struct Part<'a, 'x> {
    way: Way,
    w: &'a Matrix<'a>,
    x: &'a Input<'x>,
    first_row: usize,
    y: ArrayViewMut2<'a, f32>,
}

/// Working space of a thread.
#[derive(Default)]
struct Space {
    panel: Vec<Lane>,
    opened: Vec<RowTile>,
    sums: Vec<Lane>,
}

thread_local! {
    static SPACE: RefCell<Space> = RefCell::default();
}

impl Model<'_> {
    /// `x` times one matrix: `[T, N]`.
    pub(crate) fn linear(&self, x: &Input<'_>, w: &Matrix<'_>) -> Array2<f32> {
        let mut y = self.buffers.rows(x.tokens, w.rows());
        self.products(vec![Product { w, x, y: &mut y }]);
        y
    }

    /// All of `products`, side by side.
    pub(crate) fn products(&self, products: Vec<Product<'_, '_>>) {
        let (table, team) = (self.table, &self.team);
        let products: Vec<_> =
            products.into_iter().map(|product| (Way::of(product.w, product.x, table), product)).collect();
        // Inputs are made ready now, rather than by whichever thread comes first while the others wait.
        let whole = products.iter().filter(|(way, _)| matches!(way, Way::Superblocks(_)));
        fix(&whole.map(|(_, product)| product.x).collect::<Vec<_>>(), team);
        let mut parts = Vec::new();
        for (way, Product { w, x, y }) in products {
            assert!(x.width == w.cols() && y.dim() == (x.tokens, w.rows()), "shapes agree");
            match way {
                Way::Codes(coding) => x.pack(coding.layout()),
                Way::Tiles => x.interleave(team),
                Way::Numbers(_) | Way::Decoded | Way::Superblocks(_) => {}
            }
            let rows = way.rows(w);
            let chunks = y.axis_chunks_iter_mut(Axis(1), rows);
            parts.extend(chunks.enumerate().map(|(i, y)| Part { way, w, x, first_row: i * rows, y }));
        }
        team.each(&mut parts, |part| SPACE.with_borrow_mut(|space| part.run(table, space)));
    }
}

impl Part<'_, '_> {
    fn run(&mut self, table: &'static Table, space: &mut Space) {
        match self.way {
            Way::Codes(coding) => self.codes(coding.layout(), table.rows(coding)),
            Way::Numbers(numbers) => self.numbers(numbers),
            Way::Decoded => {
                let (panel, sums) = self.decode(space);
                for (t, mut y) in self.y.axis_chunks_iter_mut(Axis(0), 1).enumerate() {
                    (table.product)(&panel, self.x.token(t), &mut y, sums);
                }
            }
            Way::Superblocks(coding) => self.superblocks(coding, table, space),
            Way::Tiles => {
                let (panel, sums) = self.decode(space);
                (table.product)(&panel, self.x.tiles(), &mut self.y, sums);
            }
        }
    }

    /// Superblocks of all rows at a time, in whole numbers.
    fn superblocks(&mut self, coding: Super, table: &'static Table, space: &mut Space) {
        let rows = self.y.ncols();
        let row_tiles = rows.div_ceil(ROWS);
        let Space { opened, sums, .. } = space;
        if opened.len() < row_tiles {
            opened.resize(row_tiles, RowTile::ZERO);
        }
        sums.clear();
        sums.resize(self.x.tokens.div_ceil(TOKENS) * row_tiles * ROWS, Lane::ZERO);
        let bytes = coding.bytes();
        let block = |superblock: usize, r: usize| {
            &self.w.row_bytes(self.first_row + r)[superblock * bytes..][..bytes]
        };
        let superblocks = self.w.cols() / COLUMNS;
        for superblock in 0..superblocks {
            for r in 0..rows {
                // Rows lie apart, so that memory does not guess what comes.
                let (next, ahead) = ((r + AHEAD) / rows, (r + AHEAD) % rows);
                if superblock + next < superblocks {
                    prefetch(block(superblock + next, ahead));
                }
                (table.open_row)(coding, block(superblock, r), r % ROWS, &mut opened[r / ROWS]);
            }
            let tokens = self.x.token_tiles(superblock);
            (table.add_superblock)(&opened[..row_tiles], tokens, coding.minima(), sums);
        }
        (table.scatter)(sums, &mut self.y);
    }

    /// Quantized rows, straight from their codes; those of a call are in the first-level cache for the tokens after the
    /// first.
    fn codes(&mut self, layout: Layout, rows: Rows) {
        let mut bytes = [&[] as &[u8]; CALLED_ROWS];
        for first in (0..self.y.ncols()).step_by(CALLED_ROWS) {
            let here = CALLED_ROWS.min(self.y.ncols() - first);
            for (r, bytes) in bytes[..here].iter_mut().enumerate() {
                *bytes = self.w.row_bytes(self.first_row + first + r);
            }
            for (t, mut y) in self.y.outer_iter_mut().enumerate() {
                let y = y.as_slice_mut().expect("rows of activations are contiguous");
                rows(&bytes[..here], self.x.digits(t, layout), &mut y[first..first + here]);
            }
        }
    }

    /// Rows of plain numbers, some at a time; the last is repeated where there are no more.
    fn numbers(&mut self, numbers: Numbers) {
        let last = self.y.ncols() - 1;
        for r in (0..=last).step_by(TOGETHER) {
            let rows = std::array::from_fn(|i| self.w.row_bytes(self.first_row + last.min(r + i)));
            for t in 0..self.y.nrows() {
                for (i, y) in numbers(rows, self.x.token(t).lanes).into_iter().enumerate() {
                    if r + i <= last {
                        self.y[[t, r + i]] = y;
                    }
                }
            }
        }
    }

    /// These rows in f32, and room for sums.
    fn decode<'s>(&self, space: &'s mut Space) -> (Panel<'s>, &'s mut Vec<Lane>) {
        // One more than a row has, so that rows do not all compete for the same cache sets.
        let (rows, stride) = (self.y.ncols(), self.x.groups + 1);
        let Space { panel, sums, .. } = space;
        if panel.len() < rows * stride {
            panel.resize(rows * stride, Lane::ZERO);
        }
        for (r, row) in panel.chunks_exact_mut(stride).take(rows).enumerate() {
            let row = flat_mut(&mut row[..self.x.groups]);
            row[self.w.cols()..].fill(0.0);
            let bytes = self.w.row_bytes(self.first_row + r);
            if let Err(error) = self.w.encoding().decode(bytes, &mut row[..self.w.cols()]) {
                unreachable!("a row's bytes were measured when the matrix was made: {error}");
            }
        }
        (Panel { lanes: panel, stride }, sums)
    }
}

//! Matrices times activations: several at once, their rows split among threads, never a sum.

use std::cell::RefCell;

use model::Matrix;
use ndarray::{Array2, ArrayViewMut2, Axis};

use crate::forward::Model;
use crate::input::Input;
use crate::kernels::Table;
use crate::kernels::lane::{Lane, flat_mut};
use crate::kernels::tile::Panel;

/// Rows decoded at a time: of 4096 columns half a megabyte, which a core's own cache holds while the tokens go by.
const PANEL_ROWS: usize = 32;

/// A matrix, what enters it and where it goes: `y[t, n] = Σ_k x[t, k] · w[n, k]`.
pub(crate) struct Product<'a> {
    pub w: &'a Matrix<'a>,
    pub x: &'a Input,
    pub y: &'a mut Array2<f32>,
}

/// Some rows of a product.
struct Part<'a> {
    w: &'a Matrix<'a>,
    x: &'a Input,
    first_row: usize,
    y: ArrayViewMut2<'a, f32>,
}

/// Working space of a thread.
#[derive(Default)]
struct Space {
    panel: Vec<Lane>,
    sums: Vec<Lane>,
}

thread_local! {
    static SPACE: RefCell<Space> = RefCell::default();
}

impl Model<'_> {
    /// `x` times one matrix: `[T, N]`.
    pub(crate) fn linear(&self, x: &Input, w: &Matrix<'_>) -> Array2<f32> {
        let mut y = self.buffers.rows(x.tiles.tokens, w.rows());
        self.products(vec![Product { w, x, y: &mut y }]);
        y
    }

    /// All of `products`, side by side.
    pub(crate) fn products(&self, products: Vec<Product<'_>>) {
        let mut parts = Vec::new();
        for Product { w, x, y } in products {
            assert!(x.width == w.cols() && y.dim() == (x.tiles.tokens, w.rows()), "shapes agree");
            let chunks = y.axis_chunks_iter_mut(Axis(1), PANEL_ROWS);
            parts.extend(chunks.enumerate().map(|(i, y)| Part { w, x, first_row: i * PANEL_ROWS, y }));
        }
        let table = self.table;
        self.team.each(&mut parts, |part| SPACE.with_borrow_mut(|space| part.run(table, space)));
    }
}

impl Part<'_> {
    fn run(&mut self, table: &Table, space: &mut Space) {
        let (rows, groups) = (self.y.ncols(), self.x.tiles.groups);
        // One more than a row has, so that rows do not all compete for the same cache sets.
        let stride = groups + 1;
        if space.panel.len() < rows * stride {
            space.panel.resize(rows * stride, Lane::ZERO);
        }
        for (r, row) in space.panel.chunks_exact_mut(stride).take(rows).enumerate() {
            let row = flat_mut(&mut row[..groups]);
            row[self.w.cols()..].fill(0.0);
            let bytes = self.w.row_bytes(self.first_row + r);
            if let Err(error) = self.w.encoding().decode(bytes, &mut row[..self.w.cols()]) {
                unreachable!("a row's bytes were measured when the matrix was made: {error}");
            }
        }
        let panel = Panel { lanes: &space.panel, stride };
        (table.product)(&panel, &self.x.tiles, &mut self.y, &mut space.sums);
    }
}

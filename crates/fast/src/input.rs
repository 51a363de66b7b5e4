//! Activations made ready to be multiplied by matrices: once for all that share them.

use model::Tiling;
use ndarray::ArrayView2;

use crate::kernels::lane::{LANES, Lane, flat_mut};
use crate::kernels::tile::Interleaved;

/// The rows that enter one or more matrices.
pub(crate) struct Input {
    /// Columns of the matrices that these rows fit.
    pub width: usize,
    pub tiles: Interleaved,
}

impl Input {
    /// Rows in canonical order; `tiling` is how the matrices' columns are stored.
    pub(crate) fn new(x: ArrayView2<'_, f32>, tiling: Option<Tiling>, tile_tokens: usize) -> Input {
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
        Input { width, tiles: Interleaved::new(&lanes, groups, tile_tokens) }
    }
}

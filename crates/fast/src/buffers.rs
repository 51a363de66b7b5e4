//! Memory of activations, used again from operation to operation: fresh pages cost more than the arithmetic on them.

use std::sync::Mutex;

use ndarray::Array2;

use crate::kernels::fixed::TokenTile;

/// Buffers that nothing uses at the moment.
#[derive(Default)]
pub(crate) struct Buffers {
    rows: Mutex<Vec<Vec<f32>>>,
    tiles: Mutex<Vec<Vec<TokenTile>>>,
}

/// More than an operation ever holds at a time; what comes back beyond is freed.
const KEPT: usize = 16;

/// The smallest buffer that is large enough, so that small needs do not hold large buffers. Where there is none, the largest
/// that is too small is freed in exchange: there are never more than an operation holds at a time.
fn take<T>(free: &Mutex<Vec<Vec<T>>>, len: usize) -> Vec<T> {
    let mut free = free.lock().unwrap_or_else(|e| e.into_inner());
    let fits = |i: &usize| (len..=4 * len + 4096).contains(&free[*i].capacity());
    let best = (0..free.len()).filter(fits).min_by_key(|&i| free[i].capacity());
    if let Some(i) = best {
        return free.swap_remove(i);
    }
    let small = (0..free.len()).filter(|&i| free[i].capacity() < len);
    if let Some(i) = small.max_by_key(|&i| free[i].capacity()) {
        free.swap_remove(i);
    }
    Vec::new()
}

fn give<T>(free: &Mutex<Vec<Vec<T>>>, buffer: Vec<T>) {
    let mut free = free.lock().unwrap_or_else(|e| e.into_inner());
    if free.len() == KEPT {
        free.remove(0);
    }
    free.push(buffer);
}

impl Buffers {
    /// `[rows, width]` of whatever was there before: for those who write every element.
    pub(crate) fn rows(&self, rows: usize, width: usize) -> Array2<f32> {
        let len = rows * width;
        let mut buffer = take(&self.rows, len);
        buffer.resize(len, 0.0);
        Array2::from_shape_vec((rows, width), buffer).expect("the buffer has this length")
    }

    /// Takes a buffer back.
    pub(crate) fn recycle(&self, rows: Array2<f32>) {
        give(&self.rows, rows.into_raw_vec_and_offset().0);
    }

    /// Tiles of whatever was there before.
    pub(crate) fn tiles(&self, count: usize) -> Vec<TokenTile> {
        let mut tiles = take(&self.tiles, count);
        tiles.resize(count, TokenTile::ZERO);
        tiles
    }

    /// Takes tiles back.
    pub(crate) fn recycle_tiles(&self, tiles: Vec<TokenTile>) {
        give(&self.tiles, tiles);
    }
}

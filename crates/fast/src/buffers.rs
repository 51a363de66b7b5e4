//! Memory of activations, used again from operation to operation: fresh pages cost more than the arithmetic on them.

use std::sync::Mutex;

use ndarray::Array2;

/// Buffers that nothing uses at the moment.
#[derive(Default)]
pub(crate) struct Buffers(Mutex<Vec<Vec<f32>>>);

/// More than an operation ever holds at a time; what comes back beyond is freed.
const KEPT: usize = 16;

impl Buffers {
    /// `[rows, width]` of whatever was there before: for those who write every element.
    pub(crate) fn rows(&self, rows: usize, width: usize) -> Array2<f32> {
        let len = rows * width;
        let mut free = self.0.lock().unwrap_or_else(|e| e.into_inner());
        // The smallest that is large enough, so that small rows do not hold large buffers.
        let fits = |i: &usize| (len..=4 * len + 4096).contains(&free[*i].capacity());
        let best = (0..free.len()).filter(fits).min_by_key(|&i| free[i].capacity());
        let mut buffer = match best {
            Some(i) => free.swap_remove(i),
            None => {
                // In exchange for the largest that is too small: there are never more than an operation holds at a time.
                let small = (0..free.len()).filter(|&i| free[i].capacity() < len);
                let small = small.max_by_key(|&i| free[i].capacity());
                small.into_iter().for_each(|i| drop(free.swap_remove(i)));
                Vec::new()
            }
        };
        drop(free);
        buffer.resize(len, 0.0);
        Array2::from_shape_vec((rows, width), buffer).expect("the buffer has this length")
    }

    /// Takes a buffer back.
    pub(crate) fn recycle(&self, rows: Array2<f32>) {
        let mut free = self.0.lock().unwrap_or_else(|e| e.into_inner());
        if free.len() == KEPT {
            free.remove(0);
        }
        free.push(rows.into_raw_vec_and_offset().0);
    }
}

//! A weight matrix as it lies in the file, read by rows in canonical order.

use codec::Encoding;

use crate::step::Tiling;

/// A matrix over borrowed bytes. Rows come out in canonical form; nothing is widened until a row is asked for.
#[derive(Clone, Debug)]
pub struct Matrix<'a> {
    bytes: &'a [u8],
    encoding: Encoding,
    rows: usize,
    cols: usize,
    row_bytes: usize,
    row_tiling: Option<Tiling>,
    col_tiling: Option<Tiling>,
}

impl<'a> Matrix<'a> {
    /// `rows × cols` values of `encoding`, exactly filling `bytes`. `None` if they do not, or if a row is no
    /// whole number of blocks.
    pub fn new(bytes: &'a [u8], encoding: Encoding, rows: usize, cols: usize) -> Option<Matrix<'a>> {
        let row_bytes = usize::try_from(encoding.byte_len(cols as u64)?).ok()?;
        (row_bytes.checked_mul(rows)? == bytes.len()).then_some(Matrix {
            bytes,
            encoding,
            rows,
            cols,
            row_bytes,
            row_tiling: None,
            col_tiling: None,
        })
    }

    /// The same matrix, whose stored axis 0 or 1 is in tiled order.
    pub fn untiled(mut self, axis: usize, tiling: Option<Tiling>) -> Matrix<'a> {
        match axis {
            0 => self.row_tiling = tiling,
            _ => self.col_tiling = tiling,
        }
        self
    }

    /// Output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// How the file encodes it.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The encoded bytes of canonical row `row`; its columns lie in stored order, see [`Matrix::col_tiling`].
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row_bytes(&self, row: usize) -> &'a [u8] {
        assert!(row < self.rows);
        let stored = self.row_tiling.map_or(row, |t| t.stored(row));
        &self.bytes[stored * self.row_bytes..][..self.row_bytes]
    }

    /// How stored columns are tiled, if they are.
    pub fn col_tiling(&self) -> Option<Tiling> {
        self.col_tiling
    }

    /// Decodes canonical row `row` into `out`, `[cols]`. `scratch` is working space, of any length.
    ///
    /// # Panics
    /// If `row` or the length of `out` is not this matrix's.
    pub fn row(&self, row: usize, out: &mut [f32], scratch: &mut Vec<f32>) {
        assert!(out.len() == self.cols);
        let bytes = self.row_bytes(row);
        let Some(tiling) = self.col_tiling else { return self.decode(bytes, out) };
        scratch.resize(self.cols, 0.0);
        self.decode(bytes, scratch);
        for (i, run) in out.chunks_exact_mut(tiling.run()).enumerate() {
            run.copy_from_slice(&scratch[tiling.stored(i * tiling.run())..][..tiling.run()]);
        }
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        if let Err(error) = self.encoding.decode(bytes, out) {
            unreachable!("a row's bytes were measured when the matrix was made: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_bytes_that_do_not_fit() {
        let bytes = [0u8; 34 * 6];
        assert!(Matrix::new(&bytes, Encoding::Q8_0, 3, 64).is_some());
        assert!(Matrix::new(&bytes, Encoding::Q8_0, 2, 64).is_none());
        assert!(Matrix::new(&bytes, Encoding::Q8_0, 6, 33).is_none());
        assert!(Matrix::new(&bytes, Encoding::F32, usize::MAX, 4).is_none());
    }
}

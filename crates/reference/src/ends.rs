//! The two ends of the model: tokens to embeddings, hidden states to logits.

use std::sync::{Mutex, PoisonError};

use ndarray::{Array1, Array2, ArrayViewMut2, Axis, Slice};

use crate::error::Error;
use crate::forward::{Logits, Model};
use crate::linear::zeros;
use crate::points::Points;
use crate::precision::{Kept, Precision};

/// Tokens whose logits are held at a time: 128 rows of a 248,320-word vocabulary are 127 MB in f32.
const HEAD_TOKENS: usize = 128;

/// Space for logits that one call leaves for the next: fresh memory of this size would take longer to get than to fill.
#[derive(Default)]
pub(crate) struct LogitsSpace(Mutex<Vec<f32>>);

impl LogitsSpace {
    pub(crate) fn take(&self) -> Vec<f32> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn keep(&self, space: Vec<f32>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = space;
    }
}

impl Model<'_> {
    /// Rows of the embedding: `[T] → [T, D]`.
    pub(crate) fn embed(&self, tokens: &[u32]) -> Result<Array2<f64>, Error> {
        let table = &self.weights.embed_tokens;
        if tokens.is_empty() {
            return Err(Error::Empty);
        }
        let mut x = Array2::zeros((tokens.len(), table.cols()));
        let (mut row, mut scratch) = (vec![0f32; table.cols()], Vec::new());
        for (position, (&token, mut x)) in tokens.iter().zip(x.outer_iter_mut()).enumerate() {
            if token as usize >= table.rows() {
                return Err(Error::Token { position, token, vocab_size: table.rows() });
            }
            table.row(token as usize, &mut row, &mut scratch);
            x.iter_mut().zip(&row).for_each(|(x, &w)| *x = f64::from(w));
        }
        Ok(x)
    }

    /// `[T, D] → [vocab]` of the last token; those of all tokens go to the tap if it wants them. With
    /// [`Logits::Last`] the tap gets `[1, vocab]`, each call's replacing the one before.
    pub(crate) fn head(
        &self,
        h: &Array2<f64>,
        logits: Logits,
        points: &mut Points,
    ) -> Result<Array1<f64>, Error> {
        match self.ops.precision {
            Precision::F32 => self.head_kept::<f32>(h, logits, points),
            Precision::F64 => self.head_kept::<f64>(h, logits, points),
        }
    }

    fn head_kept<T: Kept>(
        &self,
        h: &Array2<f64>,
        logits: Logits,
        points: &mut Points,
    ) -> Result<Array1<f64>, Error> {
        let head = self.weights.lm_head.as_ref().unwrap_or(&self.weights.embed_tokens);
        let tokens = h.nrows();
        let all = logits == Logits::All && points.wants("lm_head");
        let mut last = Array1::zeros(0);
        let first = if all { 0 } else { tokens - 1 };
        let mut space = T::take(&self.logits);
        for start in (first..tokens).step_by(HEAD_TOKENS) {
            let end = tokens.min(start + HEAD_TOKENS);
            let h = h.slice_axis(Axis(0), Slice::from(start..end)).to_owned();
            let shape = (h.nrows(), head.rows());
            if space.len() < shape.0 * shape.1 {
                space = zeros(shape.0 * shape.1);
            }
            let y = &mut space[..shape.0 * shape.1];
            let mut y = ArrayViewMut2::from_shape(shape, y).expect("as many as that"); // [≤ HEAD_TOKENS, vocab]
            self.ops.linear_into(&self.ops.pack(&h), head, y.view_mut());
            match logits {
                Logits::All => points.record_rows("lm_head", &y)?,
                Logits::Last => {
                    points.state("lm_head", &[1, y.ncols()], || y.iter().map(|y| y.wide()).collect())?
                }
            }
            last = y.row(y.nrows() - 1).mapv(Kept::wide);
        }
        T::keep(&self.logits, space);
        Ok(last)
    }
}

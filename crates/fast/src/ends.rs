//! The two ends of the model: tokens to embeddings, hidden states to logits.

use ndarray::{Array2, Axis, Slice};
use trace::{Extent, Tap};

use crate::error::Error;
use crate::forward::{Logits, Model, Rows};
use crate::input::Input;
use crate::points::{Points, slice};

/// Tokens whose logits are held at a time: 64 rows of a 248,320-word vocabulary are 64 MB.
const HEAD_TOKENS: usize = 64;

impl Model<'_> {
    /// What comes before the layers: the embedding, `[T] → [T, D]`.
    ///
    /// # Errors
    /// No tokens, a token that is out of range, or a tap that fails.
    pub fn enter(&self, tokens: &[u32], tap: &mut dyn Tap) -> Result<Array2<f32>, Error> {
        self.check(tokens)?;
        let x = self.embed(tokens);
        Points::new(tap, "model.".into()).rows("embed_tokens", &x)?;
        Ok(x)
    }

    /// What comes after them: the final norm and the head, `[T, D] → [vocab]` of the last token.
    ///
    /// # Errors
    /// A tap that fails.
    pub fn leave(&self, x: &Array2<f32>, logits: Logits, tap: &mut dyn Tap) -> Result<Vec<f32>, Error> {
        let h = self.norm(x, &self.weights.norm); // [T, D]
        Points::new(tap, "model.".into()).rows("norm", &h)?;
        self.head(&h, logits, &mut Points::new(tap, String::new()))
    }

    pub(crate) fn check(&self, tokens: &[u32]) -> Result<(), Error> {
        if tokens.is_empty() {
            return Err(Error::Empty);
        }
        let vocab_size = self.weights.embed_tokens.rows();
        match tokens.iter().position(|&token| token as usize >= vocab_size) {
            Some(position) => Err(Error::Token { position, token: tokens[position], vocab_size }),
            None => Ok(()),
        }
    }

    /// Rows of the embedding: `[T] → [T, D]`.
    pub(crate) fn embed(&self, tokens: &[u32]) -> Rows {
        let table = &self.weights.embed_tokens;
        let mut x = self.buffers.rows(tokens.len(), table.cols());
        self.each_row(&mut x, |t, x| table.row(tokens[t] as usize, x, &mut Vec::new()));
        x
    }

    /// `[T, D] → [vocab]` of the last token; those of all tokens go to the tap if it wants them. With
    /// [`Logits::Last`] the tap gets `[1, vocab]`, each call's replacing the one before.
    pub(crate) fn head(&self, h: &Rows, logits: Logits, points: &mut Points) -> Result<Vec<f32>, Error> {
        let head = self.weights.lm_head.as_ref().unwrap_or(&self.weights.embed_tokens);
        let tokens = h.nrows();
        let all = logits == Logits::All && points.wants("lm_head");
        let mut last = Vec::new();
        let first = if all { 0 } else { tokens - 1 };
        for start in (first..tokens).step_by(HEAD_TOKENS) {
            let end = tokens.min(start + HEAD_TOKENS);
            let h = h.slice_axis(Axis(0), Slice::from(start..end));
            let y = self
                .linear(&Input::new(h, tokens - first, head.col_tiling(), self.table, &self.buffers), head); // [≤ HEAD_TOKENS, vocab]
            match logits {
                Logits::All => points.rows("lm_head", &y)?,
                Logits::Last => {
                    points.offer("lm_head", &[1, y.ncols()], Extent::State, || slice(&y).into())?
                }
            }
            last.clear();
            last.extend_from_slice(&slice(&y)[(y.nrows() - 1) * y.ncols()..]);
            self.buffers.recycle(y);
        }
        Ok(last)
    }
}

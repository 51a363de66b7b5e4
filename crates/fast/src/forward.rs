//! The forward pass, layer by layer. Letters of shapes are those of `docs/notation.md`.

use model::{Config, FeedForward, Matrix, Weights};
use ndarray::Array2;
use trace::Tap;

use crate::buffers::Buffers;
use crate::error::Error;
use crate::input::Input;
use crate::kernels::team::Team;
use crate::kernels::{Kernels, Table};
use crate::points::{Points, slice, slice_mut};
use crate::prepared::{Prepared, PreparedMixer};
use crate::rope::Rope;
use crate::state::{LayerState, State};

/// Activations, one row a token.
pub(crate) type Rows = Array2<f32>;

/// Which logits a pass computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logits {
    /// Of every token, if the tap wants them.
    All,
    /// Of the last token only.
    Last,
}

/// How to compute. None of it changes a bit.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Threads; as many as the processor has if not said.
    pub threads: Option<usize>,
    /// Instruction set.
    pub kernels: Kernels,
}

impl Default for Options {
    fn default() -> Options {
        Options { threads: None, kernels: Kernels::detect() }
    }
}

/// A model ready to run: its configuration, its weights where they lie, and threads to compute with.
pub struct Model<'w> {
    pub(crate) config: &'w Config,
    pub(crate) weights: Prepared<'w>,
    pub(crate) rope: Rope,
    pub(crate) table: &'static Table,
    pub(crate) team: Team,
    pub(crate) buffers: Buffers,
    kernels: Kernels,
}

/// Inner width up to which many tokens go together.
const NARROW: usize = 4096;

/// Tokens of a longer call that go through the layers together: of wide layers fewer, whose activations would take more
/// memory than opening the weights once for all of them is worth (4B: 256 tokens are 5 % quicker than 128, and take 20 MB
/// more). Experts see few of them anyway. A call is cut into the fewest pieces of equal length, so that none of them is short.
fn together(config: &Config) -> usize {
    match config.feed_forward {
        FeedForward::Dense { intermediate_size } if intermediate_size > NARROW => 128,
        _ => 512,
    }
}

impl<'w> Model<'w> {
    /// A model over weights in canonical form.
    pub fn new(config: &'w Config, weights: Weights<Matrix<'w>>, options: Options) -> Model<'w> {
        let threads =
            options.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        Model {
            config,
            weights: Prepared::new(weights),
            rope: Rope::new(config.rotary_dim, config.rope_theta),
            table: options.kernels.table(),
            team: Team::new(threads),
            buffers: Buffers::default(),
            kernels: options.kernels,
        }
    }

    /// Its configuration.
    pub fn config(&self) -> &Config {
        self.config
    }

    /// The instruction set that it computes with.
    pub fn kernels(&self) -> Kernels {
        self.kernels
    }

    /// The threads that it computes with.
    pub fn threads(&self) -> usize {
        self.team.threads()
    }

    /// Runs `tokens` after all that `state` has seen, and returns the last token's logits, `[vocab]`.
    ///
    /// # Errors
    /// No tokens, a token that is out of range, a state of another model, or a tap that fails; but for the first two,
    /// `state` is then not to be used again.
    pub fn forward(
        &self,
        tokens: &[u32],
        state: &mut State,
        logits: Logits,
        tap: &mut dyn Tap,
    ) -> Result<Vec<f32>, Error> {
        self.check(tokens)?;
        let pieces = tokens.len().div_ceil(together(self.config));
        let mut last = Vec::new();
        for piece in 0..pieces {
            let range = tokens.len() * piece / pieces..tokens.len() * (piece + 1) / pieces;
            let mut x = self.embed(&tokens[range]); // [T, D]
            Points::new(tap, "model.".into()).rows("embed_tokens", &x)?;
            for l in 0..self.weights.layers.len() {
                x = self.block(l, x, state, tap)?; // [T, D]
            }
            state.advance(x.nrows());
            let h = self.norm(&x, &self.weights.norm); // [T, D]
            self.buffers.recycle(x);
            Points::new(tap, "model.".into()).rows("norm", &h)?;
            if logits == Logits::All || piece + 1 == pieces {
                last = self.head(&h, logits, &mut Points::new(tap, String::new()))?; // [vocab]
            }
            self.buffers.recycle(h);
        }
        Ok(last)
    }

    /// Layer `l` alone: `[T, D] → [T, D]`. It moves on its own part of `state`, not the position.
    ///
    /// # Errors
    /// A state of another model, or a tap that fails.
    pub fn block(
        &self,
        l: usize,
        x: Array2<f32>,
        state: &mut State,
        tap: &mut dyn Tap,
    ) -> Result<Array2<f32>, Error> {
        let w = &self.weights.layers[l];
        let mut at = Points::new(tap, format!("model.layers.{l}."));
        let h = self.norm(&x, &w.input_layernorm); // [T, D]
        at.rows("input_layernorm", &h)?;
        let mixed = match (&w.mixer, state.layers.get_mut(l)) {
            (PreparedMixer::DeltaNet(w), Some(LayerState::DeltaNet(s))) => {
                self.delta_net(w, h, s, &mut at)? // [T, D]
            }
            (PreparedMixer::Attention(w), Some(LayerState::Attention(s))) => {
                self.attention(w, h, s, &mut at)? // [T, D]
            }
            _ => return Err(Error::State(format!("layer {l} is of another kind than the model's"))),
        };
        let x = self.add(x, mixed); // [T, D]
        at.rows("attn_residual", &x)?;
        let h = self.norm(&x, &w.post_attention_layernorm); // [T, D]
        at.rows("post_attention_layernorm", &h)?;
        let y = self.ffn(&w.mlp, h, &mut at)?; // [T, D]
        at.rows("mlp", &y)?;
        let x = self.add(x, y); // [T, D]
        Points::new(tap, "model.layers.".into()).rows(&l.to_string(), &x)?;
        Ok(x)
    }

    /// RMSNorm of every row.
    pub(crate) fn norm(&self, x: &Rows, gain: &[f32]) -> Rows {
        let (width, eps) = (x.ncols(), self.config.rms_norm_eps);
        let mut y = self.buffers.rows(x.nrows(), width);
        self.each_row(&mut y, |t, y| (self.table.rms_norm)(&slice(x)[t * width..][..width], gain, eps, y));
        y
    }

    /// The residual stream takes a branch in.
    fn add(&self, x: Rows, branch: Rows) -> Rows {
        let width = x.ncols();
        let mut y = self.buffers.rows(x.nrows(), width);
        self.each_row(&mut y, |t, y| {
            let row = t * width..(t + 1) * width;
            (self.table.add)(&slice(&x)[row.clone()], &slice(&branch)[row], y);
        });
        self.buffers.recycle(x);
        self.buffers.recycle(branch);
        y
    }

    /// `work(token, row)` on every row; a single one is not worth another thread.
    pub(crate) fn each_row(&self, rows: &mut Rows, work: impl Fn(usize, &mut [f32]) + Sync) {
        let width = rows.ncols();
        let mut rows: Vec<_> = slice_mut(rows).chunks_exact_mut(width).enumerate().collect();
        self.team.each(&mut rows, |(t, row)| work(*t, row));
    }

    /// `x` times one matrix, as the pass does it: `[T, K] → [T, N]`. To measure and to judge a kernel alone.
    ///
    /// # Panics
    /// `x` has another width than the matrix.
    pub fn product(&self, x: &Array2<f32>, w: &Matrix<'_>) -> Array2<f32> {
        assert!(x.ncols() == w.cols(), "shapes agree");
        self.linear(&self.input(x, w), w)
    }

    /// Rows made ready for matrices whose columns are stored as `w`'s are.
    pub(crate) fn input<'x>(&'x self, x: &'x Rows, w: &Matrix<'_>) -> Input<'x> {
        self.input_of_call(x, w, x.nrows())
    }

    /// The same for some rows of a call: how many tokens that has decides how they are multiplied, so that a token's bits
    /// do not depend on who else chose its expert.
    pub(crate) fn input_of_call<'x>(&'x self, x: &'x Rows, w: &Matrix<'_>, call: usize) -> Input<'x> {
        Input::new(x.view(), call, w.col_tiling(), self.table, &self.buffers)
    }
}

//! A pass driven layer by layer, so that each can be given another's input.

use model::Config;
use ndarray::Array2;
use reference::{Logits, Model, State};
use trace::Tap;

use crate::Error;

/// A listener that may be called from the threads of a pass.
pub(crate) type Listener<'t> = &'t mut (dyn Tap + Send);

/// One pass over a text. Activations are `[T, D]`, flat, of the tokens of one call; what earlier calls left behind it
/// keeps itself.
pub(crate) trait Layered: Send {
    /// The embedding.
    fn enter(&mut self, tokens: &[u32], tap: Listener<'_>) -> Result<Vec<f64>, Error>;

    /// Layer `l` alone.
    fn block(&mut self, l: usize, x: &[f64], tap: Listener<'_>) -> Result<Vec<f64>, Error>;

    /// The final norm and the head, logits of every token to the tap.
    fn leave(&mut self, x: &[f64], tap: Listener<'_>) -> Result<(), Error>;

    /// Moves past the tokens of a call.
    fn advance(&mut self, tokens: usize);
}

/// The fast engine's.
pub(crate) struct Quick<'w> {
    pub(crate) model: fast::Model<'w>,
    pub(crate) state: fast::State,
}

impl<'w> Quick<'w> {
    pub(crate) fn new(model: fast::Model<'w>, config: &Config) -> Quick<'w> {
        Quick { model, state: fast::State::new(config) }
    }

    /// What the reference hands on is rounded to f32: nothing is lost.
    fn rows(&self, x: &[f64]) -> Array2<f32> {
        let width = self.model.config().hidden_size;
        let x = x.iter().map(|&x| x as f32).collect();
        Array2::from_shape_vec((Vec::len(&x) / width, width), x).expect("whole rows of activations")
    }
}

impl Layered for Quick<'_> {
    fn enter(&mut self, tokens: &[u32], tap: Listener<'_>) -> Result<Vec<f64>, Error> {
        Ok(self.model.enter(tokens, tap)?.into_iter().map(f64::from).collect())
    }

    fn block(&mut self, l: usize, x: &[f64], tap: Listener<'_>) -> Result<Vec<f64>, Error> {
        let x = self.rows(x);
        Ok(self.model.block(l, x, &mut self.state, tap)?.into_iter().map(f64::from).collect())
    }

    fn leave(&mut self, x: &[f64], tap: Listener<'_>) -> Result<(), Error> {
        self.model.leave(&self.rows(x), fast::Logits::All, tap)?;
        Ok(())
    }

    fn advance(&mut self, tokens: usize) {
        self.state.advance(tokens);
    }
}

/// The reference's.
pub(crate) struct Exact<'w> {
    pub(crate) model: Model<'w>,
    pub(crate) state: State,
}

impl<'w> Exact<'w> {
    pub(crate) fn new(model: Model<'w>, config: &Config) -> Exact<'w> {
        Exact { model, state: State::new(config) }
    }

    fn rows(&self, x: &[f64]) -> Array2<f64> {
        let width = self.model.config().hidden_size;
        Array2::from_shape_vec((x.len() / width, width), x.to_vec()).expect("whole rows of activations")
    }
}

impl Layered for Exact<'_> {
    fn enter(&mut self, tokens: &[u32], tap: Listener<'_>) -> Result<Vec<f64>, Error> {
        Ok(self.model.enter(tokens, tap)?.into_iter().collect())
    }

    fn block(&mut self, l: usize, x: &[f64], tap: Listener<'_>) -> Result<Vec<f64>, Error> {
        let x = self.rows(x);
        Ok(self.model.block(l, x, &mut self.state, tap)?.into_iter().collect())
    }

    fn leave(&mut self, x: &[f64], tap: Listener<'_>) -> Result<(), Error> {
        self.model.leave(&self.rows(x), Logits::All, tap)?;
        Ok(())
    }

    fn advance(&mut self, tokens: usize) {
        self.state.advance(tokens);
    }
}

//! Computes the forward pass exactly.
//!
//! [`Model::forward`] reads top to bottom like the paper. Everything inside an operation is f64; what passes from one
//! operation to the next is rounded to f32 or not at all ([`Precision`]). The result has the same bits on every
//! processor, for any number of threads, in one call or token by token: `docs/contract.md` says why.
#![forbid(unsafe_code)]

mod attention;
mod delta;
mod dot;
mod ends;
mod error;
mod exact;
mod forward;
pub mod ggml;
mod kernels;
mod lanes;
mod linear;
mod math;
mod moe;
mod norm;
mod ops;
mod points;
mod precision;
mod rope;
mod state;

pub use dot::dot;
pub use error::Error;
pub use forward::{Logits, Model};
pub use ggml::Activations;
pub use kernels::Kernels;
pub use points::{PointShape, points};
pub use precision::Precision;
pub use state::State;

use model::{Config, Matrix, Weights};

/// What every report of the reference says it is: operations, forms and order, versioned. See `docs/contract.md`.
pub const CONTRACT: &str = "etalon-reference/2";

impl<'w> Model<'w> {
    /// A model over weights in canonical form, computing with the fastest kernels of this processor.
    pub fn new(config: &'w Config, weights: Weights<Matrix<'w>>, precision: Precision) -> Model<'w> {
        let ops = ops::Ops { kernels: Kernels::detect(), precision, activations: Activations::F32 };
        Model { config, weights, ops, logits: Default::default() }
    }

    /// The same model on other kernels. They change no bit; tests run them all.
    pub fn with_kernels(mut self, kernels: Kernels) -> Model<'w> {
        self.ops.kernels = kernels;
        self
    }

    /// The same model with other inner products: [`Activations::Q8`] makes it the second oracle.
    ///
    /// # Errors
    /// A matrix that ggml has no inner product for, or a precision other than f32, the only one that ggml has.
    pub fn with_activations(mut self, activations: Activations) -> Result<Model<'w>, Error> {
        if activations == Activations::Q8 {
            if self.ops.precision != Precision::F32 {
                return Err(Error::Precision);
            }
            ggml::check(&self.weights)?;
        }
        self.ops.activations = activations;
        Ok(self)
    }

    /// Its configuration.
    pub fn config(&self) -> &Config {
        self.config
    }

    /// To what it rounds.
    pub fn precision(&self) -> Precision {
        self.ops.precision
    }
}

//! Computes the forward pass on encoded weights, quickly.
//!
//! [`Model`] has the calls of the reference's, with f32 activations. Weights stay as they lie in the file: a row is decoded
//! in registers and multiplied at once, or once for many tokens. What it promises about bits is in
//! `docs/contract.md`; the reference judges it, and they share the model's description and no arithmetic.
#![deny(unsafe_code)]

mod attention;
mod buffers;
mod delta_net;
mod ends;
mod error;
mod ffn;
mod forward;
mod input;
#[allow(unsafe_code)]
mod kernels;
mod linear;
mod points;
mod prepared;
mod rope;
mod state;

pub use error::Error;
pub use forward::{Logits, Model, Options};
pub use kernels::Kernels;
pub use state::{Kv, State};

/// What every report of the fast path says it is. See `docs/contract.md`.
pub const CONTRACT: &str = "etalon-fast/3";

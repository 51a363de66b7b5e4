//! Says what a Qwen3.5 checkpoint holds and how each tensor maps to canonical form.
//!
//! [`Checkpoint::open`] reads a Hugging Face directory or a GGUF file into a [`Config`], a [`Layout`] that
//! accounts for every tensor, and [`Weights`] in canonical form: HF axis order, HF head order, values as the
//! arithmetic consumes them. The layout map itself is [`layout::ROWS`]: rows, not code.
#![forbid(unsafe_code)]

mod checkpoint;
mod config;
mod config_gguf;
mod config_json;
mod dim;
mod error;
mod finite;
pub mod layout;
mod matrix;
mod plan;
mod resolve;
mod step;
pub mod tokenizer;
pub mod weights;

pub use checkpoint::{Checkpoint, NonFinitePolicy, Purpose};
pub use config::{Config, FeedForward, LayerType};
pub use dim::Dim;
pub use error::{ConfigError, Error, NonFinite, Problem};
pub use matrix::Matrix;
pub use plan::{LayerPlan, plan};
pub use resolve::{Dialect, FP8_BLOCK, Layout, Place, Slot, Use, slots};
pub use step::{Step, Tiling};
pub use weights::Weights;

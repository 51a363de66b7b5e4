//! Rewrites checkpoints one tensor at a time.
//!
//! Weights come from a [`Source`] by rows in canonical order; a [`Target`] says which rows make a tensor of the file
//! to be, and [`pipeline::run`] makes its bytes. What a form does to a weight is read off the layout map, in either
//! direction, by [`Form`].
#![forbid(unsafe_code)]

mod directory;
mod error;
mod form;
pub mod gguf;
pub mod mock;
pub mod pipeline;
mod source;
mod stored;
mod target;
mod vocabulary;

pub use directory::Directory;
pub use error::Error;
pub use form::{Form, Held};
pub use mock::Mock;
pub use source::{Rows, Source};
pub use target::{Experts, Part, Target, targets};
pub use vocabulary::{Added, Vocabulary};

//! Rewrites checkpoints one tensor at a time.
//!
//! Weights come from a [`Source`] by rows in canonical order; a [`Target`] says which rows make a tensor of the file
//! to be, and [`pipeline::run`] makes its bytes. What a form does to a weight is read off the layout map, in either
//! direction, by [`Form`].
#![forbid(unsafe_code)]

mod as_llama_cpp;
mod card;
pub mod check;
mod digest;
mod directory;
mod error;
mod form;
mod general;
pub mod gguf;
mod hf_config;
pub mod mock;
mod naming;
mod own_input;
pub mod pipeline;
mod plan;
pub mod quantize;
mod receipt;
mod source;
mod sources;
mod stored;
mod target;
mod to_gguf;
mod to_hf;
mod vocabulary;

pub use digest::{Digest, Hash, Hashed, Hashing};
pub use directory::Directory;
pub use error::Error;
pub use form::{Form, Held};
pub use general::General;
pub use mock::Mock;
pub use naming::NameParts;
pub use own_input::refuse_own_input;
pub use plan::{Left, Mtp, Plan, Planned, Why};
pub use receipt::{Done, Receipt, Tool, Written};
pub use source::{Rows, Source, StoredRow};
pub use sources::files;
pub use target::{Experts, Part, Target, targets};
pub use to_gguf::{GgufOptions, ToGguf};
pub use to_hf::{HfOptions, ToHf};
pub use vocabulary::{Kind, Token, Vocabulary};

//! Holds named activations, compares two sets and says where they first part.
//!
//! A forward pass offers its intermediate values to a [`Tap`] under the names of [`point`]'s table. A tap may
//! keep them in memory ([`Collect`]) or do nothing at no cost ([`NoTap`]). A finished set is a [`Trace`].
#![forbid(unsafe_code)]

mod collect;
mod dtype;
mod entry;
mod error;
mod globs;
mod manifest;
mod npy;
mod npz;
mod output;
mod pack;
pub mod point;
mod recorder;
mod safetensors;
mod source;
mod tap;
mod tensor;
mod trace;

pub use collect::Collect;
pub use dtype::Dtype;
pub use error::{Error, Place};
pub use globs::{GlobError, Globs};
pub use manifest::{Manifest, ManifestPoint, ModelId, Producer};
pub use point::{LimitClass, PointKind};
pub use recorder::{Recorder, Recording, Stored};
pub use tap::{Extent, NoTap, Tap, TapError, View, ViewError};
pub use tensor::{Tensor, Values, ValuesRef};
pub use trace::{PointInfo, Trace};

//! Holds named activations, compares two sets and says where they first part.
//!
//! A forward pass offers its intermediate values to a [`Tap`] under the names of [`point`]'s table. A tap may
//! keep them in memory ([`Collect`]) or do nothing at no cost ([`NoTap`]). A finished set is a [`Trace`].
#![forbid(unsafe_code)]

mod collect;
mod error;
mod globs;
pub mod point;
mod tap;
mod tensor;
mod trace;

pub use collect::Collect;
pub use error::Error;
pub use globs::{GlobError, Globs};
pub use point::{LimitClass, PointKind};
pub use tap::{Extent, NoTap, Tap, TapError, View, ViewError};
pub use tensor::{Tensor, Values, ValuesRef};
pub use trace::{Dtype, PointInfo, Trace};

//! Holds named activations, compares two sets and says where they first part.
//!
//! A forward pass offers its intermediate values to a [`Tap`] under the names of [`point`]'s table. A tap may
//! keep them in memory ([`Collect`]) or do nothing at no cost ([`NoTap`]). A finished set is a [`Trace`].
#![forbid(unsafe_code)]

mod align;
mod choices;
mod collect;
mod compare;
mod compare_tap;
mod dtype;
mod entry;
mod error;
mod flow;
mod globs;
pub mod limits;
mod logits;
mod manifest;
mod measure;
mod npy;
mod npz;
mod output;
mod pack;
pub mod point;
mod precision;
mod recorder;
mod report;
mod safetensors;
mod source;
mod stats;
mod tap;
mod tensor;
mod trace;

pub use choices::{ChoiceDifference, ChoiceStats};
pub use collect::Collect;
pub use compare::{Settings, compare};
pub use compare_tap::{CompareTap, Role};
pub use dtype::Dtype;
pub use error::{Error, Place};
pub use globs::{GlobError, Globs};
pub use limits::{Limit, LimitError, Limits};
pub use logits::{Disagreement, LogitStats};
pub use manifest::{Manifest, ManifestPoint, ModelId, Producer};
pub use point::{LimitClass, PointKind};
pub use precision::Precision;
pub use recorder::{Recorder, Recording, Stored};
pub use report::{Divergence, PointReport, Report, Side, Verdict};
pub use stats::{Stats, Worst};
pub use tap::{Extent, NoTap, Tap, TapError, View, ViewError};
pub use tensor::{Tensor, Values, ValuesRef};
pub use trace::{PointInfo, Trace};

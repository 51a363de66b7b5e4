//! Holds named activations, compares two sets and says where they first part.
//!
//! A forward pass offers its intermediate values to a [`Tap`] under the names of [`point`]'s table. A tap may keep
//! them in memory ([`Collect`]), stream them to files ([`Recorder`]), compare them with a stored trace while the
//! pass runs ([`CompareTap`]) or do nothing at no cost ([`NoTap`]). A finished set is a [`Trace`]; [`compare`] sets
//! two side by side. Both ways of comparing end in a [`Report`].
//!
//! A trace on disk is a directory of `.npy` files with a `manifest.json` ([`Manifest`]), a `.npz` with the manifest
//! as one more member, or a `.safetensors` with the manifest in its metadata. All three may lack the manifest, so
//! that what numpy and PyTorch write is a trace as it stands; an array called `tokens` then holds the token ids.
//! Files come from elsewhere and are not trusted: nothing is allocated before the bytes for it are there.
#![forbid(unsafe_code)]

mod align;
mod beside;
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

pub use beside::{Beside, Piece};
pub use choices::{ChoiceDifference, ChoiceStats};
pub use collect::Collect;
pub use compare::{Settings, compare};
pub use compare_tap::{CompareTap, Role};
pub use dtype::Dtype;
pub use error::{Error, Place};
pub use globs::{GlobError, Globs};
pub use limits::{Limit, LimitError, Limits, Row};
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

//! Runs models to judge them.
//!
//! [`run`] drives the reference over a text in pieces, [`dump`] writes what it computes as a trace, and [`verify`]
//! holds it against a trace from elsewhere. Neither of the two keeps activations: they pass through a tap.
#![forbid(unsafe_code)]

mod dump;
mod error;
mod fingerprint;
mod progress;
mod run;
mod split;
mod verify;

pub use dump::{Dump, Dumped, Hash, dump};
pub use error::Error;
pub use fingerprint::fingerprint;
pub use progress::{Progress, Silent};
pub use run::{Run, run};
pub use split::Split;
pub use verify::{Verify, precision_for, verify};

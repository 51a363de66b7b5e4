//! Runs models to judge them.
//!
//! [`run`] drives the reference over a text in pieces, [`dump`] writes what it computes as a trace, and [`verify`]
//! holds it against a trace from elsewhere. Neither of the two keeps activations: they pass through a tap.
#![forbid(unsafe_code)]

mod bench;
mod chat;
mod dump;
mod ends;
mod engine;
mod error;
mod fingerprint;
mod generate;
mod growth;
mod layered;
mod memory;
mod oracles;
mod progress;
mod regression;
mod run;
mod sampler;
mod split;
mod stream;
mod teacher;
mod text;
mod ties;
pub mod tolerance;
mod verify;

pub use bench::{Bench, Benched, Load, Phase, Share, bench};
pub use chat::{Message, Template};
pub use dump::{Dump, Dumped, Hash, dump};
pub use ends::end_tokens;
pub use engine::{Engine, Loaded, kernels, ready, threads};
pub use error::Error;
pub use fast::Kv;
pub use fingerprint::fingerprint;
pub use generate::{Finish, Generate, Generated, Go, Likely, Made, generate};
pub use growth::Growth;
pub use oracles::{Identified, Identify, Match, Oracle, Parted, identify};
pub use progress::{Progress, Silent};
pub use regression::{Judged, Regressed, Regression, any_tokens, regression};
pub use run::{Run, run};
pub use sampler::{Sampling, largest};
pub use split::Split;
pub use stream::Stream;
pub use text::{Text, identity};
pub use ties::{Flip, NOISE, Tie, Top1};
pub use verify::{Verify, precision_for, verify};

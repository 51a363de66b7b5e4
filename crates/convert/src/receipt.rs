//! What a conversion did, to be kept beside what it made.

use std::path::PathBuf;

use serde::Serialize;

use crate::digest::{Digest, Hash, Hashed};
use crate::plan::{Left, Planned};

/// A conversion that was done.
#[derive(Clone, Debug, Serialize)]
pub struct Receipt {
    /// What did it.
    pub tool: Tool,
    /// What was converted: every file that was read.
    pub source: Vec<Hashed>,
    /// What came out.
    pub output: Vec<PathBuf>,
    /// What it holds.
    pub tensors: Vec<Written>,
    /// What of the source it does not hold.
    pub left: Vec<Left>,
    /// What should be known about it, one sentence each.
    pub notes: Vec<String>,
}

/// What came of a conversion.
#[derive(Clone, Debug)]
pub struct Done {
    /// The directory, the file, or the parts, the first of which opens the whole.
    pub output: Vec<PathBuf>,
    /// What was read, done and written, if that was asked for.
    pub receipt: Option<Receipt>,
}

/// The program.
#[derive(Clone, Debug, Serialize)]
pub struct Tool {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
}

impl Tool {
    /// This one.
    pub const ETALON: Tool = Tool { name: "etalon", version: env!("CARGO_PKG_VERSION") };
}

/// A tensor that was written.
#[derive(Clone, Debug, Serialize)]
pub struct Written {
    /// What was planned.
    #[serde(flatten)]
    pub planned: Planned,
    /// Of its bytes.
    #[serde(flatten)]
    pub hash: Hash,
}

impl Written {
    /// Planned tensors and their hashes, which come in the same order; one without bytes has no hash yet.
    pub(crate) fn all(planned: Vec<Planned>, hashes: Vec<(String, Hash)>, digest: Digest) -> Vec<Written> {
        let mut hashes = hashes.into_iter().peekable();
        let written = planned.into_iter().map(|planned| {
            let hash = match hashes.next_if(|(name, _)| *name == planned.name) {
                Some((_, hash)) => hash,
                None => digest.start().finish(),
            };
            Written { planned, hash }
        });
        written.collect()
    }
}

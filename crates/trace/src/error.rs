//! What can be wrong with a trace, by who is at fault.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a trace could not be read, written or compared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused: no permission, no such file, no space left.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file contradicts its format or itself.
    #[error("{place}: {fault}")]
    Malformed {
        /// File, and the member or field in it.
        place: Place,
        /// What was expected and what was found.
        fault: String,
    },
    /// The file is sound but holds something a trace cannot hold.
    #[error("{place}: {what}")]
    Unsupported {
        /// File, and the member or field in it.
        place: Place,
        /// What it is and what to do instead.
        what: String,
    },
    /// The output is there already.
    #[error("{} exists already; remove it, name another output or ask for it to be replaced", path.display())]
    Exists {
        /// The output asked for.
        path: PathBuf,
    },
    /// A point's name cannot be a file's name.
    #[error("`{name}` cannot name a point: {reason}")]
    Name {
        /// The refused name.
        name: String,
        /// Why.
        reason: &'static str,
    },
    /// The two sides ran on other tokens; nothing else can be compared.
    #[error("{}", tokens_differ(*position, *reference, *candidate))]
    TokensDiffer {
        /// The first position where they differ.
        position: usize,
        /// The reference's token there; `None` if it ends before.
        reference: Option<i64>,
        /// The candidate's token there; `None` if it ends before.
        candidate: Option<i64>,
    },
    /// No point is on both sides.
    #[error(
        "nothing was compared: no point is in both traces (reference: {}; candidate: {})",
        or_none(reference),
        or_none(candidate)
    )]
    NothingCompared {
        /// The first of the reference's points.
        reference: String,
        /// The first of the candidate's points.
        candidate: String,
    },
    /// The trace holds no such point.
    #[error("the trace holds no point `{name}`; it has {available} points")]
    NoSuchPoint {
        /// The name asked for.
        name: String,
        /// How many points it does hold.
        available: usize,
    },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Error {
        Error::Io { action, path: path.to_owned(), source }
    }
}

fn tokens_differ(position: usize, reference: Option<i64>, candidate: Option<i64>) -> String {
    let token = |token: Option<i64>| token.map_or("none".to_owned(), |t| t.to_string());
    format!(
        "the tokens differ at position {position}: the reference has {}, the candidate {}; record both on the same tokens",
        token(reference),
        token(candidate)
    )
}

fn or_none(names: &str) -> &str {
    if names.is_empty() { "none" } else { names }
}

/// A place in a file that an error speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file's path, or the label of bytes in memory.
    pub file: String,
    /// The member, tensor or field within it; empty for the file as a whole.
    pub part: String,
}

impl Place {
    pub(crate) fn file(label: &str) -> Place {
        Place { file: label.to_owned(), part: String::new() }
    }

    pub(crate) fn part(&self, part: &str) -> Place {
        Place { file: self.file.clone(), part: part.to_owned() }
    }

    pub(crate) fn malformed(&self, fault: impl Into<String>) -> Error {
        Error::Malformed { place: self.clone(), fault: fault.into() }
    }

    pub(crate) fn unsupported(&self, what: impl Into<String>) -> Error {
        Error::Unsupported { place: self.clone(), what: what.into() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.part.is_empty() { Ok(()) } else { write!(f, ", `{}`", self.part) }
    }
}

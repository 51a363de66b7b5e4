//! Why a checkpoint could not be read or written.

use std::io;
use std::path::PathBuf;

use crate::{WriteDefect, gguf, safetensors};

/// Why a checkpoint could not be read or written. Each says which file, and what to do where that is not plain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused: not found, no permission, no space.
    #[error("{}: cannot {action}: {source}", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was being done to it.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A zero-length file.
    #[error("{}: the file is empty (0 bytes); was its download or copy interrupted?", .path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A device, a socket, or a directory where a file is needed.
    #[error("{}: not a regular file", .path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The text file that Git leaves where a large file was not fetched.
    #[error(
        "{}: a Git LFS pointer, not the file itself{}; fetch it with `git lfs pull`",
        .path.display(),
        .size.map(|n| format!(" ({n} bytes)")).unwrap_or_default()
    )]
    LfsPointer {
        /// The pointer file.
        path: PathBuf,
        /// The size of the file it stands for, where it says so.
        size: Option<u64>,
    },
    /// Neither GGUF nor safetensors, by content and by name.
    #[error(
        "{}: neither GGUF (which begins with \"GGUF\") nor safetensors (8 bytes of header length, then \"{{\"); \
         it begins with {found:02x?}",
        .path.display()
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// Its first bytes, at most sixteen.
        found: Vec<u8>,
    },
    /// A directory without a checkpoint that can be opened.
    #[error(
        "{}: no model.safetensors and no model.safetensors.index.json in this directory{}",
        .path.display(),
        hint(.found)
    )]
    NoCheckpoint {
        /// The directory.
        path: PathBuf,
        /// What it holds instead that looks like weights, sorted.
        found: Vec<String>,
    },
    /// A safetensors file, or one shard, is not well-formed.
    #[error("{}: {defect}", .path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        defect: safetensors::Defect,
    },
    /// The index of a sharded checkpoint and its shards do not agree.
    #[error("{}: {defect}", .path.display())]
    Index {
        /// The index, or the shard at odds with the ones before it.
        path: PathBuf,
        /// What is wrong with it.
        defect: safetensors::IndexDefect,
    },
    /// A GGUF file is not well-formed.
    #[error("{}: {defect}", .path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        defect: gguf::Defect,
    },
    /// The parts of a split GGUF file do not belong together.
    #[error("{}: {defect}", .path.display())]
    Split {
        /// The part at fault.
        path: PathBuf,
        /// What is wrong with it.
        defect: gguf::SplitDefect,
    },
    /// A file cannot be changed as was asked for.
    #[error("{}: {defect}", .path.display())]
    Edit {
        /// The file.
        path: PathBuf,
        /// What is in the way.
        defect: gguf::EditDefect,
    },
    /// A file that is there and was not to be replaced.
    #[error("{}: exists already; remove it, write elsewhere, or ask for it to be replaced", .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A writer was given other bytes than were declared.
    #[error("{}: {defect}", .path.display())]
    Write {
        /// The file that was to be.
        path: PathBuf,
        /// What is wrong.
        defect: WriteDefect,
    },
}

fn hint(found: &[String]) -> String {
    match found {
        [] => String::new(),
        names if names.iter().all(|n| n.ends_with(".gguf")) => {
            format!("; to open a GGUF file name it: {}", names.join(", "))
        }
        names => format!("; it holds {}", names.join(", ")),
    }
}

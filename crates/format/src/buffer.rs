//! The bytes of one file: mapped, or owned where they had to be changed.
#![allow(unsafe_code)] // the one mapping call of the project

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

use crate::Error;

/// The bytes of one file.
pub(crate) enum Buffer {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl Buffer {
    /// Maps a file for reading. A zero-length file, a directory and a Git LFS pointer are errors that say so.
    pub(crate) fn map(path: &Path) -> Result<Buffer, Error> {
        let io = |action| move |source: io::Error| Error::Io { path: path.to_path_buf(), action, source };
        let file = File::open(path).map_err(io("open"))?;
        let meta = file.metadata().map_err(io("stat"))?;
        if !meta.is_file() {
            return Err(Error::NotAFile { path: path.to_path_buf() });
        }
        if meta.len() == 0 {
            return Err(Error::Empty { path: path.to_path_buf() });
        }
        // SAFETY: the mapping is private and read-only, so nothing here writes through it. What is left is that
        // another process may change or truncate the file meanwhile: every read of the mapping is bounds-checked
        // against the mapped length and nothing read from it is trusted without a check each time it is read, so a
        // change yields wrong values and never a broken invariant (a truncation stops the process with SIGBUS).
        let mapping = unsafe { Mmap::map(&file) }.map_err(io("map"))?;
        let buffer = Buffer::Mapped(mapping);
        match LfsPointer::parse(&buffer) {
            Some(pointer) => Err(Error::LfsPointer { path: path.to_path_buf(), size: pointer.size }),
            None => Ok(buffer),
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Buffer::Mapped(mapping) => mapping,
            Buffer::Owned(bytes) => bytes,
        }
    }
}

/// What Git leaves in place of a large file that was never fetched.
struct LfsPointer {
    size: Option<u64>,
}

impl LfsPointer {
    /// A pointer is a text of three lines, by its specification under 1024 bytes.
    fn parse(bytes: &[u8]) -> Option<LfsPointer> {
        if bytes.len() >= 1024 || !bytes.starts_with(b"version https://git-lfs") {
            return None;
        }
        let text = String::from_utf8_lossy(bytes);
        let size = text.lines().find_map(|line| line.strip_prefix("size ")?.trim().parse().ok());
        Some(LfsPointer { size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_file_is_named_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let text = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 4932307584\n";
        std::fs::write(&path, text).unwrap();
        match Buffer::map(&path) {
            Err(Error::LfsPointer { size, .. }) => assert_eq!(size, Some(4_932_307_584)),
            other => panic!("{:?}", other.err()),
        }
    }

    #[test]
    fn empty_files_directories_and_absent_files_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().join("empty");
        std::fs::write(&empty, "").unwrap();
        assert!(matches!(Buffer::map(&empty), Err(Error::Empty { .. })));
        assert!(matches!(Buffer::map(dir.path()), Err(Error::NotAFile { .. })));
        match Buffer::map(&dir.path().join("absent")) {
            Err(Error::Io { action, source, .. }) => {
                assert_eq!((action, source.kind()), ("open", io::ErrorKind::NotFound));
            }
            other => panic!("{:?}", other.err()),
        }
    }
}

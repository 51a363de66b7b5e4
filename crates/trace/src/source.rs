//! Bytes that several readers take pieces of, in any order.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::Error;
use crate::error::Place;

/// A file or a buffer of known length.
#[derive(Debug)]
pub(crate) struct Source {
    label: String,
    len: u64,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    Held(Mutex<File>),
    /// Opened anew for each read: a trace may have more files than a process may hold open.
    Reopened(PathBuf),
    Memory(Vec<u8>),
}

impl Source {
    /// A file that stays open.
    pub(crate) fn held(path: &Path) -> Result<Source, Error> {
        let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
        let len = file.metadata().map_err(|e| Error::io("read", path, e))?.len();
        Ok(Source { label: path.display().to_string(), len, bytes: Bytes::Held(Mutex::new(file)) })
    }

    /// A file that is opened for each read.
    pub(crate) fn reopened(path: &Path) -> Result<Source, Error> {
        let Source { label, len, .. } = Source::held(path)?;
        Ok(Source { label, len, bytes: Bytes::Reopened(path.to_owned()) })
    }

    /// Bytes in memory, called `label` in errors.
    pub(crate) fn memory(label: &str, bytes: Vec<u8>) -> Source {
        Source { label: label.to_owned(), len: bytes.len() as u64, bytes: Bytes::Memory(bytes) }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn place(&self) -> Place {
        Place::file(&self.label)
    }

    /// Reads at most `out.len()` bytes from `offset` on; 0 at the end.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        match &self.bytes {
            Bytes::Held(file) => {
                // Each read seeks first, so a panic elsewhere leaves nothing to distrust.
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(offset))?;
                file.read(out)
            }
            Bytes::Reopened(path) => {
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(offset))?;
                file.read(out)
            }
            Bytes::Memory(bytes) => {
                let rest = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
                let n = rest.len().min(out.len());
                out[..n].copy_from_slice(&rest[..n]);
                Ok(n)
            }
        }
    }

    /// The bytes `offset..offset + len`, which the caller has checked to lie within the source.
    pub(crate) fn bytes(self: &Arc<Self>, offset: u64, len: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        self.range(offset, len).read_to_end(&mut bytes).map_err(|e| self.fault(&e))?;
        if bytes.len() as u64 != len {
            return Err(self.fault(&io::Error::from(io::ErrorKind::UnexpectedEof)));
        }
        Ok(bytes)
    }

    /// A reader of `len` bytes from `offset` on.
    pub(crate) fn range(self: &Arc<Self>, offset: u64, len: u64) -> Range {
        Range { source: Arc::clone(self), at: offset, left: len }
    }

    fn fault(&self, error: &io::Error) -> Error {
        self.place().malformed(format!("cannot be read: {error}"))
    }
}

/// A sequential reader of a part of a [`Source`].
#[derive(Debug)]
pub(crate) struct Range {
    source: Arc<Source>,
    at: u64,
    left: u64,
}

impl Read for Range {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(out.len());
        if most == 0 {
            return Ok(0);
        }
        let n = self.source.read_at(self.at, &mut out[..most])?;
        self.at += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn all_kinds_read_the_same_ranges() {
        let data: Vec<u8> = (0..=99).collect();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&data).unwrap();
        let sources = [
            Source::held(file.path()).unwrap(),
            Source::reopened(file.path()).unwrap(),
            Source::memory("buffer", data.clone()),
        ];
        for source in sources.map(Arc::new) {
            assert_eq!(source.len(), 100);
            assert_eq!(source.bytes(10, 5).unwrap(), data[10..15]);
            assert_eq!(source.bytes(95, 5).unwrap(), data[95..]);
            assert!(source.bytes(95, 6).is_err());
            assert!(source.bytes(u64::MAX, 1).is_err());
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Source::held(Path::new("/no/such/file")).unwrap_err();
        assert!(error.to_string().starts_with("cannot open /no/such/file"), "{error}");
    }
}

//! A file that is being written: declared whole, filled tensor by tensor, there all at once or not at all.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::TempPath;

use crate::Error;
use crate::name_index::NameIndex;
use crate::temporary::{Claim, file_beside};

/// Bytes handed to the system at a time. Linux was measured to take up to twice as long for pieces of a megabyte, whose
/// pages it gets in larger and rarer units.
const BUFFER_BYTES: usize = 1 << 18;
/// The smallest page.
const PAGE_BYTES: usize = 1 << 12;

/// What to do about a file that is there already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Existing {
    /// Leave it alone and fail.
    Refuse,
    /// Put the new one in its place once that is complete.
    Replace,
}

/// What is wrong with the bytes that a writer was given.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteDefect {
    /// Bytes for a tensor that was never declared.
    #[error("tensor {tensor:?} was not declared")]
    Undeclared {
        /// The tensor.
        tensor: String,
    },
    /// More bytes than were declared.
    #[error("tensor {tensor:?}: declared {declared} bytes, {written} are written and {more} more were given")]
    TooLong {
        /// The tensor.
        tensor: String,
        /// Bytes that dtype and shape need.
        declared: u64,
        /// Bytes written so far.
        written: u64,
        /// Bytes given now.
        more: u64,
    },
    /// Fewer bytes than were declared, when the file was to be finished.
    #[error("tensor {tensor:?}: declared {declared} bytes, only {written} were written")]
    Incomplete {
        /// The tensor.
        tensor: String,
        /// Bytes that dtype and shape need.
        declared: u64,
        /// Bytes that were written.
        written: u64,
    },
    /// The system refused an earlier write, and what it had taken by then is not known.
    #[error("an earlier write failed")]
    Broken,
}

/// A place for a tensor in a file to be.
pub(crate) struct Slot {
    pub(crate) name: String,
    /// Bytes from the start of the file.
    pub(crate) start: u64,
    pub(crate) size: u64,
}

/// A temporary sibling of the file to be: written to in any order, renamed when complete, removed when dropped.
pub(crate) struct Output {
    path: PathBuf,
    existing: Existing,
    temporary: TempPath,
    /// Held even while the file is closed: nobody else is to clear it away.
    _claim: Claim,
    /// Open while it is written to, with the position it is at.
    open: Option<(BufWriter<File>, u64)>,
    slots: Vec<Slot>,
    /// Bytes of each slot that are there.
    written: Vec<u64>,
    index: NameIndex,
    /// Whether a write has failed.
    broken: bool,
}

impl Output {
    /// Starts a file of `len` bytes that begins with `header`; what no slot covers stays zero.
    ///
    /// Slots have names of their own and do not overlap.
    pub(crate) fn create(
        path: &Path,
        existing: Existing,
        header: &[u8],
        slots: Vec<Slot>,
        len: u64,
    ) -> Result<Output, Error> {
        if existing == Existing::Refuse && path.symlink_metadata().is_ok() {
            return Err(Error::Exists { path: path.to_path_buf() });
        }
        let io = |action| move |source| Error::Io { path: path.to_path_buf(), action, source };
        let (temporary, claim) = file_beside(path).map_err(io("create a temporary file beside it"))?;
        let (file, temporary) = temporary.into_parts();
        file.set_len(len).map_err(io("size"))?;
        let mut index = NameIndex::default();
        for (i, slot) in slots.iter().enumerate() {
            let fresh = index.insert(slot.name.as_bytes(), i, |i| slots[i].name.as_bytes());
            debug_assert!(fresh.is_ok(), "{:?} is declared twice", slot.name);
        }
        let written = vec![0; slots.len()];
        let open = Some((BufWriter::with_capacity(BUFFER_BYTES, file), 0));
        let path = path.to_path_buf();
        let mut output =
            Output { path, existing, temporary, _claim: claim, open, slots, written, index, broken: false };
        output.write_at(0, header)?;
        Ok(output)
    }

    /// Appends to what a tensor has so far.
    pub(crate) fn write(&mut self, tensor: &str, bytes: &[u8]) -> Result<(), Error> {
        let Some(i) = self.position(tensor) else {
            return Err(self.refuse(WriteDefect::Undeclared { tensor: tensor.to_owned() }));
        };
        let (slot, written, more) = (&self.slots[i], self.written[i], bytes.len() as u64);
        if more > slot.size - written {
            let declared = slot.size;
            return Err(self.refuse(WriteDefect::TooLong {
                tensor: tensor.to_owned(),
                declared,
                written,
                more,
            }));
        }
        self.write_at(slot.start + written, bytes)?;
        self.written[i] += more;
        Ok(())
    }

    /// Whether a tensor was declared.
    pub(crate) fn holds(&self, tensor: &str) -> bool {
        self.position(tensor).is_some()
    }

    /// Hands everything to the system and lets go of the file; writing opens it again.
    pub(crate) fn close(&mut self) -> Result<(), Error> {
        match self.open.take() {
            Some((mut file, _)) => file.flush().map_err(|e| self.failed(e)),
            None => Ok(()),
        }
    }

    /// Checks that every tensor is complete; the file can then only fail to be put in place.
    pub(crate) fn complete(&mut self) -> Result<(), Error> {
        if self.broken {
            return Err(self.refuse(WriteDefect::Broken));
        }
        for (slot, &written) in self.slots.iter().zip(&self.written) {
            if written != slot.size {
                let (tensor, declared) = (slot.name.clone(), slot.size);
                return Err(self.refuse(WriteDefect::Incomplete { tensor, declared, written }));
            }
        }
        self.close()
    }

    /// Gives a complete file its name, and returns it.
    pub(crate) fn put_in_place(self) -> Result<PathBuf, Error> {
        let Output { path, existing, temporary, .. } = self;
        let placed = match existing {
            Existing::Refuse => temporary.persist_noclobber(&path),
            Existing::Replace => temporary.persist(&path),
        };
        match placed.map_err(|e| e.error) {
            Ok(()) => Ok(path),
            Err(e) if existing == Existing::Refuse && e.kind() == io::ErrorKind::AlreadyExists => {
                Err(Error::Exists { path })
            }
            Err(source) => Err(Error::Io { path, action: "move the finished file there", source }),
        }
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> Result<(), Error> {
        let mut write = || {
            let (mut file, position) = match self.open.take() {
                Some(open) => open,
                None => {
                    let file = OpenOptions::new().write(true).open(&self.temporary)?;
                    (BufWriter::with_capacity(BUFFER_BYTES, file), 0)
                }
            };
            if position != at {
                file.seek(SeekFrom::Start(at))?;
            }
            for piece in bytes.chunks(BUFFER_BYTES) {
                page_in(piece);
                file.write_all(piece)?;
            }
            self.open = Some((file, at + bytes.len() as u64));
            Ok(())
        };
        write().map_err(|e| self.failed(e))
    }

    fn position(&self, tensor: &str) -> Option<usize> {
        self.index.find(tensor.as_bytes(), |i| self.slots[i].name.as_bytes())
    }

    fn refuse(&self, defect: WriteDefect) -> Error {
        Error::Write { path: self.path.clone(), defect }
    }

    fn failed(&mut self, source: io::Error) -> Error {
        self.broken = true;
        Error::Io { path: self.path.clone(), action: "write", source }
    }
}

/// Looks at every page. The system copies what is there, and starts a piece over where one of a mapping is not.
fn page_in(bytes: &[u8]) {
    std::hint::black_box(bytes.iter().step_by(PAGE_BYTES).fold(0, |seen, byte| seen ^ byte));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(path: &Path) -> Output {
        let slots = vec![Slot { name: "t".to_owned(), start: 4, size: 2 * BUFFER_BYTES as u64 }];
        Output::create(path, Existing::Refuse, b"head", slots, 4 + 2 * BUFFER_BYTES as u64).unwrap()
    }

    /// A file that cannot be written to stands for a full disk.
    #[test]
    fn a_failed_write_is_reported_and_cannot_be_finished_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m");
        let mut output = create(&path);
        output.close().unwrap();
        let unwritable = File::open(&output.temporary).unwrap();
        output.open = Some((BufWriter::with_capacity(1, unwritable), 0));
        let bytes = vec![0; BUFFER_BYTES];
        match output.write("t", &bytes) {
            Err(Error::Io { path: found, action: "write", .. }) => assert_eq!(found, path),
            other => panic!("{other:?}"),
        }
        output.write("t", &bytes).unwrap();
        output.write("t", &bytes).unwrap();
        match output.complete() {
            Err(Error::Write { defect, .. }) => assert_eq!(defect, WriteDefect::Broken),
            other => panic!("{other:?}"),
        }
        drop(output);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_closed_file_is_taken_up_where_it_was_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m");
        let mut output = create(&path);
        for fill in 0..4 {
            output.write("t", &vec![fill; BUFFER_BYTES / 2]).unwrap();
            output.close().unwrap();
        }
        output.complete().unwrap();
        assert_eq!(output.put_in_place().unwrap(), path);
        let written = std::fs::read(&path).unwrap();
        assert_eq!(&written[..4], b"head");
        let quarters: Vec<u8> = (0..4).flat_map(|fill| vec![fill; BUFFER_BYTES / 2]).collect();
        assert!(written[4..] == quarters);
    }
}

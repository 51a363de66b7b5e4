//! Files that belong together: filled tensor by tensor, there all at once or not at all.

use std::fs;
use std::ops::Range;
use std::path::PathBuf;

use crate::output::Output;
use crate::{Error, TensorSource, WriteDefect};

/// Bytes copied between two words about progress.
const COPY_BYTES: usize = 8 << 20;

/// One file of a draft as it would be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlannedFile {
    /// Where it will lie.
    pub path: PathBuf,
    /// Which of the draft's tensors it will hold.
    pub tensors: Range<usize>,
    /// Its length in bytes, keys included.
    pub bytes: u64,
}

/// One checkpoint's files while they are written. Only one of them is open at a time.
pub(crate) struct Outputs {
    files: Vec<Output>,
    /// The one that may be open.
    current: usize,
    /// What errors that concern no single file name.
    path: PathBuf,
}

impl Outputs {
    /// Files in the order in which they are to be put in place; `path` stands for them all.
    pub(crate) fn new(path: PathBuf, files: Vec<Output>) -> Outputs {
        Outputs { files, current: 0, path }
    }

    /// Appends to what a tensor has so far, in whichever file it was declared.
    pub(crate) fn write(&mut self, tensor: &str, bytes: &[u8]) -> Result<(), Error> {
        let holds = |file: &Output| file.holds(tensor);
        if !self.files.get(self.current).is_some_and(holds) {
            let Some(other) = self.files.iter().position(holds) else {
                let defect = WriteDefect::Undeclared { tensor: tensor.to_owned() };
                return Err(Error::Write { path: self.path.clone(), defect });
            };
            self.files[self.current].close()?;
            self.current = other;
        }
        self.files[self.current].write(tensor, bytes)
    }

    /// Writes every tensor of a checkpoint, and says now and then how many bytes of them are written.
    pub(crate) fn copy(
        &mut self,
        source: &dyn TensorSource,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), Error> {
        let mut done = 0;
        for info in source.tensors() {
            for piece in source.bytes(info).chunks(COPY_BYTES) {
                self.write(&info.name, piece)?;
                done += piece.len() as u64;
                progress(done);
            }
        }
        Ok(())
    }

    /// Checks that every tensor is complete and gives the files their names.
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        self.files.iter_mut().try_for_each(Output::complete)?;
        let mut placed: Vec<PathBuf> = Vec::new();
        for output in self.files {
            match output.put_in_place() {
                Ok(path) => placed.push(path),
                Err(error) => {
                    // Half a checkpoint is worse than none. The error that stopped us is the one to report.
                    for path in placed {
                        let _ = fs::remove_file(path);
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

//! What is asked of a source as a whole.

use std::path::PathBuf;
use std::thread;

use codec::Encoding;
use model::{Checkpoint, Use};

use crate::error::Error;
use crate::receipt::Hashed;

/// The plain type that most bytes of a source's matrices are in. FP8 counts as BF16, of which it is made; block
/// encodings as F32, which holds what they decode to.
pub(crate) fn dtype(source: &Checkpoint) -> Encoding {
    let mut bytes = [(Encoding::BF16, 0), (Encoding::F16, 0), (Encoding::F32, 0)];
    let tensors = source.source().tensors().iter().zip(&source.layout().uses);
    for (info, _) in
        tensors.filter(|(info, used)| matches!(used, Use::Slots(_)) && info.shape.dims().len() > 1)
    {
        let as_plain = match info.encoding {
            Encoding::F16 => Encoding::F16,
            Encoding::BF16 | Encoding::F8E4M3 => Encoding::BF16,
            _ => Encoding::F32,
        };
        bytes.iter_mut().filter(|(plain, _)| *plain == as_plain).for_each(|(_, sum)| *sum += info.size);
    }
    bytes.into_iter().max_by_key(|(_, sum)| *sum).map_or(Encoding::F32, |(plain, _)| plain)
}

/// Does `work` while files are hashed in a thread of their own.
pub(crate) fn hashed_beside(
    files: &[PathBuf],
    work: impl FnOnce() -> Result<(), Error>,
) -> Result<Vec<Hashed>, Error> {
    thread::scope(|scope| {
        let hash = |path: &PathBuf| {
            Hashed::of(path).map_err(|source| Error::Io { path: path.clone(), action: "read", source })
        };
        let hashing = scope.spawn(move || files.iter().map(hash).collect());
        work()?;
        match hashing.join() {
            Ok(hashed) => hashed,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

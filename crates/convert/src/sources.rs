//! What is done with a source as a whole.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use codec::Encoding;
use model::{Checkpoint, Use};

use crate::error::Error;
use crate::pipeline::{self, Encoded, Progress, Sink};
use crate::plan::Plan;
use crate::receipt::{Done, Hashed, Hashes, Receipt, Tool, Written};

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

/// Hashes of what was read and of what was made of it.
pub(crate) struct Transferred {
    source: Vec<Hashed>,
    tensors: Vec<(String, String)>,
}

/// Makes every tensor and hands it to `write`. With `hash`, the source's files are hashed meanwhile, and the tensors
/// while they are written.
pub(crate) fn transfer(
    source: &Checkpoint,
    tensors: &[Encoded],
    hash: bool,
    write: Sink<'_>,
    progress: Progress<'_>,
) -> Result<Option<Transferred>, Error> {
    if !hash {
        pipeline::run(tensors, source, write, progress)?;
        return Ok(None);
    }
    let mut hashes = Hashes::default();
    let mut sink = |name: &str, bytes: &[u8]| {
        let write = &mut *write;
        rayon::join(|| write(name, bytes), || hashes.update(name, bytes)).0
    };
    let source =
        hashed_beside(source.source().files(), || pipeline::run(tensors, source, &mut sink, progress))?;
    Ok(Some(Transferred { source, tensors: hashes.finish() }))
}

/// Does `work` while files are hashed in a thread of their own, which stops if the work fails.
pub(crate) fn hashed_beside<E: From<Error>>(
    files: &[PathBuf],
    work: impl FnOnce() -> Result<(), E>,
) -> Result<Vec<Hashed>, E> {
    let failed = AtomicBool::new(false);
    let hash = |path: &PathBuf| {
        Hashed::of(path, &failed).map_err(|source| Error::Io { path: path.clone(), action: "read", source })
    };
    thread::scope(|scope| {
        let hashing = scope.spawn(|| files.iter().map(hash).collect::<Result<_, Error>>());
        if let Err(error) = work() {
            failed.store(true, Ordering::Relaxed);
            return Err(error);
        }
        match hashing.join() {
            Ok(hashed) => Ok(hashed?),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// What came of a conversion that made `output`.
pub(crate) fn done(
    output: Vec<PathBuf>,
    transferred: Option<Transferred>,
    Plan { tensors, left }: Plan,
    notes: Vec<String>,
) -> Done {
    let receipt = transferred.map(|transferred| Receipt {
        tool: Tool::ETALON,
        source: transferred.source,
        output: output.clone(),
        tensors: Written::all(tensors, transferred.tensors),
        left,
        notes,
    });
    Done { output, receipt }
}

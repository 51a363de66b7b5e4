//! What is done with a source as a whole.

use std::path::PathBuf;

use codec::Encoding;
use model::{Checkpoint, Dialect, Use};

use crate::digest::{Digest, Hash, Hashed, Hashes, Hashing};
use crate::error::Error;
use crate::pipeline::{self, Encoded, Progress, Sink};
use crate::plan::Plan;
use crate::receipt::{Done, Receipt, Tool, Written};
use crate::source::Source;

/// Small files of a Hugging Face checkpoint that a conversion reads where they are there.
const READ_BESIDE: [&str; 10] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "model.safetensors.index.json",
    "README.md",
];

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
    digest: Digest,
    source: Vec<Hashed>,
    tensors: Vec<(String, Hash)>,
}

/// Makes every tensor and hands it to `write`. With `hashing`, which has the source's files, tensors are hashed while
/// they are written.
pub(crate) fn transfer(
    source: &dyn Source,
    tensors: &[Encoded],
    hashing: Option<Hashing>,
    write: Sink<'_>,
    progress: Progress<'_>,
) -> Result<Option<Transferred>, Error> {
    let Some(hashing) = hashing else {
        pipeline::run(tensors, source, write, progress)?;
        return Ok(None);
    };
    let digest = hashing.digest();
    let mut hashes = Hashes::new(digest);
    let mut sink = |name: &str, bytes: &[u8]| {
        let write = &mut *write;
        rayon::join(|| write(name, bytes), || hashes.update(name, bytes)).0
    };
    pipeline::run(tensors, source, &mut sink, progress)?;
    Ok(Some(Transferred { digest, source: hashing.finish()?, tensors: hashes.finish() }))
}

/// The files that say what a checkpoint is: those of its weights, and beside a Hugging Face checkpoint's those that a
/// conversion reads.
pub fn files(source: &Checkpoint) -> Vec<PathBuf> {
    let weights = source.source().files().iter().cloned();
    match source.layout().dialect {
        Dialect::Gguf => weights.collect(),
        Dialect::Hf { .. } => {
            let beside = READ_BESIDE.iter().map(|name| source.directory().join(name));
            weights.chain(beside.filter(|path| path.is_file())).collect()
        }
    }
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
        tensors: Written::all(tensors, transferred.tensors, transferred.digest),
        left,
        notes,
    });
    Done { output, receipt }
}

//! Writes what an engine computes as a trace.

use std::path::Path;

use model::Checkpoint;
use reference::{Activations, Precision};
use trace::{Globs, ModelId, Producer, Recorder, Recording, Stored};

use crate::{Engine, Error, Run, fingerprint, run};

/// What to write.
#[derive(Clone, Debug)]
pub struct Dump {
    /// Globs of the points to record; all points if there are none.
    pub points: Vec<String>,
    /// Whether the manifest names the weights by their hash.
    pub hash: Hash,
    /// Whether an existing output is replaced.
    pub replace: bool,
}

/// Whether to hash the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// Always.
    Always,
    /// If that takes no more than a moment: up to [`Hash::QUICK`] bytes.
    IfQuick,
}

impl Hash {
    /// About a second of hashing.
    pub const QUICK: u64 = 1 << 30;
}

/// What was written.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Dumped {
    /// How many points.
    pub points: usize,
    /// How many tokens were run.
    pub tokens: usize,
    /// The last token's logits, `[vocab]`.
    #[serde(skip)]
    pub logits: Vec<f64>,
}

/// Runs `tokens` and writes the chosen points to `output`: a directory of `.npy` files, or an `.npz` or
/// `.safetensors` file by the extension.
///
/// # Errors
/// Whatever [`run`] refuses, a pattern that matches no point, or an output that cannot be written. Nothing is then
/// left of it.
pub fn dump(
    checkpoint: &Checkpoint,
    tokens: &[u32],
    output: &Path,
    what: &Dump,
    how: &Run<'_>,
) -> Result<Dumped, Error> {
    let points = chosen(&what.points, checkpoint)?;
    let recorded = reference::points(checkpoint.config()).iter().filter(|p| points.matches(&p.name)).count();
    let recording = Recording {
        tokens: tokens.iter().map(|&token| token.into()).collect(),
        points,
        stored: match how.precision {
            Precision::F32 => Stored::F32,
            Precision::F64 => Stored::F64,
        },
        model: Some(ModelId {
            path: checkpoint.path().display().to_string(),
            sha256: sha256(checkpoint, what.hash, how)?,
        }),
        producer: producer(how),
        contract: Some(match how.engine {
            Engine::Reference => how.activations.contract().to_owned(),
            Engine::Fast => fast::CONTRACT.to_owned(),
        }),
        replace: what.replace,
    };
    let mut recorder = Recorder::create(output, recording)?;
    let logits = run(checkpoint, tokens, how, &mut recorder)?;
    how.progress.begin("writing", 0);
    recorder.finish()?;
    Ok(Dumped { points: recorded, tokens: tokens.len(), logits })
}

/// What this program says about itself in a manifest and in a report.
pub(crate) fn producer(how: &Run<'_>) -> Producer {
    let (name, kernels) = match (how.engine, how.activations) {
        (Engine::Reference, Activations::F32) => ("etalon", how.kernels.name()),
        (Engine::Reference, Activations::Q8) => ("etalon ggml-q8", how.kernels.name()),
        (Engine::Fast, _) => ("etalon fast", fast::Kernels::detect().name()),
    };
    let more = [("kernels", kernels.into()), ("threads", how.threads().into())];
    Producer {
        name: name.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        precision: Some(how.precision.name().into()),
        more: more.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
    }
}

/// The points that any of the patterns matches, all if there is no pattern.
///
/// # Errors
/// A pattern that matches no point of this model.
pub(crate) fn chosen(patterns: &[String], checkpoint: &Checkpoint) -> Result<Globs, Error> {
    let known = reference::points(checkpoint.config());
    for pattern in patterns {
        let glob = Globs::new(&[pattern])?;
        if !known.iter().any(|point| glob.matches(&point.name)) {
            return Err(Error::NoPoint { pattern: pattern.clone() });
        }
    }
    Ok(if patterns.is_empty() { Globs::new(&["*"])? } else { Globs::new(patterns)? })
}

fn sha256(checkpoint: &Checkpoint, hash: Hash, how: &Run<'_>) -> Result<Option<String>, Error> {
    let files = checkpoint.source().files();
    let size: u64 = files.iter().filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum();
    match hash {
        Hash::IfQuick if size > Hash::QUICK => Ok(None),
        _ => fingerprint(files, how.progress).map(Some),
    }
}

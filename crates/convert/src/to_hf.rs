//! A GGUF file as a Hugging Face checkpoint.

use std::path::Path;

use codec::Encoding;
use format::{Existing, Metadata, safetensors};
use model::layout::Role;
use model::{Checkpoint, Config, Dialect};
use serde_json::Value;

use crate::digest::Hashing;
use crate::directory::Directory;
use crate::error::Error;
use crate::hf_config;
use crate::pipeline::{Encoded, Progress, TargetRows};
use crate::plan::{Mtp, Plan, plan};
use crate::receipt::Done;
use crate::sources::{self, done, transfer};
use crate::target::{Experts, Target};
use crate::vocabulary::Vocabulary;

/// How many tensors a note names.
const NAMED: usize = 3;

/// How a Hugging Face checkpoint is to be made.
#[derive(Clone, Debug)]
pub struct HfOptions {
    /// The type of its matrices: F32, F16 or BF16; none for that of the source's, F32 if those are block-encoded.
    pub dtype: Option<Encoding>,
    /// How it holds its experts.
    pub experts: Experts,
    /// Multi-token-prediction blocks.
    pub mtp: Mtp,
    /// Most bytes in a file of weights, unless one tensor has more.
    pub shard_bytes: u64,
}

/// A conversion that is known in every detail, and of which nothing is written yet.
pub struct ToHf<'a> {
    source: &'a Checkpoint,
    tensors: Vec<Encoded>,
    plan: Plan,
    config: Config,
    json: Value,
    generation: Value,
    vocabulary: Vocabulary,
    split: &'static str,
    shard_bytes: u64,
    notes: Vec<String>,
}

impl<'a> ToHf<'a> {
    /// Plans the conversion of a GGUF file.
    ///
    /// # Errors
    /// Whatever would keep it from succeeding but the system: a type that cannot be had, keys of the vocabulary.
    pub fn new(source: &'a Checkpoint, options: &HfOptions) -> Result<ToHf<'a>, Error> {
        let Metadata::Gguf(keys) = source.source().metadata() else {
            let what = format!("{} is a Hugging Face checkpoint already", source.path().display());
            return Err(Error::Request { what });
        };
        let main = options.dtype.unwrap_or_else(|| sources::dtype(source));
        if !matches!(main, Encoding::F32 | Encoding::F16 | Encoding::BF16) {
            let expected = "F32, F16 or BF16".to_owned();
            return Err(Error::Encoding { encoding: main, format: "Hugging Face", expected });
        }
        if options.mtp == Mtp::Only {
            let what =
                "a Hugging Face checkpoint of a multi-token-prediction block alone is no model: leave out \
                        --mtp only"
                    .to_owned();
            return Err(Error::Request { what });
        }
        let mut kept = Mentioned::default();
        let encode = |target: &Target| encoding(source, target, main, options.dtype, &mut kept);
        let prefix = Dialect::Hf { prefix: "model." };
        let (tensors, plan) = plan(source, prefix, options.experts, options.mtp, encode)?;
        let mut config = source.config().clone();
        let mut notes = std::mem::take(&mut config.notes);
        let blocks = tensors.iter().any(|(target, _)| matches!(target.place, model::Place::Mtp(_)));
        if !blocks {
            config.mtp_num_hidden_layers = 0;
        }
        notes.extend(kept.notes(main));
        let vocabulary = Vocabulary::from_gguf(keys, config.vocab_size)?;
        let Some(split) = model::tokenizer::splitting_regex(&vocabulary.pre) else {
            let what = format!("pre is {:?}, which is no known splitting rule", vocabulary.pre);
            return Err(Error::Vocabulary { place: "tokenizer.ggml".to_owned(), what });
        };
        let json = hf_config::config(&config, main, &vocabulary);
        let generation = hf_config::generation(keys, &vocabulary);
        let shard_bytes = options.shard_bytes;
        Ok(ToHf { source, tensors, plan, config, json, generation, vocabulary, split, shard_bytes, notes })
    }

    /// What will be done.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What should be known about it.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Writes the directory. It is there whole or not at all. With `receipt`, which is hashing the
    /// source's [`files`](crate::files), so is everything written.
    ///
    /// # Errors
    /// A path that is taken, values that an encoding does not hold, or a system that refuses.
    pub fn write(
        self,
        dir: &Path,
        existing: Existing,
        receipt: Option<Hashing>,
        progress: Progress<'_>,
    ) -> Result<Done, Error> {
        let directory = Directory::create(dir, existing)?;
        let mut draft = safetensors::Draft::new(directory.path());
        draft.put("format", "pt");
        for (target, encoding) in &self.tensors {
            draft.tensor(&target.name, *encoding, &target.shape)?;
        }
        let mut writer = draft.create_sharded(self.shard_bytes, Existing::Refuse)?;
        let mut write = |name: &str, bytes: &[u8]| writer.write(name, bytes);
        let transferred = transfer(self.source, &self.tensors, receipt, &mut write, progress)?;
        writer.finish()?;
        self.write_small_files(&directory)?;
        directory.finish()?;
        Ok(done(vec![dir.to_owned()], transferred, self.plan, self.notes))
    }

    fn write_small_files(&self, directory: &Directory) -> Result<(), Error> {
        let pretty = |value: &Value| format!("{value:#}\n");
        let mut tokenizer = Vec::new();
        let in_memory = |source| Error::Io { path: "tokenizer.json".into(), action: "write", source };
        self.vocabulary.write_tokenizer_json(self.split, &mut tokenizer).map_err(in_memory)?;
        let mut settings = self.vocabulary.tokenizer_config();
        settings["model_max_length"] = self.config.max_position_embeddings.into();
        directory.write("config.json", pretty(&self.json).as_bytes())?;
        directory.write("generation_config.json", pretty(&self.generation).as_bytes())?;
        directory.write("tokenizer.json", &tokenizer)?;
        directory.write("tokenizer_config.json", pretty(&settings).as_bytes())?;
        match self.vocabulary.chat_templates.iter().find(|(name, _)| name.is_none()) {
            Some((_, template)) => directory.write("chat_template.jinja", template.as_bytes()),
            None => Ok(()),
        }
    }
}

/// The encoding of a tensor in a checkpoint of type `main`.
///
/// What GGUF files hold in F32 whatever their type is (vectors, convolutions, routers) goes into `main` where that
/// changes nothing, and stays F32 elsewhere; it is then mentioned in `kept`. The rest is `requested`, or else what it
/// is in the source, F32 if that is block-encoded.
fn encoding(
    source: &Checkpoint,
    target: &Target,
    main: Encoding,
    requested: Option<Encoding>,
    kept: &mut Mentioned,
) -> Encoding {
    let role = target.parts[0].role;
    let small = target.cols() == 1 || matches!(role, Role::Conv1d | Role::Router);
    let held = source.layout().slot(target.place, role).and_then(|slot| slot.tensors.first());
    let held = held.map(|&i| source.source().tensors()[i].encoding);
    if !small {
        let plain = held.filter(|held| matches!(held, Encoding::F32 | Encoding::F16 | Encoding::BF16));
        return requested.or(plain).unwrap_or(Encoding::F32);
    }
    if holds(source, target, main) {
        return main;
    }
    if main != Encoding::F32 {
        kept.wide.push(target.name.clone());
    }
    if !holds(source, target, Encoding::F32) {
        kept.lost.push(target.name.clone());
    }
    Encoding::F32
}

/// Tensors that are to be mentioned.
#[derive(Default)]
struct Mentioned {
    /// In F32, because the checkpoint's type does not hold their values.
    wide: Vec<String>,
    /// With values that nothing gives: an `exp` that rounds in another way has made them, or something else has.
    lost: Vec<String>,
}

impl Mentioned {
    fn notes(&self, main: Encoding) -> impl Iterator<Item = String> {
        let list = |names: &[String]| {
            let more = if names.len() > NAMED { " and others" } else { "" };
            names[..names.len().min(NAMED)].join(", ") + more
        };
        let wide = (!self.wide.is_empty()).then(|| {
            let count = self.wide.len();
            format!(
                "{count} tensors are in F32, because {main} does not hold their values: {}",
                list(&self.wide)
            )
        });
        let lost = (!self.lost.is_empty()).then(|| {
            let count = self.lost.len();
            format!(
                "{count} tensors have values that no f32 here gives exactly; the nearest was taken, and converting back \
                 gives a neighbour of the value: {}",
                list(&self.lost)
            )
        });
        wide.into_iter().chain(lost)
    }
}

/// Whether every value of a vector or a small matrix leads back to that of the source when it is stored in `encoding`.
fn holds(source: &Checkpoint, target: &Target, encoding: Encoding) -> bool {
    let Ok(rows) = TargetRows::new(target, source) else { return false };
    let cols = target.cols();
    let (mut there, mut here, mut back) = (vec![0.0; cols], vec![0.0; cols], vec![0.0; cols]);
    let (mut bytes, mut scratch) = (vec![0; cols * encoding.block_bytes()], Vec::new());
    (0..target.rows()).all(|row| {
        let there_held = rows.read_source(row, &mut there, &mut scratch);
        rows.read(row, &mut here, &mut scratch);
        let (at, _) = target.canonical_part(row);
        let held = target.parts[at].form.held();
        let stored = encoding.encode(&here, None, &mut bytes).is_ok();
        let read = stored && encoding.decode(&bytes, &mut back).is_ok();
        // As the source rounds what this file will say.
        let same = |(there, back): (&f32, &f32)| match there_held == held {
            true => there.to_bits() == back.to_bits(),
            false => there.to_bits() == (held.canonical(*back) as f32).to_bits(),
        };
        read && there.iter().zip(&back).all(same)
    })
}

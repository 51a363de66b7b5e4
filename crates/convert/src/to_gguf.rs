//! A checkpoint as a GGUF file.

use std::path::{Path, PathBuf};

use codec::Encoding;
use format::Existing;
use format::gguf::{Division, Draft};
use model::{Checkpoint, Config, Dialect, Place};

use crate::as_llama_cpp::{self, AsLlamaCpp};
use crate::digest::Hashing;
use crate::error::Error;
use crate::general::General;
use crate::gguf::{self, DEFAULT_INTERVAL, Description};
use crate::pipeline::{Encoded, Progress};
use crate::plan::{Mtp, Plan, plan};
use crate::receipt::Done;
use crate::source::Source;
use crate::sources::{self, done, transfer};
use crate::target::Experts;
use crate::vocabulary::{Vocabulary, json};

/// How a GGUF file is to be made.
#[derive(Clone, Debug, Default)]
pub struct GgufOptions {
    /// The type of its matrices; none for that of the source's.
    pub dtype: Option<Encoding>,
    /// Multi-token-prediction blocks.
    pub mtp: Mtp,
    /// Another `general.name`.
    pub name: Option<String>,
    /// A JSON file of `general.*` keys.
    pub metadata: Option<PathBuf>,
    /// No tensors, only keys.
    pub vocab_only: bool,
    /// Parts, instead of one file.
    pub division: Option<Division>,
    /// Choose and compute as llama.cpp's converter does where this one does otherwise.
    pub as_llama_cpp: bool,
}

/// A conversion that is known in every detail, and of which nothing is written yet.
pub struct ToGguf<'a> {
    source: &'a Checkpoint,
    config: Config,
    tensors: Vec<Encoded>,
    plan: Plan,
    general: General,
    vocabulary: Vocabulary,
    file_type: u32,
    interval: u32,
    division: Option<Division>,
    as_llama_cpp: bool,
    notes: Vec<String>,
}

impl<'a> ToGguf<'a> {
    /// Plans the conversion of a Hugging Face checkpoint.
    ///
    /// # Errors
    /// Whatever would keep it from succeeding but the system: a model that GGUF cannot describe, a type that cannot be
    /// made, tokenizer files, a description.
    pub fn new(source: &'a Checkpoint, options: &GgufOptions) -> Result<ToGguf<'a>, Error> {
        if source.layout().dialect == Dialect::Gguf {
            return Err(Error::Request {
                what: format!("{} is a GGUF file already", source.path().display()),
            });
        }
        let dtype = options.dtype.unwrap_or_else(|| match options.as_llama_cpp {
            true => as_llama_cpp::dtype(source),
            false => sources::dtype(source),
        });
        let file_type = match dtype {
            Encoding::F32 | Encoding::F16 | Encoding::BF16 | Encoding::Q8_0 => gguf::file_type(dtype),
            _ => None,
        };
        let Some(file_type) = file_type else {
            let expected = "F32, F16, BF16 or Q8_0; other encodings are for `etalon quantize`".to_owned();
            return Err(Error::Encoding { encoding: dtype, format: "converted GGUF", expected });
        };
        let encode = |target: &_| gguf::encoding(target, dtype);
        let (tensors, plan) = plan(source, Dialect::Gguf, Experts::Packed, options.mtp, encode)?;
        let mut config = source.config().clone();
        let mut notes = std::mem::take(&mut config.notes);
        let blocks = tensors.iter().any(|(target, _)| matches!(target.place, Place::Mtp(_)));
        if config.mtp_num_hidden_layers > 0 && !blocks {
            if options.mtp == Mtp::Keep {
                notes.push(
                    "config.json has a multi-token-prediction block, the weights do not: left out".to_owned(),
                );
            }
            config.mtp_num_hidden_layers = 0;
        }
        let (key, value) = (config.linear_key_head_dim, config.linear_value_head_dim);
        if key != value {
            return Err(Error::UnequalHeads { key, value });
        }
        let dir = source.directory();
        let parameters = tensors.iter().map(|(t, _)| t.shape.elements().unwrap_or(0)).sum();
        let size_label = gguf::size_label(tensors.iter().map(|(target, _)| target), &config);
        let (tensors, plan, parameters, size_label) = match options.vocab_only {
            true => (Vec::new(), Plan { tensors: Vec::new(), left: plan.left }, 0, None),
            false => (tensors, plan, parameters, Some(size_label)),
        };
        let mut general = General::of_directory(dir, parameters, size_label.as_deref())?;
        notes.extend_from_slice(general.notes());
        if let Some(path) = &options.metadata {
            general.override_by(path)?;
        }
        if let Some(name) = &options.name {
            general.set_name(name);
        }
        let vocabulary = Vocabulary::from_hf_dir(dir, config.vocab_size)?;
        let json = json(&dir.join("config.json"))?;
        let text = json.get("text_config").and_then(|text| text.as_object()).unwrap_or(&json);
        let interval = text.get("full_attention_interval").and_then(|i| i.as_u64());
        let interval = interval.and_then(|i| u32::try_from(i).ok()).unwrap_or(DEFAULT_INTERVAL);
        let division = options.division.clone();
        Ok(ToGguf {
            source,
            config,
            tensors,
            plan,
            general,
            vocabulary,
            file_type,
            interval,
            division,
            as_llama_cpp: options.as_llama_cpp,
            notes,
        })
    }

    /// What will be done.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What should be known about it.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The tensors to be.
    pub(crate) fn tensors(&self) -> &[Encoded] {
        &self.tensors
    }

    /// Puts the keys into a draft.
    pub(crate) fn put_keys(&self, draft: &mut Draft) -> Result<(), Error> {
        let description = Description {
            general: &self.general,
            file_type: self.file_type,
            full_attention_interval: self.interval,
        };
        gguf::put_keys(draft, &self.config, &description, &self.vocabulary)
    }

    /// Writes the file. It is there whole or not at all. With `receipt`, which is hashing the
    /// source's [`files`](crate::files), so is everything written.
    ///
    /// # Errors
    /// A path that is taken, values that an encoding does not hold, or a system that refuses.
    pub fn write(
        self,
        path: &Path,
        existing: Existing,
        receipt: Option<Hashing>,
        progress: Progress<'_>,
    ) -> Result<Done, Error> {
        let mut draft = Draft::new(path);
        self.put_keys(&mut draft)?;
        drop(self.vocabulary);
        for (target, encoding) in &self.tensors {
            draft.tensor(&target.name, *encoding, &target.shape)?;
        }
        let (output, mut writer) = match &self.division {
            Some(division) => {
                let parts = draft.plan(division)?.into_iter().map(|part| part.path);
                (parts.collect(), draft.create_split(division, existing)?)
            }
            None => (vec![path.to_owned()], draft.create(existing)?),
        };
        let mut write = |name: &str, bytes: &[u8]| writer.write(name, bytes);
        let theirs = AsLlamaCpp(self.source);
        let source: &dyn Source = if self.as_llama_cpp { &theirs } else { self.source };
        let transferred = transfer(source, &self.tensors, receipt, &mut write, progress)?;
        writer.finish()?;
        Ok(done(output, transferred, self.plan, self.notes))
    }
}

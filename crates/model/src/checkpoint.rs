//! An open checkpoint: files, configuration and every tensor accounted for.

use std::path::{Path, PathBuf};

use format::{Limits, Metadata, TensorInfo, TensorSource};

use crate::config::Config;
use crate::error::Error;
use crate::finite::non_finite;
use crate::matrix::Matrix;
use crate::resolve::{Dialect, Layout, Place, Use};
use crate::tokenizer::Tokenizer;
use crate::weights::Weights;

/// What to do about NaN and infinities among the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonFinitePolicy {
    /// Read every weight once and refuse, naming them.
    Refuse,
    /// Load them as they are, unread.
    Allow,
}

/// What a checkpoint is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Its weights are to be multiplied as they lie.
    Run,
    /// They are to be rewritten: FP8 with block scales and MLX's layout will do as well.
    Convert,
    /// Those that are there are to be compared: a GGUF file may lack any, or all.
    Part,
}

/// A Qwen3.5 checkpoint, Hugging Face or GGUF.
pub struct Checkpoint {
    path: PathBuf,
    source: Box<dyn TensorSource>,
    config: Config,
    layout: Layout,
}

impl Checkpoint {
    /// Opens a checkpoint: a directory with `config.json` and safetensors, or a GGUF file.
    ///
    /// # Errors
    /// Files that cannot be read, a configuration that cannot be used, or tensors that do not match it (all
    /// that is wrong with them at once).
    pub fn open(path: &Path, limits: &Limits) -> Result<Checkpoint, Error> {
        Checkpoint::open_for(path, limits, Purpose::Run)
    }

    /// The same for a purpose.
    ///
    /// # Errors
    /// The same.
    pub fn open_for(path: &Path, limits: &Limits, purpose: Purpose) -> Result<Checkpoint, Error> {
        let source = format::open(path, limits)?;
        let (config, dialect) = match source.metadata() {
            Metadata::Gguf(keys) => {
                let config = Config::from_gguf(keys, source.as_ref())
                    .map_err(|error| Error::Config { path: path.to_owned(), error })?;
                (config, Dialect::Gguf)
            }
            Metadata::Safetensors(_) => {
                let file = directory(path).join("config.json");
                let text = std::fs::read_to_string(&file).map_err(|e| Error::Read {
                    path: file.clone(),
                    why: format!("{e}; a Hugging Face checkpoint needs its config.json beside the weights"),
                })?;
                let mut config = Config::from_json_for(&text, purpose)
                    .map_err(|error| Error::Config { path: file, error })?;
                count_mtp_blocks(&mut config, source.as_ref());
                (config, Dialect::of_hf(source.as_ref()))
            }
        };
        let layout = Layout::resolve(source.as_ref(), &config, dialect, purpose)
            .map_err(|problems| Error::Tensors { path: path.to_owned(), problems })?;
        Ok(Checkpoint { path: path.to_owned(), source, config, layout })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that its small files stand in, of a Hugging Face checkpoint.
    pub fn directory(&self) -> &Path {
        directory(&self.path)
    }

    /// The files under it.
    pub fn source(&self) -> &dyn TensorSource {
        self.source.as_ref()
    }

    /// Its configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What each of its tensors is.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The weights of the main model, in canonical form; matrices stay where they lie in the file.
    ///
    /// # Errors
    /// [`Error::NonFinite`], unless the policy allows them.
    pub fn weights(&self, policy: NonFinitePolicy) -> Result<Weights<Matrix<'_>>, Error> {
        if policy == NonFinitePolicy::Refuse {
            let found = non_finite(self.source(), &self.text_tensors());
            if !found.is_empty() {
                return Err(Error::NonFinite { path: self.path.clone(), found });
            }
        }
        Ok(Weights::read(self.source(), &self.config, &self.layout))
    }

    /// Its tokenizer.
    ///
    /// # Errors
    /// Tokenizer files or keys that are absent or malformed.
    pub fn tokenizer(&self) -> Result<Tokenizer, Error> {
        Ok(match self.source.metadata() {
            Metadata::Gguf(keys) => Tokenizer::from_gguf(keys)?,
            Metadata::Safetensors(_) => Tokenizer::from_hf_dir(directory(&self.path))?,
        })
    }

    /// Tensors that the forward pass reads.
    fn text_tensors(&self) -> Vec<&TensorInfo> {
        let runs = |slot: &usize| !matches!(self.layout.slots[*slot].place, Place::Mtp(_));
        self.source
            .tensors()
            .iter()
            .zip(&self.layout.uses)
            .filter(|(_, used)| matches!(used, Use::Slots(slots) if slots.iter().any(runs)))
            .map(|(info, _)| info)
            .collect()
    }
}

/// Multi-token-prediction blocks that are there, if `config.json` says nothing of any.
fn count_mtp_blocks(config: &mut Config, source: &dyn TensorSource) {
    if config.mtp_num_hidden_layers > 0 {
        return;
    }
    let number =
        |info: &TensorInfo| info.name.strip_prefix("mtp.layers.")?.split('.').next()?.parse::<u16>().ok();
    if let Some(last) = source.tensors().iter().filter_map(number).max() {
        config.mtp_num_hidden_layers = usize::from(last) + 1;
        config.notes.push("config.json has no mtp_num_hidden_layers; counted from the tensors".into());
    }
}

/// The directory that a checkpoint's small files stand in.
fn directory(path: &Path) -> &Path {
    if path.is_dir() { path } else { path.parent().unwrap_or(Path::new(".")) }
}

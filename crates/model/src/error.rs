//! What can be wrong with a checkpoint, by who is at fault.

use std::path::PathBuf;

use serde_json::Value;

use crate::config::LayerType;
use crate::tokenizer::TokenizerError;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error, Clone, PartialEq)]
pub enum ConfigError {
    /// The file is not the JSON it should be.
    #[error("config.json is not valid: {why}")]
    Json {
        /// The parser's words.
        why: String,
    },
    /// A field that the arithmetic needs is absent; no default is assumed.
    #[error("configuration lacks {field}: the forward pass needs it and assumes no default")]
    Missing {
        /// JSON path or GGUF key.
        field: String,
    },
    /// A field holds something that makes no sense for it.
    #[error("configuration: {field} must be {expected}, found {found}")]
    Value {
        /// JSON path or GGUF key.
        field: String,
        /// What would do.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// Two settings that cannot both hold.
    #[error("configuration contradicts itself: {what}")]
    Contradiction {
        /// Both sides.
        what: String,
    },
    /// A setting that is legal elsewhere, and not implemented here.
    #[error("configuration: {field} = {found} is not supported (supported: {supported})")]
    Unsupported {
        /// JSON path or GGUF key.
        field: String,
        /// What stands there.
        found: String,
        /// What is supported, or what to do.
        supported: String,
    },
}

impl ConfigError {
    pub(crate) fn kind(field: &str, expected: &str, found: &Value) -> ConfigError {
        let mut found = found.to_string();
        if let Some((cut, _)) = found.char_indices().nth(60) {
            found.truncate(cut);
            found.push('…');
        }
        ConfigError::Value { field: field.into(), expected: expected.into(), found }
    }

    pub(crate) fn contradiction(what: String) -> ConfigError {
        ConfigError::Contradiction { what }
    }
}

/// One thing that is wrong with the tensors of a checkpoint.
#[derive(Debug, thiserror::Error, Clone, PartialEq)]
pub enum Problem {
    /// A tensor that the layer plan calls for is not in the file.
    #[error("missing    {name}  (expected {shape})")]
    Missing {
        /// Name in the file's own dialect.
        name: String,
        /// Symbols and sizes, as in `[D] = [64]`.
        shape: String,
    },
    /// The tensor is there in another shape.
    #[error("misshapen  {name}  expected {expected}, found {found}{hint}")]
    Misshapen {
        /// Name in the file.
        name: String,
        /// Symbols and sizes.
        expected: String,
        /// Shape in the file.
        found: String,
        /// What this shape usually means, or empty.
        hint: &'static str,
    },
    /// No row of the layout map has this name.
    #[error("unknown    {name}{}", nearest.as_ref().map(|n| format!("  (nearest known: {n})")).unwrap_or_default())]
    Unknown {
        /// Name in the file.
        name: String,
        /// The known name that is closest.
        nearest: Option<String>,
    },
    /// The tensor's numbers are not plain floating point.
    #[error("packed     {name}  {what}: dequantize the checkpoint first")]
    Packed {
        /// Name in the file.
        name: String,
        /// The scheme, and how it was recognised.
        what: String,
    },
    /// The tensor's encoding holds no weights that a model could use.
    #[error("encoding   {name}  is {found}: expected floating-point or block-encoded weights")]
    Encoding {
        /// Name in the file.
        name: String,
        /// The encoding's name.
        found: &'static str,
    },
    /// A layer's tensors belong to the other kind of layer.
    #[error("layer type {layer} is {expected:?} by the configuration, {found:?} by its tensors")]
    LayerType {
        /// The layer.
        layer: usize,
        /// What the configuration says.
        expected: LayerType,
        /// What the tensors say.
        found: LayerType,
    },
    /// Two forms of the same weight are both present.
    #[error("ambiguous  {name}  stands beside {other}: keep one of the two forms")]
    Ambiguous {
        /// Name of one.
        name: String,
        /// Name of the other.
        other: String,
    },
}

/// Weights that are not numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct NonFinite {
    /// Tensor name in the file.
    pub name: String,
    /// Flat index of the first such element, in stored order.
    pub index: usize,
    /// NaN or an infinity.
    pub value: f32,
}

impl std::fmt::Display for NonFinite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: element {} is {}", self.name, self.index, self.value)
    }
}

/// A checkpoint that cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The files themselves.
    #[error(transparent)]
    Format(#[from] format::Error),
    /// A file beside the weights could not be read.
    #[error("{}: {why}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words and what to do.
        why: String,
    },
    /// Its configuration.
    #[error("{}: {error}", path.display())]
    Config {
        /// The file that holds it.
        path: PathBuf,
        /// What is wrong.
        error: ConfigError,
    },
    /// Its tensors: everything that is wrong with them at once.
    #[error("{}: {} problem{} with its tensors\n{}", path.display(), problems.len(),
        if problems.len() == 1 { "" } else { "s" },
        problems.iter().map(|p| format!("  {p}")).collect::<Vec<_>>().join("\n"))]
    Tensors {
        /// The checkpoint.
        path: PathBuf,
        /// In the order of the layer plan, then of the file.
        problems: Vec<Problem>,
    },
    /// NaN or infinity among the weights.
    #[error("{}: weights that are not finite (--allow-nonfinite loads them all the same)\n{}", path.display(),
        found.iter().map(|n| format!("  {n}")).collect::<Vec<_>>().join("\n"))]
    NonFinite {
        /// The checkpoint.
        path: PathBuf,
        /// The first such element of every such tensor.
        found: Vec<NonFinite>,
    },
    /// Its tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

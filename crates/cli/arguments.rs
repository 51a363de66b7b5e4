//! Arguments that several commands share.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;
use convert::Digest;
use model::{Checkpoint, NonFinitePolicy};
use trace::Limits;

use crate::report::Only;

/// Which checkpoint.
#[derive(clap::Args)]
pub struct ModelArgs {
    /// A directory with config.json and safetensors, or a GGUF file (any part of a split one).
    pub model: PathBuf,
    /// Run weights that hold NaN or infinities instead of refusing them.
    #[arg(long)]
    allow_nonfinite: bool,
}

impl ModelArgs {
    pub fn open(&self) -> anyhow::Result<Checkpoint> {
        Ok(Checkpoint::open(&self.model, &format::Limits::default())?)
    }

    pub fn non_finite(&self) -> NonFinitePolicy {
        if self.allow_nonfinite { NonFinitePolicy::Allow } else { NonFinitePolicy::Refuse }
    }
}

/// Which hash a receipt gives.
#[derive(Clone, Copy, ValueEnum)]
pub enum ReceiptHash {
    /// As b3sum prints it: the fastest.
    Blake3,
    /// As sha256sum prints it and hubs list it, and llama-gguf-hash for tensors.
    Sha256,
}

impl From<ReceiptHash> for Digest {
    fn from(hash: ReceiptHash) -> Digest {
        match hash {
            ReceiptHash::Blake3 => Digest::Blake3,
            ReceiptHash::Sha256 => Digest::Sha256,
        }
    }
}

/// To what activations are rounded between operations.
#[derive(Clone, Copy, ValueEnum)]
pub enum Precision {
    /// The nearest f32.
    F32,
    /// Nothing is rounded.
    F64,
}

impl From<Precision> for reference::Precision {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => reference::Precision::F32,
            Precision::F64 => reference::Precision::F64,
        }
    }
}

/// What computes.
#[derive(Clone, Copy, Default, ValueEnum)]
pub enum Engine {
    /// The pass on weights as they lie in the file.
    #[default]
    Fast,
    /// The exact pass that the other is judged by.
    Reference,
}

impl From<Engine> for eval::Engine {
    fn from(engine: Engine) -> Self {
        match engine {
            Engine::Fast => eval::Engine::Fast,
            Engine::Reference => eval::Engine::Reference,
        }
    }
}

/// What inner products make of activations.
#[derive(Clone, Copy, ValueEnum)]
pub enum Activations {
    /// They stay as they are.
    F32,
    /// Blocks of 8-bit numbers and integer products, as in ggml's scalar code: the second oracle.
    Q8,
}

impl From<Activations> for reference::Activations {
    fn from(activations: Activations) -> Self {
        match activations {
            Activations::F32 => reference::Activations::F32,
            Activations::Q8 => reference::Activations::Q8,
        }
    }
}

/// How keys and values are kept.
#[derive(Clone, Copy, ValueEnum)]
pub enum Kv {
    /// As they were computed.
    F32,
    /// Rounded, in half the memory.
    F16,
}

impl From<Kv> for eval::Kv {
    fn from(kv: Kv) -> Self {
        match kv {
            Kv::F32 => eval::Kv::F32,
            Kv::F16 => eval::Kv::F16,
        }
    }
}

/// How a Hugging Face checkpoint holds experts.
#[derive(Clone, Copy, ValueEnum)]
pub enum HeldExperts {
    /// All of a layer in one tensor.
    Packed,
    /// One tensor an expert.
    Split,
}

impl From<HeldExperts> for convert::Experts {
    fn from(held: HeldExperts) -> Self {
        match held {
            HeldExperts::Packed => convert::Experts::Packed,
            HeldExperts::Split => convert::Experts::Split,
        }
    }
}

/// What the model reads.
#[derive(clap::Args)]
#[group(required = false, multiple = false)]
pub struct TextArgs {
    /// Text for the checkpoint's own tokenizer; special tokens in it are parsed, and nothing is added to it.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// The same from a file, taken as it is.
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
    /// Token ids.
    #[arg(long, value_name = "1,2,3", value_delimiter = ',')]
    tokens: Option<Vec<u32>>,
    /// Token ids from a file: numbers as text or a JSON list, or the tokens of a trace.
    #[arg(long, value_name = "FILE")]
    tokens_file: Option<PathBuf>,
}

impl TextArgs {
    /// The token ids, for this model's tokenizer if there is text to encode; `None` if nothing is given.
    pub fn read(&self, checkpoint: &Checkpoint) -> anyhow::Result<Option<Vec<u32>>> {
        let encode = |text: &str| anyhow::Ok(checkpoint.tokenizer()?.encode(text)?);
        let tokens = match (&self.prompt, &self.prompt_file, &self.tokens, &self.tokens_file) {
            (Some(text), ..) => encode(text)?,
            (_, Some(file), ..) => {
                let text = std::fs::read_to_string(file);
                encode(&text.with_context(|| format!("cannot read {}", file.display()))?)?
            }
            (_, _, Some(tokens), _) => tokens.clone(),
            (_, _, _, Some(file)) => tokens_of_file(file)?,
            _ => return Ok(None),
        };
        anyhow::ensure!(!tokens.is_empty(), "the prompt is empty: a forward pass needs at least one token");
        Ok(Some(tokens))
    }
}

fn tokens_of_file(file: &Path) -> anyhow::Result<Vec<u32>> {
    if file.is_dir()
        || ["npz", "safetensors", "npy"].iter().any(|e| file.extension().is_some_and(|x| x == *e))
    {
        let trace = trace::Trace::open(file)?;
        let tokens = trace.tokens().with_context(|| format!("{}: a trace without tokens", file.display()))?;
        return tokens
            .iter()
            .map(|&token| {
                u32::try_from(token).with_context(|| format!("{}: no token id: {token}", file.display()))
            })
            .collect();
    }
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    numbers(&text).with_context(|| format!("{}: expected token ids as text or a JSON list", file.display()))
}

/// Numbers with commas or white space between them, in brackets or not.
fn numbers(text: &str) -> anyhow::Result<Vec<u32>> {
    let text = text.trim();
    let inside = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    inside
        .split(|c: char| c == ',' || c.is_whitespace())
        .filter(|part| !part.is_empty())
        .map(|part| part.parse().with_context(|| format!("found {part:?}")))
        .collect()
}

/// What is compared, and by which limits.
#[derive(clap::Args)]
pub struct JudgeArgs {
    /// Compare only points of this name; * also crosses dots; may be repeated.
    #[arg(long, value_name = "GLOB")]
    pub points: Vec<String>,
    /// The largest NMSE that points of this name may have; the last that matches holds; may be repeated.
    #[arg(long = "limit", value_name = "GLOB=NMSE")]
    entries: Vec<String>,
    /// A file of such limits, one a line, that those of --limit win over.
    #[arg(long = "limits", value_name = "FILE")]
    file: Option<PathBuf>,
    /// Which points to list.
    #[arg(long, value_enum, default_value = "all")]
    pub only: Only,
}

impl JudgeArgs {
    pub fn limits(&self) -> anyhow::Result<Limits> {
        let mut entries = self.file.as_deref().map_or(Ok(Vec::new()), Limits::read_file)?;
        for entry in &self.entries {
            entries.push(Limits::parse_entry(entry)?);
        }
        Ok(Limits::new(entries)?)
    }
}

/// A number of threads that can be started.
pub fn threads(text: &str) -> Result<usize, String> {
    const MOST: usize = 1024;
    match text.parse() {
        Ok(threads) if (1..=MOST).contains(&threads) => Ok(threads),
        _ => Err(format!("expected a number from 1 to {MOST}")),
    }
}

/// A number of bytes: `300M`, `1.5G`, `512MiB`. Letters alone count in thousands, as llama.cpp's tools do.
pub fn bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 9] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("K", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
        ("", 1),
    ];
    let expected = || "expected a number of bytes, such as 300M, 1.5G or 512MiB".to_owned();
    let bare = text.strip_suffix(['B', 'b']).filter(|rest| !rest.ends_with(['i', 'I'])).unwrap_or(text);
    let unit = |&(unit, size): &(&str, u64)| {
        bare.len()
            .checked_sub(unit.len())
            .and_then(|at| bare.split_at_checked(at))
            .and_then(|(number, end)| end.eq_ignore_ascii_case(unit).then_some((number, size)))
    };
    let (number, size) = UNITS.iter().find_map(unit).ok_or_else(expected)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 6 {
        return Err(expected());
    }
    let parts: u64 = format!("0{fraction:0<6}").parse().map_err(|_| expected())?;
    let bytes = whole.parse::<u64>().ok().and_then(|whole| whole.checked_mul(size));
    // A fraction of at most six digits of at most 2⁴⁰ bytes fits.
    bytes
        .and_then(|bytes| bytes.checked_add(parts * size / 1_000_000))
        .filter(|&n| n > 0)
        .ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_files_are_lists_of_numbers() {
        for text in ["1,2,3", "[1, 2, 3]\n", "1 2\n3\n", " [1,\n 2, 3] "] {
            assert_eq!(numbers(text).unwrap(), [1, 2, 3], "{text}");
        }
        assert!(numbers("").unwrap().is_empty());
        for (text, found) in
            [("1, x", "\"x\""), ("-1", "\"-1\""), ("4294967296", "\"4294967296\""), ("{}", "\"{}\"")]
        {
            let error = numbers(text).unwrap_err().to_string();
            assert!(error.contains(found), "{error}");
        }
    }

    #[test]
    fn bytes_are_counted_as_they_are_written() {
        for (text, expected) in [
            ("1", 1),
            ("300M", 300_000_000),
            ("1.5G", 1_500_000_000),
            ("2gb", 2_000_000_000),
            ("512MiB", 512 << 20),
            ("0.5K", 500),
            ("1.000001M", 1_000_001),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "M", "0", "-1", "1.2.3G", "1e9", "9999999999999G", "5X", "1iB", "0.0000001G", "ßG"]
        {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}

//! `etalon mock`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use codec::Encoding;
use convert::Mock;
use eval::Progress;
use format::Existing;
use serde::Serialize;

use crate::arguments::HeldExperts;
use crate::commands::Outcome;
use crate::render::{Bar, Column, Style, Table};

/// Write a random checkpoint with the structure of a released one.
///
/// To test and to measure with instead of a download. A seed gives the same bytes on every machine.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  etalon mock --list
  etalon mock tiny-moe -o tiny/
  etalon mock 0.8B -o mock.gguf --dtype Q8_0 --layers 8
  etalon mock Qwen3.5-9B/config.json -o mock/ --seed 7 --experts split")]
pub struct Args {
    /// A preset (see --list), or a path to a config.json.
    #[arg(value_name = "PRESET|CONFIG.json", required_unless_present = "list")]
    what: Option<String>,
    /// Where to: a directory for hf, a file for gguf.
    #[arg(short, long, required_unless_present = "list", value_name = "OUT")]
    output: Option<PathBuf>,
    /// Which kind of checkpoint [default: gguf if OUT ends in .gguf, else hf].
    #[arg(long, value_enum)]
    format: Option<Form>,
    /// What weights are stored in: BF16, F32, F16; in GGUF also block encodings such as Q8_0.
    #[arg(long, default_value = "BF16", value_parser = encoding)]
    dtype: Encoding,
    /// Another number of layers: the first ones, or the pattern again and again.
    #[arg(long, value_name = "N")]
    layers: Option<usize>,
    /// Other values.
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// How a Hugging Face checkpoint holds experts.
    #[arg(long, value_enum, default_value = "packed")]
    experts: HeldExperts,
    /// Replace OUT if it exists.
    #[arg(long)]
    force: bool,
    /// Print the presets and write nothing.
    #[arg(long, conflicts_with_all = ["what", "output"])]
    list: bool,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Form {
    Hf,
    Gguf,
}

#[derive(Serialize)]
struct Written {
    output: PathBuf,
    parameters: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct Listed {
    name: &'static str,
    summary: &'static str,
}

fn encoding(name: &str) -> Result<Encoding, String> {
    Encoding::from_name(name).ok_or_else(|| "expected an encoding's name, such as BF16 or Q8_0".to_owned())
}

impl Args {
    pub fn run(self) -> anyhow::Result<Outcome> {
        if self.list {
            let presets = convert::mock::PRESETS.iter();
            let listed = presets.map(|preset| Listed { name: preset.name, summary: preset.summary });
            return Ok(Outcome::fine(listed.collect::<Vec<_>>(), |presets, _| list(presets)));
        }
        let what = self.what.context("nothing to write: name a preset or a config.json")?;
        let output = self.output.context("no output: give -o OUT")?;
        let mut mock =
            open(&what)?.with_seed(self.seed).with_dtype(self.dtype).with_experts(self.experts.into());
        if let Some(layers) = self.layers {
            mock = mock.with_layers(layers)?;
        }
        let named = output.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
        let form = self.format.unwrap_or(if named { Form::Gguf } else { Form::Hf });
        let existing = if self.force { Existing::Replace } else { Existing::Refuse };
        let bar = Bar::new();
        let bytes = if form == Form::Gguf { mock.gguf_bytes()? } else { mock.hf_bytes()? };
        bar.begin("writing weights", bytes);
        match form {
            Form::Hf => mock.write_hf(&output, existing, &mut |done, _| bar.reached(done))?,
            Form::Gguf => mock.write_gguf(&output, existing, &mut |done, _| bar.reached(done))?,
        }
        Ok(Outcome::fine(Written { output, parameters: mock.parameters(), bytes }, written))
    }
}

/// A preset by its name, or the model that a file describes; a GGUF file will call that by its directory's name.
fn open(what: &str) -> anyhow::Result<Mock> {
    let path = Path::new(what);
    if path.extension().is_none_or(|e| e != "json") {
        return Ok(Mock::preset(what)?);
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {what}"))?;
    let json = serde_json::from_str(&text).with_context(|| format!("{what} is not JSON"))?;
    let directory = path.parent().and_then(Path::file_name).unwrap_or(path.as_os_str());
    Mock::from_config(&directory.to_string_lossy(), &json).with_context(|| what.to_owned())
}

fn written(written: &Written, _: &Style) -> String {
    let Written { output, parameters, bytes } = written;
    format!("{}: {parameters} parameters in {bytes} bytes\n", output.display())
}

fn list(presets: &[Listed]) -> String {
    let mut table = Table::new(&[Column::Left("preset"), Column::Left("")]);
    presets.iter().for_each(|preset| table.row([preset.name.to_owned(), preset.summary.to_owned()]));
    table.lines().join("\n") + "\n"
}

//! `etalon bench`.

use std::process::Command;

use anyhow::Context;
use eval::{Bench, Benched, Phase};
use serde::Serialize;
use serde_json::Value;

use crate::arguments::{Engine, Kv, ModelArgs};
use crate::commands::Outcome;
use crate::render::{Bar, Column, Style, Table};

/// Measure how fast an engine is, and how near to what memory allows.
///
/// Random tokens; the best of several runs counts. GB/s is bytes of weights that a token reads; beside it stands what the
/// same threads read from memory when they do nothing else. Shares are of the time between points of a pass, and memory
/// is the most that the process held beside the file: both of a run of their own.
///
/// --context measures one text as it grows: the time of the prompt up to each length, and of --decode tokens there.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  etalon bench model.gguf
  etalon bench model.gguf --prefill 0 --decode 16 --depth 32000 --threads 1
  etalon bench model.gguf --vs 'llama-bench -m model.gguf -p 512 -n 64 -t 2 -o json'
  etalon bench model.gguf --prefill 0 --decode 16 --context 1024,8192,32768
  etalon bench model.gguf --prefill 4096 --decode 0 --repeat 1 --kv f16
  etalon bench model.gguf --json | jq .decode.tokens_per_second")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Tokens of a prompt; 0 leaves it out.
    #[arg(long, value_name = "N", default_value_t = 512)]
    prefill: usize,
    /// Tokens after it, one at a time; 0 leaves it out.
    #[arg(long, value_name = "N", default_value_t = 64)]
    decode: usize,
    /// Tokens that the text has before either begins.
    #[arg(long, value_name = "N", default_value_t = 0)]
    depth: usize,
    /// Runs of each, of which the best counts.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    repeat: u8,
    /// CPU threads [default: all].
    #[arg(long, value_name = "N", value_parser = crate::arguments::threads)]
    threads: Option<usize>,
    /// What computes.
    #[arg(long, value_enum, default_value_t)]
    engine: Engine,
    /// How keys and values are kept [default: f32].
    #[arg(long, value_enum, value_name = "TYPE")]
    kv: Option<Kv>,
    /// Measure at these lengths of a text, besides.
    #[arg(long, value_name = "N,N,…", value_delimiter = ',')]
    context: Vec<usize>,
    /// Run another program first and compare: a shell command that prints llama-bench's JSON, or this command's.
    #[arg(long, value_name = "CMD")]
    vs: Option<String>,
}

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    benched: Benched,
    #[serde(skip_serializing_if = "Option::is_none")]
    vs: Option<Versus>,
}

/// Another program, and how much faster we are.
#[derive(Serialize)]
struct Versus {
    command: String,
    #[serde(flatten)]
    rates: Rates,
    prefill_ratio: Option<f64>,
    decode_ratio: Option<f64>,
}

/// Tokens a second.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Rates {
    prefill: Option<f64>,
    decode: Option<f64>,
}

/// How many parts of a pass are listed.
const LISTED: usize = 8;

impl Args {
    pub fn run(self) -> anyhow::Result<Outcome> {
        let checkpoint = self.model.open()?;
        let bar = Bar::new();
        let rates = match &self.vs {
            Some(command) => {
                eval::Progress::begin(&bar, "running the other program", 0);
                Some((command.clone(), other(command)?))
            }
            None => None,
        };
        let what = Bench {
            engine: self.engine.into(),
            prefill: self.prefill,
            decode: self.decode,
            depth: self.depth,
            repeat: self.repeat.into(),
            threads: eval::threads(self.threads),
            kv: self.kv.map(eval::Kv::from),
            contexts: self.context,
            progress: &bar,
        };
        let benched = eval::bench(&checkpoint, &what)?;
        let ratio =
            |ours: &Option<Phase>, theirs: Option<f64>| Some(ours.as_ref()?.tokens_per_second / theirs?);
        let vs = rates.map(|(command, rates)| Versus {
            command,
            prefill_ratio: ratio(&benched.prefill, rates.prefill),
            decode_ratio: ratio(&benched.decode, rates.decode),
            rates,
        });
        Ok(Outcome::fine(Report { benched, vs }, text))
    }
}

fn other(command: &str) -> anyhow::Result<Rates> {
    let output = Command::new("sh").args(["-c", command]).output();
    let output = output.with_context(|| format!("cannot run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().last().unwrap_or_default();
    anyhow::ensure!(output.status.success(), "{command:?} failed ({}): {last}", output.status);
    let json = serde_json::from_slice(&output.stdout).with_context(|| {
        format!("{command:?}: expected JSON on its standard output (llama-bench: -o json)")
    })?;
    let rates = rates(&json);
    anyhow::ensure!(rates != Rates::default(), "{command:?}: found no tokens per second in what it printed");
    Ok(rates)
}

/// llama-bench: a list of tests, with tokens of prompt and generation and their mean speed. Ours: two phases.
fn rates(json: &Value) -> Rates {
    match json {
        Value::Array(tests) => {
            let find = |of: &str, not: &str| {
                let test = tests.iter().find(|t| t[of].as_u64() > Some(0) && t[not].as_u64() == Some(0))?;
                test["avg_ts"].as_f64()
            };
            Rates { prefill: find("n_prompt", "n_gen"), decode: find("n_gen", "n_prompt") }
        }
        json => {
            let rate = |phase: &str| json[phase]["tokens_per_second"].as_f64();
            Rates { prefill: rate("prefill"), decode: rate("decode") }
        }
    }
}

fn text(report: &Report, style: &Style) -> String {
    let benched = &report.benched;
    let gigabytes = |bytes: f64| format!("{:.1} GB/s", bytes / 1e9);
    let mut lines = vec![
        format!("model      {}", benched.model),
        format!(
            "engine     {}, {} threads, keys and values in {}",
            benched.engine.name(),
            benched.threads,
            benched.kv
        ),
        format!("weights    {:.3} GB a token", benched.weight_bytes as f64 / 1e9),
        format!("memory     {}", gigabytes(benched.memory_bytes_per_second)),
        format!(
            "load       {} ms to the first token's logits, file in memory: opening {}, weights and tokenizer {}, token {}",
            milliseconds(benched.load.seconds),
            milliseconds(benched.load.open_seconds),
            milliseconds(benched.load.ready_seconds),
            milliseconds(benched.load.first_token_seconds)
        ),
    ];
    if benched.depth > 0 {
        lines.push(format!("depth      {} tokens before", benched.depth));
    }
    for (name, phase) in [("prefill", &benched.prefill), ("decode", &benched.decode)] {
        let Some(phase) = phase else { continue };
        let read = match (phase.weight_bytes_per_second, phase.of_memory) {
            (Some(weights), Some(share)) => {
                format!(", {} = {:.0} % of memory", gigabytes(weights), share * 100.0)
            }
            _ => String::new(),
        };
        let speed = style.bold(&format!("{:.1} tok/s", phase.tokens_per_second));
        let held = held(phase.peak_anonymous_bytes);
        lines.push(format!("{name:<11}{} tokens: {speed}{read}{held}", phase.tokens));
    }
    if let Some(vs) = &report.vs {
        let ratio = |name: &str, rate: Option<f64>, ratio: Option<f64>| {
            rate.map(|rate| match ratio {
                Some(ratio) => format!("{name} {rate:.1} tok/s, here {ratio:.2} times that"),
                None => format!("{name} {rate:.1} tok/s"),
            })
        };
        let parts = [
            ratio("prefill", vs.rates.prefill, vs.prefill_ratio),
            ratio("decode", vs.rates.decode, vs.decode_ratio),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        lines.push(format!("other      {}; {}", vs.command, parts.join("; ")));
    }
    if !benched.growth.is_empty() {
        lines.push(String::new());
        lines.extend(grown(benched).lines());
    }
    let mut table =
        Table::new(&[Column::Left("time until"), Column::Right("prefill"), Column::Right("decode")]);
    let phases = [&benched.prefill, &benched.decode];
    let share = |phase: &Option<Phase>, point: &str| {
        let shares = phase.iter().flat_map(|phase| &phase.shares);
        shares.filter(|s| s.point == point).map(|s| s.share).sum::<f64>()
    };
    let mut points: Vec<&str> =
        phases.iter().flat_map(|p| p.iter()).flat_map(|p| &p.shares).map(|s| s.point.as_str()).collect();
    points.sort_unstable();
    points.dedup();
    let most = |point: &str| phases.iter().map(|phase| share(phase, point)).fold(0.0, f64::max);
    points.sort_by(|a, b| most(b).total_cmp(&most(a)));
    let percent = |phase: &Option<Phase>, share: f64| match phase {
        Some(_) => format!("{:.1} %", share * 100.0),
        None => String::new(),
    };
    for point in points.iter().take(LISTED) {
        let [prefill, decode] = phases.map(|phase| percent(phase, share(phase, point)));
        table.row([(*point).to_owned(), prefill, decode]);
    }
    let rest = |phase: &Option<Phase>| points.iter().skip(LISTED).map(|point| share(phase, point)).sum();
    if points.len() > LISTED {
        let [prefill, decode] = phases.map(|phase| percent(phase, rest(phase)));
        table.row([format!("{} others", points.len() - LISTED), prefill, decode]);
    }
    if !points.is_empty() {
        lines.push(String::new());
        lines.extend(table.lines());
    }
    lines.join("\n") + "\n"
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.0}", seconds * 1e3)
}

fn held(bytes: Option<u64>) -> String {
    bytes.map(|bytes| format!(", {:.0} MB of memory", bytes as f64 / 1e6)).unwrap_or_default()
}

/// One line a length.
fn grown(benched: &Benched) -> Table {
    let mut table = Table::new(&[
        Column::Right("context"),
        Column::Right("prompt"),
        Column::Right("tok/s"),
        Column::Right("decode, ms"),
        Column::Right("tok/s"),
        Column::Right("state, MB"),
        Column::Right("memory, MB"),
    ]);
    let megabytes =
        |bytes: Option<u64>| bytes.map_or_else(|| "–".into(), |b| format!("{:.0}", b as f64 / 1e6));
    for at in &benched.growth {
        table.row([
            at.context.to_string(),
            format!("{} in {:.1} s", at.prefill_tokens, at.prefill_seconds),
            format!("{:.1}", at.prefill_tokens_per_second),
            format!("{:.1}", at.decode_seconds_per_token * 1e3),
            format!("{:.1}", 1.0 / at.decode_seconds_per_token),
            megabytes(at.state_bytes.map(|b| b as u64)),
            megabytes(at.peak_anonymous_bytes),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn speeds_are_read_from_either_form() {
        let theirs = json!([
            {"n_prompt": 512, "n_gen": 0, "avg_ts": 295.5, "backend": "CPU"},
            {"n_prompt": 0, "n_gen": 64, "avg_ts": 53.25}
        ]);
        assert_eq!(rates(&theirs), Rates { prefill: Some(295.5), decode: Some(53.25) });
        let ours = json!({"prefill": {"tokens_per_second": 10.0}, "decode": null});
        assert_eq!(rates(&ours), Rates { prefill: Some(10.0), decode: None });
        assert_eq!(rates(&json!([])), Rates::default());
    }
}

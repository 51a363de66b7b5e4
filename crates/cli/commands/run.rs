//! `etalon run`.

use std::collections::BTreeSet;
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Context;
use eval::{Finish, Generate, Generated, Go, Made, Message, Sampling, Template, Text};
use model::Checkpoint;
use model::tokenizer::Tokenizer;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::arguments::{Engine, Kv, ModelArgs};
use crate::commands::Outcome;
use crate::render::Bar;

/// Let a model write: continue a prompt, or chat.
///
/// Text goes to standard output as it is made, tokens per second to standard error. Greedy unless --temp is given: then
/// the same tokens come from either engine, on every machine. A text ends at a token that the checkpoint names
/// (generation_config.json, or GGUF's keys), at a --stop string, after -n tokens, or when the context is full.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  etalon run model.gguf --prompt 'The capital of France is' -n 32
  etalon run Qwen3.5-0.8B --chat --system 'Answer briefly.' --template-var enable_thinking=false
  etalon run model.gguf --prompt-file essay.txt -n 200 --temp 0.7 --top-k 20 --top-p 0.8 --seed 1
  etalon run model.gguf --prompt 'Once' -n 8 --logprobs 3 --json
  etalon run model.gguf --prompt-file long.txt -n 0 --save-state long.state
  etalon run model.gguf --load-state long.state -n 64
  etalon run model.gguf --prompt-file long.txt -n 64 --kv f16")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    source: Source,
    /// At most so many tokens [default: until the text ends or the context is full].
    #[arg(short, long = "most", value_name = "N")]
    n: Option<usize>,
    #[command(flatten)]
    chat: ChatArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// End before this string; may be repeated.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Do not end at the checkpoint's tokens that end texts.
    #[arg(long)]
    ignore_end: bool,
    /// One line a token, with the natural logarithm of its probability and those of the K likeliest.
    #[arg(long, value_name = "K", num_args = 0..=1, default_missing_value = "0", value_parser = clap::value_parser!(u16).range(..=1000))]
    logprobs: Option<u16>,
    /// What computes.
    #[arg(long, value_enum, default_value_t)]
    engine: Engine,
    /// CPU threads [default: all]; the result is the same to the bit.
    #[arg(long, value_name = "N", value_parser = crate::arguments::threads)]
    threads: Option<usize>,
    /// How keys and values are kept: f32, or f16 in half the memory [default: f32, or as in --load-state].
    #[arg(long, value_enum, value_name = "TYPE", hide_possible_values = true)]
    kv: Option<Kv>,
    /// The longest text, in tokens [default: what the model was made for].
    #[arg(long, value_name = "TOKENS")]
    context: Option<usize>,
    /// Write the text and its state to a file when done, to go on from.
    #[arg(long, value_name = "FILE", conflicts_with = "chat")]
    save_state: Option<PathBuf>,
    /// Go on from a saved text. A prompt must begin with that text.
    #[arg(long, value_name = "FILE", conflicts_with = "chat")]
    load_state: Option<PathBuf>,
}

/// What the model goes on from.
#[derive(clap::Args)]
#[group(required = false, multiple = false)]
struct Source {
    /// Text to continue; special tokens in it are parsed, and nothing is added to it.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// The same from a file, taken as it is.
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
    /// Token ids to continue.
    #[arg(long, value_name = "1,2,3", value_delimiter = ',')]
    tokens: Option<Vec<u32>>,
    /// Answer each line of standard input, in the form of the checkpoint's chat template.
    #[arg(long)]
    chat: bool,
}

#[derive(clap::Args)]
struct ChatArgs {
    /// The system message of a chat.
    #[arg(long, value_name = "TEXT", requires = "chat", conflicts_with_all = ["prompt", "prompt_file", "tokens"], allow_hyphen_values = true)]
    system: Option<String>,
    /// A chat template instead of the checkpoint's own.
    #[arg(long, value_name = "FILE", requires = "chat", conflicts_with_all = ["prompt", "prompt_file", "tokens"])]
    template: Option<PathBuf>,
    /// What the template is to know besides, as JSON or else as text (enable_thinking=false); may be repeated.
    #[arg(long = "template-var", value_name = "NAME=VALUE", requires = "chat", conflicts_with_all = ["prompt", "prompt_file", "tokens"], value_parser = variable)]
    variables: Vec<(String, Value)>,
}

#[derive(clap::Args)]
struct SamplingArgs {
    /// Draw, with logits divided by this [default: take the likeliest].
    #[arg(long, value_name = "T", value_parser = at_least_zero)]
    temp: Option<f64>,
    /// Draw from the K likeliest only.
    #[arg(long, value_name = "K", requires = "temp")]
    top_k: Option<usize>,
    /// Draw from the likeliest that together reach this probability.
    #[arg(long, value_name = "P", requires = "temp", value_parser = fraction)]
    top_p: Option<f64>,
    /// Draw from those at least this fraction as likely as the likeliest.
    #[arg(long, value_name = "P", requires = "temp", value_parser = fraction)]
    min_p: Option<f64>,
    /// Makes draws repeatable: the same seed, the same text.
    #[arg(long, value_name = "N", requires = "temp", default_value_t = 0)]
    seed: u64,
    /// Make tokens that the text holds less likely: logits are divided by this if positive, multiplied if negative.
    #[arg(long, value_name = "X", value_parser = positive)]
    repeat_penalty: Option<f64>,
}

/// What was made, for --json.
#[derive(Serialize)]
struct Report {
    model: PathBuf,
    engine: &'static str,
    sampling: Sampling,
    /// Ids of the text before.
    prompt: Vec<u32>,
    #[serde(flatten)]
    generated: Generated,
    prompt_tokens_per_second: f64,
    tokens_per_second: f64,
}

/// A chat's turns, for --json.
#[derive(Serialize)]
struct Chat {
    messages: Vec<Message>,
    turns: Vec<Report>,
}

impl Args {
    pub fn run(self, json: bool) -> anyhow::Result<Outcome> {
        let checkpoint = self.model.open()?;
        anyhow::ensure!(
            self.source.is_given() || self.load_state.is_some(),
            "nothing to go on from: give --prompt, --prompt-file, --tokens, --chat or --load-state"
        );
        let (loaded, tokenizer) = eval::ready(&checkpoint, self.engine.into(), eval::threads(self.threads))?;
        let loaded = loaded.with_kv(self.kv.map(eval::Kv::from))?;
        let prompt = self.source.read(&tokenizer)?;
        let what = self.what(&checkpoint, &tokenizer)?;
        let session = Session { args: &self, checkpoint: &checkpoint, tokenizer: &tokenizer, what, json };
        if self.source.chat {
            return session.chat(Text::new(&loaded));
        }
        let identity = if self.load_state.is_some() || self.save_state.is_some() {
            eval::identity(&checkpoint)
        } else {
            String::new()
        };
        let mut text = match &self.load_state {
            Some(path) => Text::load(&loaded, path, &identity)?,
            None => Text::new(&loaded),
        };
        if let Some(prompt) = prompt {
            text.extend_to(&prompt)?;
        }
        let report = session.generate(&mut text)?;
        if let Some(path) = &self.save_state {
            text.save(path, &identity)?;
        }
        Ok(Outcome::fine(report, |_, _| String::new()))
    }

    fn what(&self, checkpoint: &Checkpoint, tokenizer: &Tokenizer) -> anyhow::Result<Generate> {
        let ends = match self.ignore_end {
            true => BTreeSet::new(),
            false => eval::end_tokens(checkpoint, Some(tokenizer), self.source.chat)?,
        };
        Ok(Generate {
            most: self.n.unwrap_or(usize::MAX),
            sampling: self.sampling.sampling(),
            ends,
            stops: self.stop.clone(),
            context: self.context.unwrap_or(checkpoint.config().max_position_embeddings),
            logprobs: self.logprobs.map(usize::from),
            allow_nonfinite: self.model.non_finite() == model::NonFinitePolicy::Allow,
        })
    }
}

impl Source {
    fn is_given(&self) -> bool {
        self.prompt.is_some() || self.prompt_file.is_some() || self.tokens.is_some() || self.chat
    }

    fn read(&self, tokenizer: &Tokenizer) -> anyhow::Result<Option<Vec<u32>>> {
        let tokens = match (&self.prompt, &self.prompt_file, &self.tokens) {
            (Some(text), ..) => tokenizer.encode(text)?,
            (_, Some(file), _) => {
                let text = std::fs::read_to_string(file);
                tokenizer.encode(&text.with_context(|| format!("cannot read {}", file.display()))?)?
            }
            (_, _, Some(tokens)) => tokens.clone(),
            _ => return Ok(None),
        };
        anyhow::ensure!(!tokens.is_empty(), "the prompt is empty: a forward pass needs at least one token");
        Ok(Some(tokens))
    }
}

impl SamplingArgs {
    fn sampling(&self) -> Sampling {
        let none = Sampling::default();
        Sampling {
            temperature: self.temp.unwrap_or(none.temperature),
            top_k: self.top_k.unwrap_or(none.top_k),
            top_p: self.top_p.unwrap_or(none.top_p),
            min_p: self.min_p.unwrap_or(none.min_p),
            repeat_penalty: self.repeat_penalty.unwrap_or(none.repeat_penalty),
            seed: self.seed,
        }
    }
}

/// One run of the command: what it writes with, and where.
struct Session<'a> {
    args: &'a Args,
    checkpoint: &'a Checkpoint,
    tokenizer: &'a Tokenizer,
    what: Generate,
    json: bool,
}

impl Session<'_> {
    /// Goes on with a text, and shows it meanwhile.
    fn generate(&self, text: &mut Text<'_, '_>) -> anyhow::Result<Report> {
        let prompt = text.tokens().to_vec();
        let bar = Bar::new();
        let show =
            |made: Option<&Made>, piece: &str| if self.show(made, piece).is_ok() { Go::On } else { Go::Off };
        let generated = eval::generate(text, self.tokenizer, &self.what, &bar, &mut { show })?;
        drop(bar);
        if !self.json {
            if self.what.logprobs.is_none() && !generated.tokens.is_empty() {
                let _ = writeln!(std::io::stdout()); // nobody reads it any more, if so
            }
            eprintln!("{}", summary(&generated, self.what.context));
        }
        Ok(Report {
            model: self.checkpoint.path().to_owned(),
            engine: text.engine().name(),
            sampling: self.what.sampling.clone(),
            prompt,
            prompt_tokens_per_second: generated.prompt_rate(),
            tokens_per_second: generated.decode_rate(),
            generated,
        })
    }

    fn show(&self, made: Option<&Made>, piece: &str) -> std::io::Result<()> {
        if self.json {
            return Ok(());
        }
        let mut stdout = std::io::stdout().lock();
        match (self.what.logprobs, made) {
            (None, _) => stdout.write_all(piece.as_bytes())?,
            (Some(_), Some(made)) => {
                let top = made.top.iter().map(|t| format!("  {} {:?} {:.4}", t.id, t.text, t.logprob));
                let (top, logprob) = (top.collect::<String>(), made.logprob.unwrap_or(f64::NAN));
                writeln!(stdout, "{} {:?} {logprob:.4}{top}", made.id, made.text)?;
            }
            // Text that was held back is of tokens that have had their line.
            (Some(_), None) => {}
        }
        stdout.flush()
    }

    /// Answers lines until there are no more.
    fn chat(&self, mut text: Text<'_, '_>) -> anyhow::Result<Outcome> {
        let args = &self.args.chat;
        let template = match &args.template {
            Some(file) => {
                let source = std::fs::read_to_string(file);
                Template::new(&source.with_context(|| format!("cannot read {}", file.display()))?)?
            }
            None => Template::of(self.checkpoint)?,
        };
        let variables: Map<String, Value> = args.variables.iter().cloned().collect();
        let system = args.system.iter().map(|text| Message::new("system", text));
        let mut chat = Chat { messages: system.collect(), turns: Vec::new() };
        let talks = std::io::stdin().is_terminal() && !self.json;
        // The text up to each question: a template may leave the thinking of an answer out once the next one comes.
        let mut asked = text.fork();
        let mut question = variables.clone();
        question.insert("add_generation_prompt".to_owned(), false.into());
        let mut lines = std::io::stdin().lock().lines();
        loop {
            if talks {
                eprint!("> ");
            }
            let Some(line) = lines.next() else { break };
            let line = line.context("cannot read standard input")?;
            if line.trim().is_empty() {
                continue;
            }
            chat.messages.push(Message::new("user", line));
            let render = |variables| {
                anyhow::Ok(self.tokenizer.encode(&template.render(&chat.messages[..], variables)?)?)
            };
            let (tokens, to_question) = (render(&variables)?, render(&question)?);
            if !tokens.starts_with(text.tokens()) {
                text = if tokens.starts_with(asked.tokens()) { asked } else { text.restart() };
            }
            if tokens.starts_with(&to_question) && to_question.starts_with(text.tokens()) {
                text.extend_to(&to_question)?;
                text.settle(&Bar::new())?;
            }
            asked = text.fork();
            text.extend_to(&tokens)?;
            let turn = self.generate(&mut text)?;
            chat.messages.push(Message::new("assistant", turn.generated.text.clone()));
            let closed = turn.generated.finish == Finish::Closed;
            chat.turns.push(turn);
            if closed {
                break;
            }
        }
        if talks {
            eprintln!();
        }
        anyhow::ensure!(!chat.turns.is_empty(), "nothing to answer: standard input had no line");
        Ok(Outcome::fine(chat, |_, _| String::new()))
    }
}

/// One line for standard error.
fn summary(made: &Generated, context: usize) -> String {
    let rate = |rate: f64| if rate.is_finite() { format!(" ({rate:.1} tok/s)") } else { String::new() };
    let why = match made.finish {
        Finish::End | Finish::Stop | Finish::Closed => String::new(),
        Finish::Length => "; stopped by -n".to_owned(),
        Finish::Context => format!("; stopped: the context of {context} tokens is full (--context)"),
    };
    format!(
        "prompt {} tokens{}, generated {}{}{why}",
        made.prompt_tokens,
        rate(made.prompt_rate()),
        made.tokens.len(),
        rate(made.decode_rate())
    )
}

fn variable(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok((name.to_owned(), value))
}

fn number(text: &str, expected: &str, fits: fn(f64) -> bool) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if fits(number) => Ok(number),
        _ => Err(format!("expected {expected}")),
    }
}

fn at_least_zero(text: &str) -> Result<f64, String> {
    number(text, "a number of at least 0", |x| x >= 0.0 && x.is_finite())
}

fn positive(text: &str) -> Result<f64, String> {
    number(text, "a number above 0", |x| x > 0.0 && x.is_finite())
}

fn fraction(text: &str) -> Result<f64, String> {
    number(text, "a number from 0 to 1", |x| (0.0..=1.0).contains(&x))
}

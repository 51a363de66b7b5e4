//! Makes text.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use model::tokenizer::Tokenizer;
use serde::Serialize;

use crate::sampler::Sampling;
use crate::stream::Stream;
use crate::{Error, Progress, Text};

/// What to make.
#[derive(Clone, Debug)]
pub struct Generate {
    /// At most so many tokens.
    pub most: usize,
    /// How each is chosen.
    pub sampling: Sampling,
    /// Tokens that end the text.
    pub ends: BTreeSet<u32>,
    /// Strings that end the text; neither they nor what follows is given out.
    pub stops: Vec<String>,
    /// The longest text, in tokens.
    pub context: usize,
    /// Of each token, the log-probabilities of it and of so many of the likeliest.
    pub logprobs: Option<usize>,
    /// Whether logits that are not finite are chosen from instead of refused.
    pub allow_nonfinite: bool,
}

/// Why it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// A token that ends texts.
    End,
    /// A stop string.
    Stop,
    /// As many tokens as were asked for.
    Length,
    /// The context is full.
    Context,
    /// Whoever listens has heard enough.
    Closed,
}

/// One token that was made.
#[derive(Clone, Debug, Serialize)]
pub struct Made {
    /// Its id.
    pub id: u32,
    /// Its own text, U+FFFD where it is part of a character.
    pub text: String,
    /// Natural logarithm of its probability before any temperature or penalty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprob: Option<f64>,
    /// The likeliest at this place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<Likely>,
}

/// A token that might have come.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Likely {
    /// Its id.
    pub id: u32,
    /// Its own text.
    pub text: String,
    /// As [`Made::logprob`].
    pub logprob: f64,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Generated {
    /// The text that was given out.
    pub text: String,
    /// The tokens, one that ends the text included.
    pub tokens: Vec<Made>,
    /// Why it ended.
    pub finish: Finish,
    /// Tokens of the prompt that were run, those of a loaded state not counted.
    pub prompt_tokens: usize,
    /// Seconds until the first token's logits were there.
    pub prompt_seconds: f64,
    /// Seconds of the passes after that.
    pub decode_seconds: f64,
    /// How many those were.
    pub decode_passes: usize,
}

impl Generated {
    /// Tokens a second of the prompt.
    pub fn prompt_rate(&self) -> f64 {
        self.prompt_tokens as f64 / self.prompt_seconds
    }

    /// Tokens a second after it.
    pub fn decode_rate(&self) -> f64 {
        self.decode_passes as f64 / self.decode_seconds
    }
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Go {
    /// Yes.
    On,
    /// No: nobody listens any more.
    Off,
}

/// Tokens that room is made for before they are made: a text that goes on longer outgrows it step by step.
const AHEAD: usize = 4096;

/// Appends tokens to `text`, and hands out each with the text that is certain by then; what was held back comes last,
/// without a token. At its end all tokens but the last have been run.
///
/// # Errors
/// No tokens to begin with, a prompt that leaves no room in the context, logits that are not finite.
pub fn generate(
    text: &mut Text<'_, '_>,
    tokenizer: &Tokenizer,
    what: &Generate,
    progress: &dyn Progress,
    hear: &mut dyn FnMut(Option<&Made>, &str) -> Go,
) -> Result<Generated, Error> {
    let (held, context) = (text.tokens.len(), what.context);
    if held == 0 {
        return Err(reference::Error::Empty.into());
    }
    if held > context || (held == context && what.most > 0) {
        return Err(Error::Context { tokens: held, context });
    }
    let (loaded, seen) = (text.loaded(), text.state.position());
    let start = Instant::now();
    let mut logits = Vec::new();
    loaded.reserve(&mut text.state, held - seen + what.most.min(context - held).min(AHEAD));
    match what.most {
        0 => text.settle(progress)?,
        _ => logits = loaded.prefill(&text.tokens[seen..], &mut text.state, progress)?,
    }
    let run = text.state.position();
    let prompt_seconds = start.elapsed().as_secs_f64();
    progress.finished();
    let mut stream = Stream::new(what.stops.clone());
    let (mut given, mut made, mut decode) = (String::new(), Vec::new(), Duration::ZERO);
    let finish = loop {
        if made.len() == what.most {
            break Finish::Length;
        }
        if text.tokens.len() >= context {
            break Finish::Context;
        }
        if !made.is_empty() {
            let start = Instant::now();
            drop(std::mem::take(&mut logits)); // 2 MB, and as many come
            logits = loaded.forward(&text.tokens[text.tokens.len() - 1..], &mut text.state)?;
            decode += start.elapsed();
        }
        if let Some(token) = logits.iter().position(|x| !x.is_finite()).filter(|_| !what.allow_nonfinite) {
            let (position, value) = (text.tokens.len() - 1, logits[token]);
            return Err(Error::Logits { position, token, value });
        }
        let id = what.sampling.choose(&logits, &text.tokens);
        text.tokens.push(id);
        let ends = what.ends.contains(&id);
        let piece = if ends { String::new() } else { stream.push(&tokenizer.bytes(id)) };
        given += &piece;
        let token = describe(id, &logits, tokenizer, what.logprobs);
        let go = hear(Some(&token), &piece);
        made.push(token);
        if ends {
            break Finish::End;
        }
        if stream.stopped() {
            break Finish::Stop;
        }
        if go == Go::Off {
            break Finish::Closed;
        }
    };
    let rest = stream.finish();
    if !rest.is_empty() {
        hear(None, &rest);
        given += &rest;
    }
    Ok(Generated {
        text: given,
        decode_passes: made.len().saturating_sub(1),
        tokens: made,
        finish,
        prompt_tokens: run - seen,
        prompt_seconds,
        decode_seconds: decode.as_secs_f64(),
    })
}

fn describe(id: u32, logits: &[f64], tokenizer: &Tokenizer, top: Option<usize>) -> Made {
    let text = |id| String::from_utf8_lossy(&tokenizer.bytes(id)).into_owned();
    let Some(top) = top else { return Made { id, text: text(id), logprob: None, top: Vec::new() } };
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|x| libm::exp(x - largest)).sum();
    let logprob = |id: u32| logits[id as usize] - largest - libm::log(sum);
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let by_logit = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    if top < order.len() {
        order.select_nth_unstable_by(top, by_logit);
        order.truncate(top);
    }
    order.sort_unstable_by(by_logit);
    let top = order.into_iter().map(|id| Likely { id, text: text(id), logprob: logprob(id) }).collect();
    Made { id, text: text(id), logprob: Some(logprob(id)), top }
}

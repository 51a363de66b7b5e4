//! How speed changes as a text grows.

use std::time::Instant;

use serde::Serialize;

use crate::memory::peak_during;
use crate::{Error, Loaded, Progress};

/// What was measured at one length of a text.
#[derive(Clone, Debug, Serialize)]
pub struct Growth {
    /// Tokens before those that are decoded.
    pub context: usize,
    /// Tokens of the prompt that led here from the length before.
    pub prefill_tokens: usize,
    /// Seconds that those took.
    pub prefill_seconds: f64,
    /// Of those.
    pub prefill_tokens_per_second: f64,
    /// Tokens that were decoded here, one at a time.
    pub decode_tokens: usize,
    /// Median of their times.
    pub decode_seconds_per_token: f64,
    /// Bytes of caches and states, where the engine says.
    pub state_bytes: Option<usize>,
    /// The most anonymous memory of this process meanwhile, where the system says.
    pub peak_anonymous_bytes: Option<u64>,
}

/// One text of these tokens: read up to each of `contexts`, and there `decode` tokens one at a time, which belong to the
/// text. Contexts ascend by more than `decode`, and `tokens` are enough.
pub(crate) fn growth(
    loaded: &Loaded<'_>,
    tokens: &[u32],
    contexts: &[usize],
    decode: usize,
    progress: &dyn Progress,
) -> Result<Vec<Growth>, Error> {
    let mut state = loaded.start();
    let step = |&context: &usize| {
        let prompt = &tokens[state.position()..context];
        let (measured, peak) = peak_during(|| -> Result<_, Error> {
            let start = Instant::now();
            loaded.prefill(prompt, &mut state, progress)?;
            let prefill = start.elapsed().as_secs_f64();
            let mut times = Vec::with_capacity(decode);
            for token in &tokens[context..context + decode] {
                let start = Instant::now();
                loaded.forward(std::slice::from_ref(token), &mut state)?;
                times.push(start.elapsed().as_secs_f64());
            }
            times.sort_by(f64::total_cmp);
            Ok((prefill, times[decode / 2]))
        });
        let (prefill_seconds, decode_seconds_per_token) = measured?;
        Ok(Growth {
            context,
            prefill_tokens: prompt.len(),
            prefill_seconds,
            prefill_tokens_per_second: prompt.len() as f64 / prefill_seconds,
            decode_tokens: decode,
            decode_seconds_per_token,
            state_bytes: state.bytes(),
            peak_anonymous_bytes: peak,
        })
    };
    contexts.iter().map(step).collect()
}

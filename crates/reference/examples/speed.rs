//! Times the reference: `cargo run --release -p etalon-reference --example speed -- MODEL [THREADS]`.
//!
//! Prefill of 128 tokens, with the logits of all of them and of the last one, then decoding token by token. Three rounds;
//! `tools/speed_transformers.py` prints the same of Transformers.

use std::error::Error;
use std::time::Instant;

use model::{Checkpoint, NonFinitePolicy};
use reference::{Logits, Model, Precision, State};
use trace::{Tap, TapError, View};

/// As the executable has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PREFILL: usize = 128;
const DECODE: usize = 8;

/// Asks for the logits, which are not computed for nobody, and drops them.
struct WantsLogits;

impl Tap for WantsLogits {
    fn wants(&self, name: &str) -> bool {
        name == "lm_head"
    }

    fn record(&mut self, _: &str, _: View<'_>) -> Result<(), TapError> {
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: speed MODEL [THREADS]")?;
    let threads = arguments.next().map_or(Ok(2), |n| n.parse())?;
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;

    let checkpoint = Checkpoint::open(path.as_ref(), &Default::default())?;
    let config = checkpoint.config();
    let weights = checkpoint.weights(NonFinitePolicy::Refuse)?;
    let model = Model::new(config, weights, Precision::F32);
    let token = |i: usize| ((i * 7919 + 13) % config.vocab_size) as u32;
    let prompt: Vec<u32> = (0..PREFILL).map(token).collect();
    let rate = |tokens: usize, since: Instant| tokens as f64 / since.elapsed().as_secs_f64();
    for _ in 0..3 {
        let start = Instant::now();
        model.forward(&prompt, &mut State::new(config), Logits::All, &mut WantsLogits)?;
        let all = rate(PREFILL, start);
        let (start, mut state) = (Instant::now(), State::new(config));
        model.forward(&prompt, &mut state, Logits::Last, &mut trace::NoTap)?;
        let last = rate(PREFILL, start);
        let start = Instant::now();
        for i in 0..DECODE {
            model.forward(&[token(i * 31 + 5)], &mut state, Logits::Last, &mut trace::NoTap)?;
        }
        let decode = rate(DECODE, start);
        println!(
            "prefill {PREFILL}: {all:.1} tok/s, {last:.1} with the last logits only; decode {decode:.2} tok/s"
        );
    }
    Ok(())
}

//! Times the fast path: `cargo run --release -p etalon-fast --example fast_speed -- MODEL [THREADS] [PREFILL] [DECODE]`.
//!
//! Prefill, then decoding token by token with the logits of each, three rounds; the rate of reading weights counts every
//! matrix that a token passes through.

use std::error::Error;
use std::time::Instant;

use fast::{Logits, Model, Options, State};
use model::{Checkpoint, NonFinitePolicy};
use trace::NoTap;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: fast_speed MODEL [THREADS] [PREFILL] [DECODE]")?;
    let mut number = |default| arguments.next().map_or(Ok(default), |n| n.parse::<usize>());
    let (threads, prefill, decode) = (number(2)?, number(512)?, number(64)?);

    let start = Instant::now();
    let checkpoint = Checkpoint::open(path.as_ref(), &Default::default())?;
    let config = checkpoint.config();
    let weights = checkpoint.weights(NonFinitePolicy::Allow)?;
    let options = Options { threads: Some(threads), ..Options::default() };
    let model = Model::new(config, weights, options);
    let token = |i: usize| ((i * 7919 + 13) % config.vocab_size) as u32;
    model.forward(&[token(0)], &mut State::new(config), Logits::Last, &mut NoTap)?;
    println!(
        "first token after {:.0} ms; {} kernels",
        1e3 * start.elapsed().as_secs_f64(),
        model.kernels().name()
    );

    let prompt: Vec<u32> = (0..prefill).map(token).collect();
    let rate = |tokens: usize, since: Instant| tokens as f64 / since.elapsed().as_secs_f64();
    for _ in 0..3 {
        let (start, mut state) = (Instant::now(), State::new(config));
        if prefill > 0 {
            model.forward(&prompt, &mut state, Logits::Last, &mut NoTap)?;
        }
        let prefilled = rate(prefill, start);
        let start = Instant::now();
        for i in 0..decode {
            model.forward(&[token(i * 31 + 5)], &mut state, Logits::Last, &mut NoTap)?;
        }
        let decoded = rate(decode, start);
        println!("prefill {prefill}: {prefilled:.1} tok/s; decode {decode}: {decoded:.1} tok/s");
    }
    Ok(())
}

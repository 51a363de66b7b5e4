//! The fast path against the reference on the same file: every block fed the reference's input, and free-running.

use ::fast::{Kernels, Options};
use model::{Checkpoint, Config, Matrix, NonFinitePolicy, Weights};
use ndarray::Array2;
use reference::{Logits, Precision};
use trace::{Collect, Stats, Trace, Values, ValuesRef};

use crate::etalon::fixture;

/// Every mixer, every feed-forward part, Hk = Hv and not, tiled heads, split files, plain numbers and blocks.
pub const CHECKPOINTS: [&str; 12] = [
    "models/dense-text-f32",
    "models/dense-unequal-f32",
    "models/dense-vision-bf16",
    "models/moe-experts-f32",
    "models/moe-packed-bf16",
    "golden/dense-f32",
    "golden/moe-f32",
    "gguf-good/dense-text-f32-q8_0.gguf",
    "gguf-good/dense-vision-bf16-q8_0.gguf",
    "gguf-good/moe-experts-f32-f16-split-00001-of-00003.gguf",
    "gguf-good/moe-experts-f32-q8_0.gguf",
    "gguf-good/moe-packed-bf16-q8_0.gguf",
];

/// Of any point of a block that is fed the reference's input. Sums of n f32 products err by n·u²/3 of their squares at
/// most, 1e-12 for the widest row here; digits of 22 bits by less; what a layer does to either is within two decades.
pub const LOCAL: f64 = 1e-10;
/// Of the logits, free-running: what every layer adds.
pub const LOGITS: f64 = 1e-8;

pub fn open(checkpoint: &str) -> Checkpoint {
    Checkpoint::open(&fixture(checkpoint), &format::Limits::default()).unwrap()
}

/// Tokens all over the vocabulary, some of them twice.
pub fn text(config: &Config, tokens: usize) -> Vec<u32> {
    (0..tokens).map(|n| (n % 37 * 7919 % config.vocab_size) as u32).collect()
}

fn nmse(reference: &Values, candidate: &Values) -> f64 {
    let wide = candidate.as_ref().to_f64();
    Stats::of(reference.as_ref(), ValuesRef::F64(&wide)).expect("of one length").nmse
}

/// Both passes over `text` in calls of `calls` tokens, block by block. The worst NMSE of a point with its name, and that
/// of the free-running logits.
pub fn judge(
    config: &Config,
    weights: &Weights<Matrix>,
    calls: &[usize],
    kernels: Kernels,
) -> (f64, String, f64) {
    let exact = reference::Model::new(config, weights.clone(), Precision::F32);
    let fast = ::fast::Model::new(config, weights.clone(), Options { kernels, ..Options::default() });
    let (mut exact_state, mut local_state) = (reference::State::new(config), ::fast::State::new(config));
    let (mut truth, mut local) = (Collect::all(), Collect::all());
    let (mut free_state, mut free) = (::fast::State::new(config), Collect::all());
    let tokens = text(config, calls.iter().sum());
    let mut start = 0;
    for &call in calls {
        let tokens = &tokens[start..start + call];
        start += call;
        let mut one = Collect::all();
        exact.forward(tokens, &mut exact_state.clone(), Logits::All, &mut one).unwrap();
        let one = one.into_trace();
        for l in 0..config.num_hidden_layers {
            let before = if l == 0 { "model.embed_tokens".into() } else { format!("model.layers.{}", l - 1) };
            let x = one.get(&before).unwrap().values.as_ref().to_f64();
            let narrow =
                Array2::from_shape_vec((call, config.hidden_size), x.iter().map(|&x| x as f32).collect());
            fast.block(l, narrow.unwrap(), &mut local_state, &mut local).unwrap();
        }
        local_state.advance(call);
        exact.forward(tokens, &mut exact_state, Logits::All, &mut truth).unwrap();
        fast.forward(tokens, &mut free_state, ::fast::Logits::All, &mut free).unwrap();
    }
    let (truth, local, free) = (truth.into_trace(), local.into_trace(), free.into_trace());
    assert_eq!(names(&truth), names(&free), "both offer the same points in the same order");
    let mut worst = (0.0, String::new());
    let mut compared = 0;
    for name in local.names() {
        let found = nmse(&truth.get(name).unwrap().values, &local.get(name).unwrap().values);
        assert!(!found.is_nan(), "{name}");
        compared += 1;
        if found >= worst.0 {
            worst = (found, name.to_owned());
        }
    }
    assert!(compared >= 15 * config.num_hidden_layers, "only {compared} points");
    let logits = nmse(&truth.get("lm_head").unwrap().values, &free.get("lm_head").unwrap().values);
    (worst.0, worst.1, logits)
}

fn names(trace: &Trace) -> Vec<&str> {
    trace.names().collect()
}

#[track_caller]
pub fn expect_close(what: &str, (local, point, logits): (f64, String, f64)) {
    println!("{what}: local {local:.1e} at {point}, logits {logits:.1e}");
    assert!(local <= LOCAL, "{what}: {local:e} at {point}");
    assert!(logits <= LOGITS, "{what}: logits {logits:e}");
}

#[test]
fn every_fixture_agrees_with_the_reference() {
    for name in CHECKPOINTS {
        let checkpoint = open(name);
        let weights = checkpoint.weights(NonFinitePolicy::Refuse).unwrap();
        for calls in [&[41][..], &[1; 9], &[20, 1, 7]] {
            let found = judge(checkpoint.config(), &weights, calls, Kernels::detect());
            expect_close(&format!("{name} in calls of {calls:?}"), found);
        }
    }
}

/// The comparison can fail: a weight changed in one pass shows at its layer.
#[test]
fn a_changed_weight_shows() {
    let checkpoint = open("models/dense-text-f32");
    let config = checkpoint.config();
    let weights = checkpoint.weights(NonFinitePolicy::Refuse).unwrap();
    let mut changed = weights.clone();
    changed.layers[2].input_layernorm[3] *= 1.01;
    let run = |weights| {
        let model = ::fast::Model::new(config, weights, Options::default());
        let mut tap = Collect::all();
        let tokens = text(config, 8);
        model.forward(&tokens, &mut ::fast::State::new(config), ::fast::Logits::All, &mut tap).unwrap();
        tap.into_trace()
    };
    let (before, after) = (run(weights), run(changed));
    let of = |name: &str| nmse(&before.get(name).unwrap().values, &after.get(name).unwrap().values);
    assert_eq!(of("model.layers.1"), 0.0);
    assert!(of("model.layers.2.input_layernorm") > 1e-8);
    assert!(of("lm_head") > LOGITS);
}

//! Text of great length: errors of the fast engine must not grow, because its state forgets them.

use std::path::Path;

use codec::Encoding;
use convert::Mock;
use eval::Sampling;
use model::{Checkpoint, NonFinitePolicy};
use reference::Precision;
use trace::{Collect, NoTap, Stats, Trace, ValuesRef};

use crate::etalon::fixture;

/// Tokens that are compared together.
const WINDOW: usize = 200;

/// What a window of text has at a point in both engines: Σ(a−b)²/Σb².
fn distance(name: &str, exact: &Trace, fast: &[f32]) -> f64 {
    let exact = exact.get(name).unwrap();
    Stats::of(exact.values.as_ref(), ValuesRef::F32(fast)).expect("of one length").nmse
}

/// Lets the fast engine write `tokens` tokens, one at a time, and the reference read along. Returns the distance of the
/// logits in each window, and that of every state at the end.
fn drift(model: &Path, tokens: usize) -> (Vec<f64>, Vec<(String, f64)>) {
    let checkpoint = Checkpoint::open(model, &format::Limits::default()).unwrap();
    let config = checkpoint.config();
    let weights = || checkpoint.weights(NonFinitePolicy::Allow).unwrap();
    let options = fast::Options { threads: Some(1), ..fast::Options::default() };
    let quick = fast::Model::new(config, weights(), options);
    let exact = reference::Model::new(config, weights(), Precision::F32);
    let (mut quick_state, mut exact_state) = (fast::State::new(config), reference::State::new(config));
    let sampling = Sampling { temperature: 1.0, seed: 6, ..Sampling::default() };
    let (mut text, mut windows) = (vec![1u32], Vec::new());
    while text.len() <= tokens {
        let start = text.len() - 1;
        let mut logits = Vec::new();
        for _ in 0..WINDOW {
            let last = [text[text.len() - 1]];
            let row = quick.forward(&last, &mut quick_state, fast::Logits::Last, &mut NoTap).unwrap();
            let wide: Vec<f64> = row.iter().copied().map(f64::from).collect();
            text.push(sampling.choose(&wide, &text));
            logits.extend(row);
        }
        let mut tap = Collect::new(&["lm_head"]).unwrap();
        let call = &text[start..start + WINDOW];
        exact.forward(call, &mut exact_state, reference::Logits::All, &mut tap).unwrap();
        windows.push(distance("lm_head", &tap.into_trace(), &logits));
    }
    let states = || Collect::new(&["*_state"]).unwrap();
    let (mut ours, mut theirs) = (states(), states());
    let last = [text[text.len() - 1]];
    exact.forward(&last, &mut exact_state, reference::Logits::Last, &mut ours).unwrap();
    quick.forward(&last, &mut quick_state, fast::Logits::Last, &mut theirs).unwrap();
    let (ours, theirs) = (ours.into_trace(), theirs.into_trace());
    let states = ours.names().map(|name| {
        let fast: Vec<f32> =
            theirs.get(name).unwrap().values.as_ref().to_f64().iter().map(|&x| x as f32).collect();
        (name.to_owned(), distance(name, &ours, &fast))
    });
    (windows, states.collect())
}

/// What the engine's table allows a pass of its own; measured are 1e-12 in most windows, and 1e-10 in one where a router
/// hesitates.
const LIMIT: f64 = 1e-8;

/// Medians of a tenth of the windows differ by less than this from text to text; what grew with every token would grow
/// tenfold.
const GROWTH: f64 = 3.0;

fn judge(model: &Path, tokens: usize) {
    let (windows, states) = drift(model, tokens);
    let model = model.display();
    assert_eq!(windows.len(), tokens.div_ceil(WINDOW));
    let median = |windows: &[f64]| {
        let mut windows = windows.to_vec();
        windows.sort_by(f64::total_cmp);
        windows[windows.len() / 2]
    };
    let tenth = (windows.len() / 10).max(3);
    let (early, late) = (median(&windows[..tenth]), median(&windows[windows.len() - tenth..]));
    let worst = windows.iter().copied().fold(0.0, f64::max);
    println!(
        "{model}: {tokens} tokens; first tenth {early:.1e}, last tenth {late:.1e}, worst {worst:.1e}; {states:?}"
    );
    assert!(windows.iter().all(|&w| w > 0.0 && w <= LIMIT), "{worst:e}");
    assert!(late <= GROWTH * early, "{early:e} grew to {late:e}");
    assert!(!states.is_empty() && states.iter().all(|(_, distance)| *distance <= LIMIT), "{states:?}");
}

/// Mixers of a small model: one layer of attention, whose one head of eight numbers is what grows with the square of the
/// length.
const BOTH: &[&str] = &["linear_attention", "linear_attention", "full_attention"];
/// Those of one that takes a text of any length at the same pace.
const DELTA_NET: &[&str] = &["linear_attention", "linear_attention"];

/// Judges a model that is made for long texts: in Q8_0, so that rows are multiplied by whole numbers.
fn judge_small(mixers: &[&str], tokens: usize) {
    let config = serde_json::json!({
        "model_type": "qwen3_5_text", "hidden_act": "silu", "rms_norm_eps": 1e-6, "max_position_embeddings": 1 << 18,
        "vocab_size": 512, "hidden_size": 128, "num_hidden_layers": mixers.len(), "layer_types": mixers,
        "intermediate_size": 128, "tie_word_embeddings": true,
        "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 8, "attention_bias": false,
        "rope_parameters": {"partial_rotary_factor": 0.25, "rope_theta": 10000.0, "rope_type": "default"},
        "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 32,
        "linear_value_head_dim": 32, "linear_conv_kernel_dim": 4,
    });
    let room = tempfile::tempdir().unwrap();
    let file = room.path().join("small.gguf");
    let mock = Mock::from_config("small", &config).unwrap().with_dtype(Encoding::Q8_0);
    mock.write_gguf(&file, format::Existing::Refuse, &mut |_, _| {}).unwrap();
    judge(&file, tokens);
}

#[test]
fn errors_do_not_grow_over_two_thousand_tokens() {
    judge(&fixture("models/dense-unequal-f32"), 2000);
    judge(&fixture("models/moe-experts-f32"), 2000);
    judge_small(BOTH, 2000);
}

/// Its state fills for thousands of tokens, and errors with it; what counts is that they stop.
#[test]
fn states_do_not_drift_over_a_hundred_thousand_tokens() {
    judge_small(DELTA_NET, 100_000);
}

/// `cargo test --release --test tests -- --ignored drift --nocapture`: attention looks at all positions.
#[test]
#[ignore = "takes minutes"]
fn errors_do_not_grow_over_a_hundred_thousand_tokens() {
    judge_small(BOTH, 100_000);
}

//! What changes no bit of the fast path.

use std::path::Path;

use ::fast::{Error, Kernels, Kv, Logits, Model, Options, State};
use model::{Checkpoint, Config, LayerType, NonFinitePolicy};
use trace::{Collect, NoTap, Stats, Trace, Values, ValuesRef};

use crate::etalon::etalon;
use crate::fast::{open, text};

/// Every mixer, every feed-forward part, tiled heads, plain numbers and blocks with whole numbers.
const CHECKPOINTS: [&str; 5] = [
    "models/dense-unequal-f32",
    "models/moe-packed-bf16",
    "golden/dense-f32",
    "gguf-good/dense-text-f32-q8_0.gguf",
    "gguf-good/moe-experts-f32-q8_0.gguf",
];

const TOKENS: usize = 41;

fn run(checkpoint: &Checkpoint, options: Options, calls: &[usize]) -> (Trace, Vec<u32>) {
    let config = checkpoint.config();
    let model = Model::new(config, checkpoint.weights(NonFinitePolicy::Refuse).unwrap(), options);
    let (mut tap, mut state, tokens) = (Collect::all(), State::new(config), text(config, TOKENS));
    let (mut start, mut last) = (0, Vec::new());
    for &call in calls {
        last = model.forward(&tokens[start..start + call], &mut state, Logits::All, &mut tap).unwrap();
        start += call;
    }
    assert_eq!(state.position(), TOKENS);
    (tap.into_trace(), last.iter().map(|x| x.to_bits()).collect())
}

fn bits(trace: &Trace, name: &str) -> Vec<u64> {
    match trace.get(name).unwrap().values {
        Values::F32(values) => values.iter().map(|v| v.to_bits().into()).collect(),
        Values::I64(values) => values.iter().map(|v| *v as u64).collect(),
        Values::F64(_) => panic!("{name}: the fast path records f32"),
    }
}

fn assert_same(expected: &(Trace, Vec<u32>), found: &(Trace, Vec<u32>), what: &str) {
    let names: Vec<&str> = expected.0.names().collect();
    assert!(names.len() > 45, "{what}: only {} points", names.len());
    assert_eq!(names, found.0.names().collect::<Vec<_>>(), "{what}");
    for name in names {
        assert!(bits(&expected.0, name) == bits(&found.0, name), "{what}: {name} differs");
    }
    assert!(expected.1 == found.1, "{what}: the last logits differ");
}

fn with(threads: usize, kernels: Kernels) -> Options {
    Options { threads: Some(threads), kernels }
}

#[test]
fn threads_and_instruction_sets_change_nothing() {
    for name in CHECKPOINTS {
        let checkpoint = open(name);
        for calls in [&[TOKENS][..], &[1; TOKENS]] {
            let expected = run(&checkpoint, with(1, Kernels::detect()), calls);
            for threads in [2, 7] {
                let found = run(&checkpoint, with(threads, Kernels::detect()), calls);
                assert_same(&expected, &found, &format!("{name}, {threads} threads"));
            }
            for kernels in Kernels::all() {
                let found = run(&checkpoint, with(1, kernels), calls);
                assert_same(&expected, &found, &format!("{name}, {}", kernels.name()));
            }
        }
    }
}

/// Calls of one kind, few tokens or many: see docs/contract.md.
#[test]
fn splits_change_nothing() {
    for name in CHECKPOINTS {
        let checkpoint = open(name);
        let run = |calls: &[usize]| run(&checkpoint, with(2, Kernels::detect()), calls);
        let many = run(&[TOKENS]);
        for calls in [&[20, 21][..], &[5, 6, 30], &[36, 5], &[10, 10, 10, 11]] {
            assert_same(&many, &run(calls), &format!("{name} in calls of {calls:?}"));
        }
        let few = run(&[1; TOKENS]);
        let mut calls = [1, 2, 3, 4].repeat(4);
        calls.push(1);
        assert_same(&few, &run(&calls), &format!("{name} in calls of {calls:?}"));
    }
}

/// Which tokens of a call choose an expert, and so how many come to it together, changes nothing: rows here are wide enough for
/// few tokens and many to be multiplied differently.
#[test]
fn splits_change_nothing_for_experts_in_superblocks() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, path) = (dir.path().join("moe.gguf"), dir.path().join("moe-q4_k.gguf"));
    let said = |path: &Path| path.to_str().unwrap().to_owned();
    etalon(["mock", "tiny-moe", "-o", &said(&whole)]).expect(0);
    etalon(["quantize", &said(&whole), &said(&path), "Q4_K_M"]).expect(0);
    let checkpoint = Checkpoint::open(&path, &Default::default()).unwrap();
    let run = |calls: &[usize]| run(&checkpoint, with(2, Kernels::detect()), calls);
    let many = run(&[TOKENS]);
    for calls in [&[20, 21][..], &[5, 6, 30], &[36, 5]] {
        assert_same(&many, &run(calls), &format!("experts in calls of {calls:?}"));
    }
}

/// As many positions as attention takes at a time, and more: neither the calls nor the threads, which decide how queries
/// are put together, change a bit of any query.
#[test]
fn long_texts_have_the_bits_of_their_parts() {
    const LONG: usize = 300;
    for name in ["models/dense-unequal-f32", "gguf-good/moe-experts-f32-q8_0.gguf"] {
        let checkpoint = open(name);
        let config = checkpoint.config();
        let tokens = text(config, LONG);
        for kv in [Kv::F32, Kv::F16] {
            let run = |threads, kernels, call: usize| {
                let weights = checkpoint.weights(NonFinitePolicy::Refuse).unwrap();
                let model = Model::new(config, weights, with(threads, kernels));
                let (mut tap, mut state) = (Collect::all(), State::with_kv(config, kv));
                for tokens in tokens.chunks(call) {
                    model.forward(tokens, &mut state, Logits::Last, &mut tap).unwrap();
                }
                (tap.into_trace(), state)
            };
            for (one, calls) in [(LONG, &[150, 100, 7][..]), (4, &[1, 3])] {
                let (expected, state) = run(1, Kernels::detect(), one);
                let layer = config.layer_types.iter().position(|l| *l == LayerType::FullAttention).unwrap();
                let point = format!("model.layers.{layer}.self_attn.attn_out");
                let mut others: Vec<_> =
                    calls.iter().map(|&call| (call, run(3, Kernels::detect(), call))).collect();
                others.extend(Kernels::all().into_iter().map(|k| (one, run(2, k, one))));
                for (call, (found, after)) in others {
                    assert!(bits(&expected, &point) == bits(&found, &point), "{name} {kv:?} {one} {call}");
                    assert!(state == after, "{name} {kv:?} {one} {call}: the states differ");
                }
            }
        }
    }
}

#[test]
fn a_restored_state_continues() {
    for name in CHECKPOINTS {
        let checkpoint = open(name);
        let config = checkpoint.config();
        let weights = checkpoint.weights(NonFinitePolicy::Refuse).unwrap();
        let model = Model::new(config, weights, with(2, Kernels::detect()));
        let tokens = text(config, TOKENS);
        for kv in [Kv::F32, Kv::F16] {
            let mut state = State::with_kv(config, kv);
            model.forward(&tokens[..13], &mut state, Logits::Last, &mut NoTap).unwrap();
            let mut saved = Vec::new();
            state.save(&mut saved).unwrap();
            let mut restored = State::restore(&mut saved.as_slice(), config).unwrap();
            assert_eq!((&restored, restored.kv()), (&state, kv), "{name}");
            for &token in &tokens[13..20] {
                let a = model.forward(&[token], &mut state, Logits::Last, &mut NoTap).unwrap();
                let b = model.forward(&[token], &mut restored, Logits::Last, &mut NoTap).unwrap();
                assert_eq!(a, b, "{name}");
            }
            assert_eq!(restored, state, "{name}");
            refuses_damage(&saved, config);
        }
    }
}

/// Caches in f16 take half the memory, and the error of their rounding: 2⁻¹² of each number at most, spread evenly an
/// NMSE of 2⁻²⁴/12 to 2⁻²⁴/3 or 2e-8, of which softmax and the gate let some through to the logits.
#[test]
fn caches_in_f16_halve_memory_at_the_price_of_their_rounding() {
    const LIMIT: f64 = 1e-6;
    for name in CHECKPOINTS {
        let checkpoint = open(name);
        let config = checkpoint.config();
        let weights = checkpoint.weights(NonFinitePolicy::Refuse).unwrap();
        let model = Model::new(config, weights, with(2, Kernels::detect()));
        let tokens = text(config, TOKENS);
        let run = |kv: Kv, calls: &[usize]| {
            let (mut state, mut last, mut start) = (State::with_kv(config, kv), Vec::new(), 0);
            let before = state.bytes();
            for &call in calls {
                last = model
                    .forward(&tokens[start..start + call], &mut state, Logits::Last, &mut NoTap)
                    .unwrap();
                start += call;
            }
            (last, state.bytes() - before)
        };
        for calls in [&[TOKENS][..], &[1; TOKENS]] {
            let ((exact, cached), (rounded, half)) = (run(Kv::F32, calls), run(Kv::F16, calls));
            let attention = config.layer_types.iter().filter(|t| **t == LayerType::FullAttention).count();
            assert_eq!(cached, attention * TOKENS * config.num_key_value_heads * config.head_dim * 2 * 4);
            assert_eq!(half * 2, cached, "{name}");
            let [exact, rounded] = [&exact, &rounded].map(|logits| ValuesRef::F32(logits));
            let nmse = Stats::of(exact, rounded).unwrap().nmse;
            assert!(nmse > 0.0 && nmse < LIMIT, "{name}: {nmse:e}");
        }
    }
}

/// Cut short, gone on, of another kind, or of a number of tokens that it does not hold.
fn refuses_damage(saved: &[u8], config: &Config) {
    let restore = |bytes: &[u8]| State::restore(&mut { bytes }, config);
    for len in [0, 7, 20, 24, 32, saved.len() / 2, saved.len() - 1] {
        assert!(matches!(restore(&saved[..len]), Err(Error::State(_))), "{len} bytes");
    }
    assert!(matches!(restore(&[saved, &[0]].concat()), Err(Error::State(_))));
    for position in [0, 12, 14, 1 << 40, u64::MAX] {
        let mut other = saved.to_vec();
        other[16..24].copy_from_slice(&position.to_le_bytes());
        assert!(matches!(restore(&other), Err(Error::State(_))), "{position} tokens");
    }
    let mut other = saved.to_vec();
    other[24] ^= 32 ^ 16;
    assert!(matches!(restore(&other), Err(Error::State(_))), "caches of another width");
    other[24] = 8;
    assert!(matches!(restore(&other), Err(Error::State(_))), "caches of no width");
    let mut other = saved.to_vec();
    other[0] ^= 1;
    assert!(matches!(restore(&other), Err(Error::State(_))));
}

#[test]
fn bad_tokens_are_refused_before_the_state_moves() {
    let checkpoint = open("models/dense-text-f32");
    let config = checkpoint.config();
    let model = Model::new(config, checkpoint.weights(NonFinitePolicy::Refuse).unwrap(), Options::default());
    let mut state = State::new(config);
    assert!(matches!(model.forward(&[], &mut state, Logits::Last, &mut NoTap), Err(Error::Empty)));
    let error = model.forward(&[1, 512], &mut state, Logits::Last, &mut NoTap).unwrap_err();
    assert!(matches!(error, Error::Token { position: 1, token: 512, vocab_size: 512 }), "{error}");
    assert_eq!(state, State::new(config));
}

/// What must differ does, so that the comparisons above are not of nothing.
#[test]
fn another_text_is_another_answer() {
    let checkpoint = open("models/dense-text-f32");
    let config = checkpoint.config();
    let model = Model::new(config, checkpoint.weights(NonFinitePolicy::Refuse).unwrap(), Options::default());
    let of =
        |tokens: &[u32]| model.forward(tokens, &mut State::new(config), Logits::Last, &mut NoTap).unwrap();
    assert_ne!(of(&[1, 2, 3]), of(&[2, 1, 3]));
}

//! One answer, to the bit: whatever the threads, the calls, the instruction set.

use eval::{Run, Split};
use model::{Checkpoint, NonFinitePolicy};
use reference::{Activations, Kernels, Logits, Model, Precision, State};
use trace::{Collect, Extent, Trace, Values, point};

use crate::etalon::fixture;

/// Every mixer, every feed-forward part, every source of weights.
const CHECKPOINTS: [&str; 7] = [
    "models/dense-text-f32",
    "models/dense-unequal-f32",
    "models/dense-vision-bf16",
    "models/moe-experts-f32",
    "models/moe-packed-bf16",
    "gguf-good/dense-text-f32-q8_0.gguf",
    "golden/dense-f32",
];

/// Both precisions, and the second oracle.
const WAYS: [(Precision, Activations); 3] = [
    (Precision::F32, Activations::F32),
    (Precision::F64, Activations::F32),
    (Precision::F32, Activations::Q8),
];

/// As long as the text below, more than a tile of tokens and no multiple of one.
const TOKENS: usize = 41;

fn open(checkpoint: &str) -> Checkpoint {
    Checkpoint::open(&fixture(checkpoint), &format::Limits::default()).unwrap()
}

/// Tokens all over the vocabulary, some of them twice.
fn text(checkpoint: &Checkpoint) -> Vec<u32> {
    let vocab = checkpoint.config().vocab_size;
    (0..TOKENS).map(|n| (n % 37 * 7919 % vocab) as u32).collect()
}

/// Every point and the last logits.
fn run(checkpoint: &Checkpoint, how: &Run<'_>) -> (Trace, Vec<f64>) {
    let mut tap = Collect::all();
    let logits = eval::run(checkpoint, &text(checkpoint), how, &mut tap).unwrap();
    (tap.into_trace(), logits)
}

fn bits(trace: &Trace, name: &str) -> Vec<u64> {
    match trace.get(name).unwrap().values {
        Values::F32(values) => values.iter().map(|v| v.to_bits().into()).collect(),
        Values::F64(values) => values.iter().map(|v| v.to_bits()).collect(),
        Values::I64(values) => values.iter().map(|v| *v as u64).collect(),
    }
}

fn assert_same(expected: &(Trace, Vec<f64>), found: &(Trace, Vec<f64>), what: &str) {
    let names: Vec<&str> = expected.0.names().collect();
    assert!(names.len() > 50, "{what}: only {} points", names.len());
    assert_eq!(names, found.0.names().collect::<Vec<_>>(), "{what}");
    for name in names {
        assert!(bits(&expected.0, name) == bits(&found.0, name), "{what}: {name} differs");
    }
    let bits = |logits: &[f64]| logits.iter().map(|l| l.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&expected.1), bits(&found.1), "{what}: the last logits differ");
}

/// Every checkpoint in every way, by its plain run.
fn each(mut check: impl FnMut(&Checkpoint, Run<'static>, &(Trace, Vec<f64>), &str)) {
    for name in CHECKPOINTS {
        let checkpoint = open(name);
        for (precision, activations) in WAYS {
            let how = Run { precision, activations, threads: Some(1), ..Run::default() };
            let expected = run(&checkpoint, &how);
            let what = format!("{name} in {}, activations in {}", precision.name(), activations.name());
            check(&checkpoint, how, &expected, &what);
        }
    }
}

#[test]
fn threads_change_nothing() {
    each(|checkpoint, how, expected, what| {
        for threads in [1, 2, 7] {
            let found = run(checkpoint, &Run { threads: Some(threads), ..how.clone() });
            assert_same(expected, &found, &format!("{what}, {threads} threads"));
        }
    });
}

#[test]
fn instruction_sets_change_nothing() {
    each(|checkpoint, how, expected, what| {
        for kernels in Kernels::all() {
            let found = run(checkpoint, &Run { kernels, ..how.clone() });
            assert_same(expected, &found, &format!("{what}, {}", kernels.name()));
        }
    });
}

#[test]
fn calls_change_nothing() {
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut splits = vec![vec![1; TOKENS], vec![TOKENS - 1, 1]];
    for _ in 0..5 {
        let mut sizes = Vec::new();
        while sizes.iter().sum::<usize>() < TOKENS {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let left = TOKENS - sizes.iter().sum::<usize>();
            sizes.push((random >> 33) as usize % left.min(12) + 1);
        }
        splits.push(sizes);
    }
    each(|checkpoint, how, expected, what| {
        for sizes in &splits {
            let split = Split::Sizes(sizes.clone());
            let found = run(checkpoint, &Run { split, ..how.clone() });
            assert_same(expected, &found, &format!("{what}, calls of {sizes:?}"));
        }
    });
}

/// A state that went through bytes continues as if it had not.
#[test]
fn a_restored_state_continues() {
    const CUT: usize = 13;
    each(|checkpoint, how, expected, what| {
        let config = checkpoint.config();
        let weights = checkpoint.weights(NonFinitePolicy::Refuse).unwrap();
        let model = Model::new(config, weights, how.precision).with_activations(how.activations).unwrap();
        let tokens = text(checkpoint);
        let mut state = State::new(config);
        model.forward(&tokens[..CUT], &mut state, Logits::Last, &mut trace::NoTap).unwrap();
        let mut saved = Vec::new();
        state.save(&mut saved).unwrap();
        let mut restored = State::restore(&mut saved.as_slice(), config).unwrap();
        assert_eq!(restored, state);
        let mut tap = Collect::all();
        let logits = model.forward(&tokens[CUT..], &mut restored, Logits::All, &mut tap).unwrap();
        let found = tap.into_trace();
        for name in expected.0.names() {
            let whole = bits(&expected.0, name);
            let is_state = point::parse(name).unwrap().1.extent == Extent::State;
            let rest = if is_state { 0 } else { whole.len() / TOKENS * CUT };
            assert!(whole[rest..] == bits(&found, name), "{what}: {name} differs");
        }
        let bits = |logits: &[f64]| logits.iter().map(|l| l.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&expected.1), bits(&logits.to_vec()), "{what}");
    });
}

/// What must differ does: two precisions are two answers, so that the comparisons above are not of nothing.
#[test]
fn precisions_are_two_answers() {
    let checkpoint = open("models/dense-text-f32");
    let of = |precision| run(&checkpoint, &Run { precision, ..Run::default() });
    let (single, double) = (of(Precision::F32), of(Precision::F64));
    assert_ne!(bits(&single.0, "lm_head"), bits(&double.0, "lm_head"));
    let exact_in_f32 = |l: &f64| f64::from(*l as f32) == *l;
    assert!(single.1.iter().all(exact_in_f32) && !double.1.iter().all(exact_in_f32));
}

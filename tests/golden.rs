//! The reference against values that it did not make.

use eval::Run;
use model::Checkpoint;
use reference::Precision;
use trace::{Collect, Stats, Trace, Values, ValuesRef};

use crate::etalon::{etalon, fixture};

/// A model of which a truth in double precision is known, in its forms.
struct Golden {
    checkpoint: &'static str,
    /// The same model as llama.cpp's converter wrote it.
    gguf: Option<&'static str>,
    truth: &'static str,
    /// Transformers' values in single precision.
    hf: Option<&'static str>,
    /// How far the GGUF form's logits may be from the truth.
    gguf_limit: f64,
}

/// GGUF holds 1 + w and −exp(A_log) rounded to f32: 1e-15 of a value's square at once, and this in the logits of
/// the models here.
const F32_GGUF: f64 = 5e-13;

/// 1 + w of a bfloat16 weight is exact in f32; −exp(A_log) is still rounded, which is 3e-16 of g's square in the first
/// layer and grows with the layers.
const BF16_GGUF: f64 = 1e-14;

/// A state is of the last token alone, an average over fewer values than the logits' is.
const POINT_OVER_LOGITS: f64 = 4.0;

/// Both run in double precision and differ in the order of their sums: a few hundred roundings of u² = 1e-32, grown
/// by the layers.
const F64_LIMIT: &str = "*=1e-22";

const GOLDEN: &[Golden] = &[
    Golden {
        checkpoint: "models/dense-text-f32",
        gguf: Some("gguf-good/dense-text-f32-f32.gguf"),
        truth: "traces/dense-text-f32.f64.npz",
        hf: Some("traces/dense-text-f32.hf_f32.npz"),
        gguf_limit: F32_GGUF,
    },
    Golden {
        checkpoint: "models/dense-unequal-f32",
        gguf: None,
        truth: "traces/dense-unequal-f32.f64.npz",
        hf: Some("traces/dense-unequal-f32.hf_f32.npz"),
        gguf_limit: F32_GGUF,
    },
    Golden {
        checkpoint: "models/dense-vision-bf16",
        gguf: Some("gguf-good/dense-vision-bf16-bf16.gguf"),
        truth: "traces/dense-vision-bf16.f64.npz",
        hf: Some("traces/dense-vision-bf16.hf_f32.npz"),
        gguf_limit: BF16_GGUF,
    },
    Golden {
        checkpoint: "models/moe-experts-f32",
        gguf: None,
        truth: "traces/moe-experts-f32.f64.npz",
        hf: Some("traces/moe-experts-f32.hf_f32.npz"),
        gguf_limit: F32_GGUF,
    },
    Golden {
        checkpoint: "models/moe-packed-bf16",
        gguf: Some("gguf-good/moe-packed-bf16-bf16.gguf"),
        truth: "traces/moe-packed-bf16.f64.npz",
        hf: Some("traces/moe-packed-bf16.hf_f32.npz"),
        gguf_limit: BF16_GGUF,
    },
    Golden {
        checkpoint: "golden/dense-f32",
        gguf: Some("gguf-good/dense-f32-f32.gguf"),
        truth: "golden/dense-f32.trace.npz",
        hf: None,
        gguf_limit: F32_GGUF,
    },
    Golden {
        checkpoint: "golden/moe-f32",
        gguf: Some("gguf-good/moe-f32-f32.gguf"),
        truth: "golden/moe-f32.trace.npz",
        hf: None,
        gguf_limit: F32_GGUF,
    },
];

fn verify(checkpoint: &str, trace: &str, more: &[&str]) {
    let (checkpoint, trace) = (fixture(checkpoint), fixture(trace));
    let arguments = ["verify", checkpoint.to_str().unwrap(), "--against", trace.to_str().unwrap()];
    etalon(arguments.iter().chain(more)).expect(0);
}

#[test]
fn every_point_is_the_truth_in_double_precision() {
    for golden in GOLDEN {
        verify(golden.checkpoint, golden.truth, &["--precision", "f64", "--limit", F64_LIMIT]);
    }
}

#[test]
fn every_gguf_is_its_model() {
    for golden in GOLDEN {
        let Some(gguf) = golden.gguf else { continue };
        let points = format!("*={:e}", golden.gguf_limit * POINT_OVER_LOGITS);
        let logits = format!("lm_head={:e}", golden.gguf_limit);
        verify(gguf, golden.truth, &["--precision", "f64", "--limit", &points, "--limit", &logits]);
    }
}

#[test]
fn transformers_passes_the_built_in_limits() {
    for golden in GOLDEN {
        golden.hf.into_iter().for_each(|hf| verify(golden.checkpoint, hf, &[]));
    }
}

/// Of the last-token rows that a trace of logits holds, `[rows, vocab]`, the truth and Transformers' values.
struct Logits {
    checkpoint: &'static str,
    tokens: Vec<u32>,
    /// The tokens that the rows belong to.
    positions: Vec<usize>,
    truth: Vec<f64>,
    hf: Vec<f64>,
}

fn ids(values: &[i64]) -> Vec<u32> {
    values.iter().map(|&token| u32::try_from(token).unwrap()).collect()
}

fn values(trace: &Trace, name: &str) -> Vec<f64> {
    trace.get(name).unwrap().values.as_ref().to_f64()
}

/// Everywhere that both truth and Transformers' values are known.
fn known_logits() -> Vec<Logits> {
    let mut all = Vec::new();
    for checkpoint in ["golden/dense-f32", "golden/moe-f32"] {
        let file = Trace::open(&fixture(&format!("{checkpoint}.logits.npz"))).unwrap();
        let Values::I64(positions) = file.get("positions").unwrap().values else {
            panic!("positions are integers")
        };
        all.push(Logits {
            checkpoint,
            tokens: ids(file.tokens().unwrap()),
            positions: positions.iter().map(|&p| p as usize).collect(),
            truth: values(&file, "truth_f64"),
            hf: values(&file, "hf_f32"),
        });
    }
    for golden in GOLDEN {
        let Some(hf) = golden.hf else { continue };
        let (truth, hf) = (Trace::open(&fixture(golden.truth)).unwrap(), Trace::open(&fixture(hf)).unwrap());
        let tokens = ids(truth.tokens().unwrap());
        all.push(Logits {
            checkpoint: golden.checkpoint,
            positions: (0..tokens.len()).collect(),
            tokens,
            truth: values(&truth, "lm_head"),
            hf: values(&hf, "lm_head"),
        });
    }
    all
}

fn nmse(truth: &[f64], candidate: &[f64]) -> f64 {
    Stats::of(ValuesRef::F64(truth), ValuesRef::F64(candidate)).expect("of one length").nmse_centered
}

/// Activations are rounded to f32 at every operation, some fifty in a row: 50 · u²/3 is 1e-13 of the square, a
/// decade is left for how layers magnify it.
const F32_LOGITS: f64 = 1e-12;

/// Sums of hundreds of products in single precision cost Transformers more than that: on models of some size ten
/// times as much, on models of D = 32, whose sums are short, five times.
const BETTER_THAN_HF: [f64; 2] = [10.0, 5.0];

#[test]
fn single_precision_is_closer_to_the_truth_than_transformers() {
    for known in known_logits() {
        let checkpoint = Checkpoint::open(&fixture(known.checkpoint), &format::Limits::default()).unwrap();
        let mut tap = Collect::new(&["lm_head"]).unwrap();
        let how = Run { precision: Precision::F32, ..Run::default() };
        eval::run(&checkpoint, &known.tokens, &how, &mut tap).unwrap();
        let logits = values(&tap.into_trace(), "lm_head");
        let vocab = checkpoint.config().vocab_size;
        let rows: Vec<f64> =
            known.positions.iter().flat_map(|p| &logits[p * vocab..][..vocab]).copied().collect();
        let (ours, hf) = (nmse(&known.truth, &rows), nmse(&known.truth, &known.hf));
        println!("{}: ours {ours:.1e}, Transformers {hf:.1e}", known.checkpoint);
        assert!(ours <= F32_LOGITS, "{}: {ours:e}", known.checkpoint);
        let better = BETTER_THAN_HF[usize::from(checkpoint.config().hidden_size <= 32)];
        assert!(ours <= hf / better, "{}: ours {ours:e}, Transformers {hf:e}", known.checkpoint);
    }
}

/// Quantized and split files run, and are near their source. Their numbers are not the source's: this tells garbage
/// from weights, not more.
#[test]
fn quantized_and_split_files_run() {
    // Q8_0 keeps 8 bits, 1e-5 of a weight's square, which layers and routing magnify; other weights are at 2.
    const NEAR: [&str; 4] = ["--limit", "*=1", "--limit", "model.layers.0.*=0.1"];
    for (gguf, trace) in [
        ("gguf-good/dense-text-f32-q8_0.gguf", "traces/dense-text-f32.f64.npz"),
        ("gguf-good/dense-vision-bf16-q8_0.gguf", "traces/dense-vision-bf16.f64.npz"),
        ("gguf-good/moe-experts-f32-q8_0.gguf", "traces/moe-experts-f32.f64.npz"),
        ("gguf-good/moe-packed-bf16-q8_0.gguf", "traces/moe-packed-bf16.f64.npz"),
        ("gguf-good/moe-experts-f32-f16-split-00001-of-00003.gguf", "traces/moe-experts-f32.f64.npz"),
    ] {
        verify(gguf, trace, &NEAR);
    }
}

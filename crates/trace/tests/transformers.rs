//! Real traces: what Transformers computes in single precision against the truth in double precision.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use trace::{
    Collect, Error, Precision, Recorder, Recording, Report, Settings, Stored, Tensor, Trace, Values,
};
use trace::{Extent, Globs, Producer, Tap, Verdict, View, compare, point};

const MODELS: [&str; 5] =
    ["dense-text-f32", "dense-unequal-f32", "dense-vision-bf16", "moe-experts-f32", "moe-packed-bf16"];

fn open(model: &str, kind: &str) -> Trace {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/traces");
    Trace::open(&path.join(format!("{model}.{kind}.npz"))).unwrap()
}

fn judge(reference: &Trace, candidate: &Trace) -> Report {
    compare(reference, candidate, &Settings::default()).unwrap()
}

/// All of a trace in memory, to be changed.
fn load(trace: &Trace) -> Vec<(String, Tensor)> {
    trace.names().map(|name| (name.to_owned(), trace.get(name).unwrap())).collect()
}

#[test]
fn transformers_agrees_with_the_truth_as_far_as_its_precision_goes() {
    for model in MODELS {
        let (truth, transformers) = (open(model, "f64"), open(model, "hf_f32"));
        let report = judge(&truth, &transformers);
        assert!(report.passed, "{model}: {:?}", report.divergence);
        assert_eq!(report.points.len(), truth.len());
        assert!(
            report.only_reference.is_empty() && report.only_candidate.is_empty() && report.notes.is_empty()
        );
        assert_eq!(report.candidate.precision, Some(Precision::F32));
        let worst = report.points.iter().map(|p| p.measure).fold(0.0, f64::max);
        // At most 2.5e-11 was measured, and no single-precision run is closer than its own rounding.
        let rounding = Precision::F32.unit_roundoff().powi(2);
        assert!((rounding..1e-10).contains(&worst), "{model}: {worst:e}");
        let logits = report.points.last().unwrap().logits.as_ref().unwrap();
        assert_eq!((logits.top1_agree, logits.positions), (24, 24), "{model}");
        assert!(logits.kl_max > 0.0 && logits.kl_max < 1e-8, "{model}: {:e}", logits.kl_max);
    }
}

#[test]
fn double_precision_is_held_to_more() {
    let settings = Settings { precision: Some(Precision::F64), ..Settings::default() };
    for model in MODELS {
        let report = compare(&open(model, "f64"), &open(model, "hf_f32"), &settings).unwrap();
        let divergence = report.divergence.unwrap();
        assert_eq!(divergence.point, "model.layers.0.input_layernorm", "{model}");
    }
}

/// The first DeltaNet layer's point with this suffix.
fn delta_point(trace: &Trace, suffix: &str) -> String {
    let full = format!(".linear_attn.{suffix}");
    trace.names().find(|name| name.ends_with(&full)).unwrap().to_owned()
}

/// Puts value heads from grouped into tiled order, as a converter that does it once too often would.
fn tile_heads(tensor: &mut Tensor, key_heads: usize, value_heads: usize) {
    let Values::F32(values) = &mut tensor.values else { panic!("single precision was read") };
    let (rows, row) = (tensor.shape[0], values.len() / tensor.shape[0]);
    let (repeat, head) = (value_heads / key_heads, row / value_heads);
    let grouped = values.clone();
    for at in 0..rows {
        for (g, j, k) in
            (0..key_heads).flat_map(|g| (0..repeat).flat_map(move |j| (0..head).map(move |k| (g, j, k))))
        {
            values[at * row + (j * key_heads + g) * head + k] =
                grouped[at * row + (g * repeat + j) * head + k];
        }
    }
}

#[test]
fn heads_in_another_order_are_found_in_each_branch() {
    let (truth, transformers) = (open("dense-text-f32", "f64"), open("dense-text-f32", "hf_f32"));
    let mut points = load(&transformers);
    let tiled = ["in_proj_z", "g"].map(|suffix| delta_point(&truth, suffix));
    for (name, tensor) in &mut points {
        if tiled.contains(name) {
            tile_heads(tensor, 2, 8);
        }
    }
    let report = judge(&truth, &Trace::from_tensors(Some(truth.tokens().unwrap().to_vec()), points));
    let divergence = report.divergence.unwrap();
    assert_eq!(divergence.point, tiled[0]);
    assert!(divergence.causes.iter().any(|cause| cause.contains("tiled")));
    assert_eq!(divergence.independent, tiled[1..]);
}

#[test]
fn one_changed_value_in_any_point_is_found_there() {
    for model in ["dense-text-f32", "moe-experts-f32"] {
        let (truth, transformers) = (open(model, "f64"), open(model, "hf_f32"));
        let points = load(&transformers);
        for at in 0..points.len() {
            let mut changed = points.clone();
            let (name, tensor) = &mut changed[at];
            let name = name.clone();
            match &mut tensor.values {
                Values::F32(v) => v[0] += v.iter().fold(0.0, |m: f32, x| m.max(x.abs())) / 10.0,
                Values::I64(v) => v[0] = 99,
                Values::F64(_) => panic!("single precision was read"),
            }
            let report = judge(&truth, &Trace::from_tensors(None, changed));
            assert_eq!(report.divergence.unwrap().point, name);
            for (place, point) in report.points.iter().enumerate() {
                let expected = match place.cmp(&at) {
                    Ordering::Less => Verdict::Exonerated,
                    Ordering::Equal => Verdict::FirstDivergence,
                    Ordering::Greater => Verdict::Downstream,
                };
                assert_eq!(
                    (point.verdict, point.within_limit),
                    (expected, place != at),
                    "{name}: {}",
                    point.name
                );
            }
        }
    }
}

#[test]
fn a_trace_survives_every_form_and_other_tokens_are_refused() {
    let truth = open("moe-packed-bf16", "f64");
    let tokens = truth.tokens().unwrap().to_vec();
    let room = tempfile::tempdir().unwrap();
    for name in ["t", "t.npz", "t.safetensors"] {
        let path: PathBuf = room.path().join(name);
        let recording = Recording {
            tokens: tokens.clone(),
            points: Globs::new(&["*"]).unwrap(),
            stored: Stored::F64,
            model: None,
            producer: Producer::default(),
            contract: None,
            replace: false,
        };
        let mut recorder = Recorder::create(&path, recording).unwrap();
        let mut collect = Collect::all().with_tokens(tokens.clone());
        for (name, tensor) in load(&truth) {
            let (_, kind) = point::parse(&name).unwrap();
            let view = View { shape: &tensor.shape, values: tensor.values.as_ref(), extent: kind.extent };
            assert_eq!(tensor.shape[0] == 24, kind.extent == Extent::Tokens, "{name}");
            recorder.record(&name, view).unwrap();
            collect.record(&name, view).unwrap();
        }
        recorder.finish().unwrap();
        let stored = Trace::open(&path).unwrap();
        let report = judge(&collect.into_trace(), &stored);
        assert!(report.passed && report.points.iter().all(|p| p.measure == 0.0), "{name}");
        assert!(stored.names().eq(truth.names()), "{name}");
    }
    let mut others = tokens;
    others[7] += 1;
    let other = Trace::from_tensors(Some(others), load(&truth));
    let error = compare(&truth, &other, &Settings::default()).unwrap_err();
    assert!(matches!(error, Error::TokensDiffer { position: 7, .. }), "{error}");
}

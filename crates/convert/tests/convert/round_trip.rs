//! There and back: what comes back is what was there.

use std::path::Path;

use codec::Encoding;
use convert::{Experts, GgufOptions, Held, HfOptions, Mtp, ToGguf, ToHf};
use format::{Existing, TensorInfo, TensorSource};
use model::Checkpoint;

use crate::files::{entries, fixture, open};

/// Files in plain numbers that llama.cpp's converter made.
const PLAIN: [&str; 6] = [
    "dense-f32-f32.gguf",
    "moe-f32-f32.gguf",
    "dense-text-f32-f32.gguf",
    "dense-vision-bf16-bf16.gguf",
    "moe-experts-f32-f16-split-00001-of-00003.gguf",
    "moe-packed-bf16-bf16.gguf",
];

fn hf(experts: Experts) -> HfOptions {
    // Small shards, so that there are several.
    HfOptions { dtype: None, experts, mtp: Mtp::Keep, shard_bytes: 60_000 }
}

fn to_hf(source: &Checkpoint, path: &Path, options: &HfOptions) -> Checkpoint {
    ToHf::new(source, options).unwrap().write(path, Existing::Replace, None, &mut |_, _| {}).unwrap();
    open(path)
}

fn to_gguf(source: &Checkpoint, path: &Path, dtype: Encoding) -> Checkpoint {
    let options = GgufOptions { dtype: Some(dtype), ..GgufOptions::default() };
    ToGguf::new(source, &options).unwrap().write(path, Existing::Replace, None, &mut |_, _| {}).unwrap();
    open(path)
}

fn find<'a>(source: &'a dyn TensorSource, name: &str) -> &'a TensorInfo {
    source.tensor(name).unwrap_or_else(|| panic!("no {name}"))
}

/// All bits of everything, but for rates that llama.cpp's `exp` made one unit off where no f32 logarithm gives them:
/// these come back as the neighbour that the exact one gives, and are named.
#[test]
fn gguf_to_hf_to_gguf_is_the_identity() {
    let room = tempfile::tempdir().unwrap();
    let mut differing = 0;
    for file in PLAIN {
        let there = open(&fixture("gguf-good").join(file));
        let main = if file.contains("f16-split") {
            Encoding::F16
        } else if file.contains("bf16") {
            Encoding::BF16
        } else {
            Encoding::F32
        };
        for experts in [Experts::Packed, Experts::Split] {
            let notes = ToHf::new(&there, &hf(experts)).unwrap().notes().concat();
            let lost = notes.contains("no f32 here gives exactly") && notes.contains("A_log");
            let middle = to_hf(&there, &room.path().join("hf"), &hf(experts));
            let back = to_gguf(&middle, &room.path().join("back.gguf"), main);
            assert_eq!(there.source().tensors().len(), back.source().tensors().len(), "{file}");
            for info in there.source().tensors() {
                let again = find(back.source(), &info.name);
                assert_eq!(
                    (again.encoding, &again.shape),
                    (info.encoding, &info.shape),
                    "{file}: {}",
                    info.name
                );
                if back.source().bytes(again) != there.source().bytes(info) {
                    assert!(info.name.ends_with("ssm_a") && lost, "{file}: {} has other bytes", info.name);
                    let pairs = values(there.source(), info).into_iter().zip(values(back.source(), again));
                    assert!(pairs.into_iter().all(|(a, b)| a.to_bits().abs_diff(b.to_bits()) <= 1), "{file}");
                    differing += 1;
                }
            }
            assert_eq!(there.config().layer_types, back.config().layer_types);
            let sizes =
                |c: &Checkpoint| (c.config().rms_norm_eps, c.config().rope_theta, c.config().rotary_dim);
            assert_eq!(sizes(&there), sizes(&back));
        }
    }
    // Of 27 rate tensors, twice.
    assert!(differing <= 4, "{differing}");
}

/// What a GGUF file holds as it is comes back as it was, bit for bit; gains and rates, which it rounds, within a unit
/// in the last place of what it holds.
#[test]
fn hf_to_gguf_to_hf_loses_what_gguf_rounds_and_no_more() {
    let room = tempfile::tempdir().unwrap();
    for (model, experts, dtype) in [
        ("golden/dense-f32", Experts::Packed, Encoding::F32),
        ("golden/moe-f32", Experts::Split, Encoding::F32),
        ("models/dense-text-f32", Experts::Packed, Encoding::F32),
        ("models/dense-vision-bf16", Experts::Packed, Encoding::BF16),
        ("models/moe-packed-bf16", Experts::Packed, Encoding::BF16),
    ] {
        let there = open(&fixture(model));
        let middle = to_gguf(&there, &room.path().join("middle.gguf"), dtype);
        let back = to_hf(&middle, &room.path().join("back"), &hf(experts));
        let mut rounded = 0;
        for info in back.source().tensors() {
            let wrapped = info.name.replacen("model.", "model.language_model.", 1);
            let source = there.source();
            let first = source.tensor(&info.name).unwrap_or_else(|| find(source, &wrapped));
            assert_eq!(first.shape, info.shape);
            let held = held(&info.name);
            if held == Held::Plain {
                let exact =
                    first.encoding == info.encoding && source.bytes(first) == back.source().bytes(info);
                assert!(
                    exact || values(source, first) == values(back.source(), info),
                    "{model}: {}",
                    info.name
                );
                continue;
            }
            for (a, b) in values(source, first).into_iter().zip(values(back.source(), info)) {
                let [a, b] = [a, b].map(|value| held.canonical(value) as f32);
                assert_eq!(a.to_bits(), b.to_bits(), "{model}: {}: {a:e} and {b:e}", info.name);
                rounded += 1;
            }
        }
        assert!(rounded > 100, "{model}: {rounded}");
        let tokenizer =
            |c: &Checkpoint| c.tokenizer().unwrap().encode("def f(x): wörld 12<|im_end|>").unwrap();
        assert_eq!(tokenizer(&there), tokenizer(&back), "{model}");
        assert!(entries(&room.path().join("back")).contains(&"model.safetensors.index.json".to_owned()));
    }
}

fn held(name: &str) -> Held {
    match name {
        name if name.ends_with("A_log") => Held::LogOfNegative,
        name if name.ends_with("linear_attn.norm.weight") => Held::Plain,
        name if name.ends_with("norm.weight") || name.contains("pre_fc_norm") => Held::LessOne,
        _ => Held::Plain,
    }
}

fn values(source: &dyn TensorSource, info: &TensorInfo) -> Vec<f32> {
    let mut values = vec![0.0; info.shape.elements().unwrap() as usize];
    info.encoding.decode(source.bytes(info), &mut values).unwrap();
    values
}

/// Block encodings decode to what was asked for; F32 holds it all.
#[test]
fn encoded_tensors_are_decoded() {
    let room = tempfile::tempdir().unwrap();
    let there = open(&fixture("gguf-good/dense-text-f32-q8_0.gguf"));
    let exact = to_hf(&there, &room.path().join("f32"), &hf(Experts::Packed));
    let short = to_hf(
        &there,
        &room.path().join("bf16"),
        &HfOptions { dtype: Some(Encoding::BF16), ..hf(Experts::Packed) },
    );
    let name = "model.layers.0.mlp.up_proj.weight";
    let stored = values(there.source(), find(there.source(), "blk.0.ffn_up.weight"));
    assert_eq!(values(exact.source(), find(exact.source(), name)), stored);
    let info = find(short.source(), name);
    assert_eq!(info.encoding, Encoding::BF16);
    let mut bytes = vec![0; stored.len() * 2];
    Encoding::BF16.encode(&stored, None, &mut bytes).unwrap();
    assert_eq!(short.source().bytes(info), bytes);
    // Rates and gains are not worth a rounding.
    assert_eq!(find(short.source(), "model.layers.0.linear_attn.A_log").encoding, Encoding::F32);
}

//! Checkpoints as others hold them: FP8 with block scales, MLX's layout, F16; and those that are refused by name.

use std::fs;
use std::path::{Path, PathBuf};

use codec::Encoding;
use convert::check::{CheckOptions, Checked, check};
use convert::{GgufOptions, ToGguf, Vocabulary};
use format::{Existing, Limits, Shape, safetensors};
use model::layout::Role;
use model::{Checkpoint, Purpose};
use sha2::{Digest as _, Sha256};

use crate::files::{entries, fixture};

type Tensor = (String, Encoding, Shape, Vec<u8>);

/// A copy of a checkpoint in which every tensor has become others.
fn rewritten(dir: &Path, to: &Path, change: impl Fn(&str, &Shape, Vec<f32>) -> Vec<Tensor>) -> PathBuf {
    fs::create_dir_all(to).unwrap();
    for name in entries(dir).iter().filter(|name| !name.contains("safetensors")) {
        fs::copy(dir.join(name), to.join(name)).unwrap();
    }
    let source = format::open(dir, &Limits::default()).unwrap();
    let mut tensors = Vec::new();
    for info in source.tensors() {
        let mut values = vec![0.0; info.shape.elements().unwrap() as usize];
        info.encoding.decode(source.bytes(info), &mut values).unwrap();
        tensors.extend(change(&info.name, &info.shape, values));
    }
    let mut draft = safetensors::Draft::new(to);
    for (name, encoding, shape, _) in &tensors {
        draft.tensor(name, *encoding, shape).unwrap();
    }
    let mut writer = draft.create_sharded(u64::MAX, Existing::Replace).unwrap();
    for (name, _, _, bytes) in &tensors {
        writer.write(name, bytes).unwrap();
    }
    writer.finish().unwrap();
    to.to_owned()
}

fn plain(name: &str, encoding: Encoding, shape: &Shape, values: &[f32]) -> Tensor {
    let mut bytes = vec![0; values.len() * encoding.block_bytes()];
    encoding.encode(values, None, &mut bytes).unwrap();
    (name.to_owned(), encoding, shape.clone(), bytes)
}

fn open(dir: &Path) -> Result<Checkpoint, model::Error> {
    Checkpoint::open_for(dir, &Limits::default(), Purpose::Convert)
}

/// Every tensor of the GGUF file that a directory becomes, in F32.
fn converted(dir: &Path) -> Vec<(String, Vec<u8>)> {
    converted_by(dir, GgufOptions { dtype: Some(Encoding::F32), ..GgufOptions::default() })
}

fn converted_by(dir: &Path, options: GgufOptions) -> Vec<(String, Vec<u8>)> {
    let source = open(dir).unwrap_or_else(|e| panic!("{e}"));
    let path = dir.with_extension("gguf");
    ToGguf::new(&source, &options).unwrap().write(&path, Existing::Replace, None, &mut |_, _| {}).unwrap();
    let file = format::open(&path, &Limits::default()).unwrap();
    file.tensors().iter().map(|info| (info.name.clone(), file.bytes(info).to_vec())).collect()
}

#[test]
fn fp8_is_decoded_by_the_scales_of_its_blocks() {
    let room = tempfile::tempdir().unwrap();
    let is_scaled =
        |name: &str| name.contains("proj") && !name.contains("in_proj_a") && !name.contains("in_proj_b");
    let mut at = 0u32;
    // A factor of its own for every block, none of them a power of two.
    let mut factor = || {
        at += 1;
        0.01 + 0.003 * at as f32
    };
    let cells = std::cell::RefCell::new(&mut factor);
    let exact = std::cell::RefCell::new(Vec::new());
    let fp8 = rewritten(&fixture("golden/dense-f32"), &room.path().join("fp8"), |name, shape, values| {
        let [rows, cols] = match shape.dims() {
            [rows, cols] if is_scaled(name) => [*rows as usize, *cols as usize],
            _ => {
                exact.borrow_mut().push((name.to_owned(), shape.clone(), values.clone()));
                return vec![plain(name, Encoding::F32, shape, &values)];
            }
        };
        let blocks = [rows.div_ceil(128), cols.div_ceil(128)];
        let factors: Vec<f32> = (0..blocks[0] * blocks[1]).map(|_| cells.borrow_mut()()).collect();
        let of = |i: usize| factors[i / cols / 128 * blocks[1] + i % cols / 128];
        let scaled: Vec<f32> = values.iter().enumerate().map(|(i, v)| v / of(i)).collect();
        let (name8, _, _, bytes) = plain(name, Encoding::F8E4M3, shape, &scaled);
        let mut decoded = vec![0.0; values.len()];
        Encoding::F8E4M3.decode(&bytes, &mut decoded).unwrap();
        let product = decoded.iter().enumerate().map(|(i, v)| v * of(i)).collect();
        exact.borrow_mut().push((name.to_owned(), shape.clone(), product));
        let scales = Shape::new(blocks.map(|b| b as u64).to_vec());
        vec![
            (name8, Encoding::F8E4M3, shape.clone(), bytes),
            plain(&format!("{name}_scale_inv"), Encoding::F32, &scales, &factors),
        ]
    });
    let config = fs::read_to_string(fp8.join("config.json")).unwrap();
    let quantization = r#"{"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},"#;
    fs::write(fp8.join("config.json"), config.replacen('{', quantization, 1)).unwrap();
    let plain_one = rewritten(&fixture("golden/dense-f32"), &room.path().join("plain"), |name, shape, _| {
        let exact = exact.borrow();
        let (_, _, values) = exact.iter().find(|(known, ..)| known == name).unwrap();
        vec![plain(name, Encoding::F32, shape, values)]
    });
    let (ours, expected) = (converted(&fp8), converted(&plain_one));
    assert_eq!(ours.len(), expected.len());
    for ((name, ours), (expected_name, expected)) in ours.iter().zip(&expected) {
        assert_eq!(name, expected_name);
        assert!(ours == expected, "{name}");
    }
    assert!(at > 40, "{at} blocks");
    // The scales are accounted for, and the type is that of the unquantized release.
    let source = open(&fp8).unwrap();
    let plan = ToGguf::new(&source, &GgufOptions::default()).unwrap();
    assert!(plan.plan().left.is_empty());
    assert!(plan.plan().tensors.iter().any(|t| t.encoding == "BF16" && t.source_encodings == ["F8_E4M3"]));
    // It does not run: nobody multiplies scales there.
    let refused = Checkpoint::open(&fp8, &Limits::default()).err().unwrap().to_string();
    assert!(refused.contains("quantization_config") && refused.contains("convert"), "{refused}");
}

/// Kernels `[C, K, 1]`, gains that hold the 1 already; in half of the cases under MLX's own names.
#[test]
fn mlx_is_recognised_by_its_kernels_and_gains_no_second_one() {
    let room = tempfile::tempdir().unwrap();
    for model in ["golden/dense-f32", "golden/moe-f32"] {
        for renamed in [false, true] {
            let name = format!("{}-{renamed}", model.replace('/', "-"));
            let mlx = rewritten(&fixture(model), &room.path().join(name), |name, shape, mut values| {
                let mut shape = shape.clone();
                let gain = name.ends_with("norm.weight") && !name.ends_with("linear_attn.norm.weight");
                if gain {
                    values.iter_mut().for_each(|w| *w += 1.0);
                }
                if let (true, [c, 1, k]) = (name.ends_with("conv1d.weight"), shape.dims()) {
                    shape = Shape::new(vec![*c, *k, 1]);
                }
                let name = if renamed { format!("language_model.{name}") } else { name.to_owned() };
                vec![plain(&name, Encoding::F32, &shape, &values)]
            });
            let original =
                rewritten(&fixture(model), &room.path().join("original"), |name, shape, values| {
                    vec![plain(name, Encoding::F32, shape, &values)]
                });
            let (mut ours, mut expected) = (converted(&mlx), converted(&original));
            ours.sort();
            expected.sort();
            assert_eq!(ours.len(), expected.len());
            for ((name, ours), (expected_name, expected)) in ours.iter().zip(&expected) {
                assert_eq!(name, expected_name);
                assert!(ours == expected, "{model}: {name}");
            }
            let refused = Checkpoint::open(&mlx, &Limits::default()).err().unwrap().to_string();
            assert!(refused.contains("MLX layout"), "{refused}");
        }
    }
}

/// Gains and rates of an F16 checkpoint are computed exactly and rounded to f32 once, not in halves.
#[test]
fn f16_gains_and_rates_are_rounded_once() {
    let room = tempfile::tempdir().unwrap();
    let dir = rewritten(&fixture("golden/dense-f32"), &room.path().join("f16"), |name, shape, values| {
        vec![plain(name, Encoding::F16, shape, &values)]
    });
    let source = open(&dir).unwrap();
    let made = converted(&dir);
    let find = |name: &str| {
        let (_, bytes) = made.iter().find(|(known, _)| known == name).unwrap();
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect::<Vec<f32>>()
    };
    let held = |name: &str| {
        let info = source.source().tensor(name).unwrap();
        let mut values = vec![0.0; info.shape.elements().unwrap() as usize];
        info.encoding.decode(source.source().bytes(info), &mut values).unwrap();
        values
    };
    let mut finer = 0;
    for (gain, w) in find("output_norm.weight").into_iter().zip(held("model.norm.weight")) {
        assert_eq!(gain, (1.0 + f64::from(w)) as f32);
        finer += usize::from(half::f16::from_f32(gain).to_f32() != gain);
    }
    assert!(finer > 10, "halves would have done");
    let mut rates = find("blk.0.ssm_a");
    let mut logs = held("model.layers.0.linear_attn.A_log");
    rates.sort_by(f32::total_cmp);
    logs.sort_by(|a, b| b.total_cmp(a));
    for (rate, log) in rates.into_iter().zip(logs) {
        assert_eq!(rate, -libm::exp(f64::from(log)) as f32);
    }
}

/// As llama.cpp's converter does it: in halves, by the hashes of what it wrote; and a check knows that for what it is.
#[test]
fn f16_gains_and_rates_can_be_had_as_llama_cpp_computes_them() {
    let room = tempfile::tempdir().unwrap();
    let dir = rewritten(&fixture("golden/dense-f32"), &room.path().join("f16"), |name, shape, values| {
        vec![plain(name, Encoding::F16, shape, &values)]
    });
    let made = converted_by(&dir, GgufOptions { as_llama_cpp: true, ..GgufOptions::default() });
    let text = fs::read_to_string(fixture("golden/converted-f16.txt")).unwrap();
    assert_eq!(text.lines().count(), made.len());
    for (line, (name, bytes)) in text.lines().zip(&made) {
        let [_, _, expected, _, _, sha256] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let hash: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((name.as_str(), hash.as_str()), (expected, sha256));
    }
    let ours = converted_by(&dir, GgufOptions::default());
    let differing: Vec<&str> =
        made.iter().zip(&ours).filter(|(a, b)| a.1 != b.1).map(|(a, _)| a.0.as_str()).collect();
    assert!(differing.iter().all(|name| name.contains("norm") || name.ends_with("ssm_a")), "{differing:?}");
    assert!(differing.contains(&"output_norm.weight") && differing.contains(&"blk.0.ssm_a"));
    converted_by(&dir, GgufOptions { as_llama_cpp: true, ..GgufOptions::default() });
    let (a, b) = (open(&dir).unwrap(), open(&dir.with_extension("gguf")).unwrap());
    let check = check(&a, &b, CheckOptions::default(), &mut |_, _| {});
    assert!(check.passed);
    // Of a rate it may be that A_log is the nearest half to what leads there, which is as good an explanation.
    let halves = |weight: &&Checked| weight.evidence.contains("computed in F16") && weight.role != Role::ALog;
    let gains = differing.iter().filter(|name| !name.ends_with("ssm_a"));
    assert_eq!(check.weights.iter().filter(halves).count(), gains.count());
}

/// Nothing of an F32 checkpoint is rounded unasked; there, it is.
#[test]
fn auto_is_f16_for_an_f32_checkpoint_as_llama_cpp_has_it() {
    let source = open(&fixture("golden/dense-f32")).unwrap();
    for (as_llama_cpp, encoding) in [(false, "F32"), (true, "F16")] {
        let options = GgufOptions { as_llama_cpp, ..GgufOptions::default() };
        let conversion = ToGguf::new(&source, &options).unwrap();
        let up = conversion.plan().tensors.iter().find(|t| t.name == "blk.0.ffn_up.weight").unwrap();
        assert_eq!(up.encoding, encoding);
    }
}

#[test]
fn packed_checkpoints_are_refused_by_name_and_dtype() {
    let room = tempfile::tempdir().unwrap();
    let target = "model.layers.0.mlp.up_proj.weight";
    let cases: [(&str, Encoding, &[&str], &str); 5] = [
        ("bnb", Encoding::U8, &["absmax", "quant_map"], "bitsandbytes"),
        ("nvfp4", Encoding::U8, &["weight_scale", "weight_scale_2"], "NVFP4"),
        ("fp8", Encoding::F8E4M3, &[], "FP8"),
        ("mlx4", Encoding::U32, &["scales", "biases"], "MLX"),
        ("gptq", Encoding::I32, &["qzeros", "g_idx"], "GPTQ"),
    ];
    for (name, encoding, companions, said) in cases {
        let dir = rewritten(&fixture("golden/dense-f32"), &room.path().join(name), |name, shape, values| {
            if name != target {
                return vec![plain(name, Encoding::F32, shape, &values)];
            }
            let bytes = vec![0; values.len() * encoding.block_bytes()];
            let mut tensors = vec![(name.to_owned(), encoding, shape.clone(), bytes)];
            for companion in companions {
                let name = name.replace("weight", companion);
                tensors.push(plain(&name, Encoding::F32, &Shape::new(vec![4]), &[1.0; 4]));
            }
            tensors
        });
        let refused = open(&dir).err().unwrap().to_string();
        assert!(refused.contains(said) && refused.contains("up_proj"), "{name}: {refused}");
    }
    let dir = rewritten(&fixture("golden/dense-f32"), &room.path().join("awq"), |name, shape, values| {
        vec![plain(name, Encoding::F32, shape, &values)]
    });
    let config = fs::read_to_string(dir.join("config.json")).unwrap();
    fs::write(
        dir.join("config.json"),
        config.replacen('{', r#"{"quantization_config": {"quant_method": "awq"},"#, 1),
    )
    .unwrap();
    let refused = open(&dir).err().unwrap().to_string();
    assert!(refused.contains("awq") && refused.contains("dequantize"), "{refused}");
}

/// The same vocabulary from `tokenizer.json` and from its parts; a rule that nobody knows is an error.
#[test]
fn vocabularies_are_read_from_either_form() {
    let room = tempfile::tempdir().unwrap();
    let from = fixture("vocab/dense-f32");
    for name in ["vocab.json", "merges.txt", "tokenizer_config.json"] {
        fs::copy(from.join(name), room.path().join(name)).unwrap();
    }
    let whole = Vocabulary::from_hf_dir(&from, 512).unwrap();
    let parts = Vocabulary::from_hf_dir(room.path(), 512).unwrap();
    assert_eq!((&whole.tokens, &whole.merges, &whole.pre), (&parts.tokens, &parts.merges, &parts.pre));
    assert_eq!(whole.offices, parts.offices);
    assert_eq!(whole.tokens[511].text, "[PAD511]");
    let json = fs::read_to_string(from.join("tokenizer.json")).unwrap();
    fs::write(room.path().join("tokenizer.json"), json.replacen(r"\\p{N}", r"\\p{N}{1,3}", 1)).unwrap();
    let refused = Vocabulary::from_hf_dir(room.path(), 512).unwrap_err().to_string();
    assert!(refused.contains("splits by") && refused.contains("qwen35"), "{refused}");
    let refused = Vocabulary::from_hf_dir(&from, 300).unwrap_err().to_string();
    assert!(refused.contains("300 rows"), "{refused}");
}

//! Mocks: that they open, hold what they say, and are the same everywhere.

use std::path::Path;

use codec::Encoding;
use convert::mock::PRESETS;
use convert::{Error, Experts, Mock};
use format::{Existing, Metadata};
use model::weights::{Layer, Mixer, Mlp, SwiGlu, Weights};
use model::{Checkpoint, Matrix, NonFinitePolicy};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::files::{entries, fixture, open};

/// SHA-256 over names, lengths and contents of every file of the Hugging Face form in BF16, and of the GGUF in Q8_0.
/// They stand for what users have kept: a change here is a change of every mock.
const HASHES: [(&str, &str, &str); 2] = [
    (
        "tiny-dense",
        "47ea237df955b91c1cfd3a568571e8f553f54c73e03d11871fe18e254933816f",
        "1e3d3675cb0f3f9db410cb7975bb9400977f5ec33876b7ddfebfe76321ee99ac",
    ),
    (
        "tiny-moe",
        "36febcf226117ba671fab4660ab9565259c5fbf0785c0282c5269664781ef83d",
        "712bed749110d52d37ed3a44334c11608709513eb665d27e7a4a355f25234cf9",
    ),
];

fn silent(_: u64, _: u64) {}

fn room() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn write_hf(mock: &Mock, path: &Path) -> Checkpoint {
    mock.write_hf(path, Existing::Refuse, &mut silent).unwrap();
    open(path)
}

fn write_gguf(mock: &Mock, path: &Path) -> Checkpoint {
    mock.write_gguf(path, Existing::Refuse, &mut silent).unwrap();
    open(path)
}

fn weights(checkpoint: &Checkpoint) -> Weights<Matrix<'_>> {
    checkpoint.weights(NonFinitePolicy::Refuse).unwrap()
}

/// A preset with its ratios and small sizes.
fn small(name: &str) -> Mock {
    let preset = PRESETS.iter().find(|preset| preset.name == name).unwrap();
    let mut config = preset.config_json();
    let moe = config.get("num_experts").is_some();
    let mut sizes = vec![("hidden_size", 64), ("head_dim", 32), ("vocab_size", 300)];
    sizes.extend([("linear_key_head_dim", 16), ("linear_value_head_dim", 16)]);
    match moe {
        true => sizes.extend([("moe_intermediate_size", 32), ("shared_expert_intermediate_size", 96)]),
        false => sizes.push(("intermediate_size", 96)),
    }
    if moe {
        sizes.extend([("num_experts", 6), ("num_experts_per_tok", 2)]);
    }
    for (field, size) in sizes {
        config[field] = size.into();
    }
    config["rope_parameters"]["mrope_section"] = json!([2, 1, 1]);
    Mock::from_config(name, &config).unwrap().with_layers(4).unwrap()
}

fn hash(path: &Path) -> String {
    let mut hash = Sha256::new();
    let mut add = |name: &str, path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        hash.update(format!("{name} {}\n", bytes.len()));
        hash.update(bytes);
    };
    match path.is_dir() {
        true => entries(path).iter().for_each(|name| add(name, &path.join(name))),
        false => add("", path),
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let room = room();
    for (name, hf, gguf) in HASHES {
        let mock = Mock::preset(name).unwrap();
        let path = room.path().join(name);
        // One thread, then more than there are processors.
        for threads in [1, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| mock.write_hf(&path, Existing::Replace, &mut silent)).unwrap();
            assert_eq!(hash(&path), hf, "{name}");
        }
        let path = room.path().join(name.to_owned() + ".gguf");
        mock.with_dtype(Encoding::Q8_0).write_gguf(&path, Existing::Refuse, &mut silent).unwrap();
        assert_eq!(hash(&path), gguf, "{name}");
    }
}

#[test]
fn another_seed_gives_other_values_everywhere() {
    let room = room();
    let [a, b] = [1, 2].map(|seed| {
        let path = room.path().join(seed.to_string());
        write_hf(&small("35b-a3b").with_seed(seed), &path)
    });
    let mut compared = 0;
    for info in a.source().tensors() {
        let other = b.source().tensor(&info.name).unwrap();
        assert!(a.source().bytes(info) != b.source().bytes(other), "{}", info.name);
        compared += 1;
    }
    assert!(compared > 50);
}

/// And no tensor's values are those of another.
#[test]
fn tensors_differ() {
    let room = room();
    let checkpoint = write_hf(&small("35b-a3b"), &room.path().join("mock"));
    let starts = checkpoint.source().tensors().iter().map(|info| &checkpoint.source().bytes(info)[..16]);
    let mut starts: Vec<&[u8]> = starts.collect();
    let count = starts.len();
    starts.sort();
    starts.dedup();
    assert_eq!(starts.len(), count);
}

#[test]
fn every_preset_opens_in_both_forms() {
    let room = room();
    for preset in PRESETS {
        let mock = small(preset.name);
        let hf = write_hf(&mock, &room.path().join(preset.name));
        let gguf = write_gguf(&mock, &room.path().join(preset.name.to_owned() + ".gguf"));
        assert_eq!(hf.config(), mock.config());
        assert!(hf.config().notes.is_empty(), "{:?}", hf.config().notes);
        assert!(gguf.config().notes.is_empty(), "{:?}", gguf.config().notes);
        let bytes =
            |checkpoint: &Checkpoint| checkpoint.source().tensors().iter().map(|t| t.size).sum::<u64>();
        assert_eq!(bytes(&hf), mock.hf_bytes().unwrap());
        assert_eq!(bytes(&gguf), mock.gguf_bytes().unwrap());
        same_weights(&hf, &gguf);
    }
}

#[test]
fn released_shapes_have_their_parameters() {
    let millions = |name| Mock::preset(name).unwrap().parameters() / 1_000_000;
    let presets: Vec<u64> = PRESETS.iter().map(|preset| millions(preset.name)).collect();
    assert_eq!(presets, [2, 8, 752, 1_881, 4_205, 8_953, 34_660]);
}

#[test]
fn experts_are_the_same_packed_and_split() {
    let room = room();
    let mock = small("35b-a3b");
    let packed = write_hf(&mock, &room.path().join("packed"));
    let split = write_hf(&mock.with_experts(Experts::Split), &room.path().join("split"));
    let has = |checkpoint: &Checkpoint, name: &str| checkpoint.source().tensor(name).is_some();
    assert!(has(&packed, "model.layers.0.mlp.experts.gate_up_proj"));
    assert!(has(&split, "model.layers.0.mlp.experts.5.up_proj.weight"));
    same_weights(&packed, &split);
}

#[test]
fn a_type_is_what_is_asked_for() {
    let room = room();
    let mock = small("2b");
    let most = |checkpoint: &Checkpoint, name: &str| checkpoint.source().tensor(name).unwrap().encoding;
    for dtype in [Encoding::F32, Encoding::F16, Encoding::BF16] {
        let mock = mock.clone().with_dtype(dtype);
        let hf = write_hf(&mock, &room.path().join(dtype.name()));
        let gguf = write_gguf(&mock, &room.path().join(format!("{}.gguf", dtype.name())));
        assert_eq!(most(&hf, "model.layers.0.mlp.gate_proj.weight"), dtype);
        assert_eq!(most(&hf, "model.layers.0.input_layernorm.weight"), dtype);
        for island in ["A_log", "norm.weight"] {
            assert_eq!(most(&hf, &format!("model.layers.0.linear_attn.{island}")), Encoding::F32);
        }
        assert_eq!(most(&gguf, "blk.0.ffn_gate.weight"), dtype);
        for small in ["attn_norm.weight", "ssm_conv1d.weight", "ssm_dt.bias"] {
            assert_eq!(most(&gguf, &format!("blk.0.{small}")), Encoding::F32);
        }
        same_weights(&hf, &gguf);
    }
}

/// Blocks hold what BF16 held, as a conversion would have it; rows of 48 fit no block.
#[test]
fn blocks_are_made_of_the_bf16_values() {
    let room = room();
    let mut config = PRESETS[0].config_json();
    config["linear_value_head_dim"] = 6.into();
    config["linear_key_head_dim"] = 6.into();
    let mock = Mock::from_config("rows of 48", &config).unwrap().with_layers(1).unwrap();
    let plain = write_gguf(&mock, &room.path().join("bf16.gguf"));
    let blocks = write_gguf(&mock.with_dtype(Encoding::Q8_0), &room.path().join("q8_0.gguf"));
    let find = |checkpoint: &Checkpoint, name: &str| checkpoint.source().tensor(name).unwrap().clone();
    assert_eq!(find(&blocks, "blk.0.ssm_out.weight").encoding, Encoding::F16);
    assert_eq!(find(&plain, "blk.0.ssm_out.weight").encoding, Encoding::BF16);
    let info = find(&plain, "blk.0.attn_qkv.weight");
    let mut values = vec![0.0; info.shape.elements().unwrap() as usize];
    info.encoding.decode(plain.source().bytes(&info), &mut values).unwrap();
    let info = find(&blocks, "blk.0.attn_qkv.weight");
    let mut expected = vec![0; info.size as usize];
    Encoding::Q8_0.encode(&values, None, &mut expected).unwrap();
    assert!(blocks.source().bytes(&info) == expected);
}

#[test]
fn what_cannot_be_made_is_refused_and_leaves_nothing() {
    let room = room();
    let path = room.path().join("mock");
    let hf = |mock: Mock| mock.write_hf(&path, Existing::Refuse, &mut silent).unwrap_err();
    let gguf = |mock: Mock| mock.write_gguf(&path, Existing::Refuse, &mut silent).unwrap_err();
    let mock = small("0.8b");
    assert!(matches!(hf(mock.clone().with_dtype(Encoding::Q8_0)), Error::Encoding { .. }));
    assert!(matches!(hf(mock.clone().with_dtype(Encoding::F8E4M3)), Error::Encoding { .. }));
    for dtype in [Encoding::I8, Encoding::Iq2Xxs, Encoding::F64] {
        let error = gguf(mock.clone().with_dtype(dtype));
        assert!(matches!(error, Error::Encoding { .. }), "{error}");
        assert!(error.to_string().contains("Q8_0"), "{error}");
    }
    let mut unequal = PRESETS[0].config_json();
    unequal["linear_key_head_dim"] = 16.into();
    let unequal = Mock::from_config("unequal", &unequal).unwrap();
    assert!(matches!(gguf(unequal.clone()), Error::UnequalHeads { key: 16, value: 32 }));
    assert_eq!(entries(room.path()), [""; 0]);
    write_hf(&unequal, &path);

    assert!(matches!(Mock::preset("70b"), Err(Error::UnknownPreset { .. })));
    assert!(matches!(mock.clone().with_layers(0), Err(Error::Layers { .. })));
    assert!(matches!(mock.with_layers(1 << 20), Err(Error::Layers { .. })));
    let mut config = PRESETS[0].config_json();
    config["vocab_size"] = 267.into();
    let refused = Mock::from_config("short", &config);
    assert!(matches!(refused, Err(Error::SmallVocabulary { found: 267, least: 268 })));
    config["vocab_size"] = Value::Null;
    assert!(matches!(Mock::from_config("none", &config), Err(Error::Config(_))));
    assert!(matches!(Mock::from_config("none", &json!([])), Err(Error::Config(_))));
}

#[test]
fn only_checkpoints_are_replaced_and_only_when_asked() {
    let room = room();
    let path = room.path().join("mock");
    let mock = small("0.8b");
    write_hf(&mock, &path);
    std::fs::write(path.join("mine.txt"), "").unwrap();
    let error = mock.write_hf(&path, Existing::Refuse, &mut silent).unwrap_err();
    assert!(matches!(error, Error::Exists { .. }));
    assert!(path.join("mine.txt").exists());
    mock.write_hf(&path, Existing::Replace, &mut silent).unwrap();
    assert!(!path.join("mine.txt").exists());
    open(&path);

    let other = room.path().join("home");
    std::fs::create_dir(&other).unwrap();
    mock.write_hf(&other, Existing::Replace, &mut silent).unwrap();
    std::fs::remove_file(other.join("config.json")).unwrap();
    let error = mock.write_hf(&other, Existing::Replace, &mut silent).unwrap_err();
    assert!(matches!(error, Error::NotACheckpoint { .. }));

    let file = room.path().join("mock.gguf");
    write_gguf(&mock, &file);
    assert!(mock.write_gguf(&file, Existing::Refuse, &mut silent).is_err());
    mock.write_gguf(&file, Existing::Replace, &mut silent).unwrap();
    assert_eq!(entries(room.path()), ["home", "mock", "mock.gguf"]);
}

#[test]
fn fewer_layers_are_the_first_ones() {
    let room = room();
    let whole = write_hf(&small("9b").with_layers(6).unwrap(), &room.path().join("6"));
    let cut = write_hf(&small("9b").with_layers(5).unwrap(), &room.path().join("5"));
    assert_eq!(cut.config().layer_types, whole.config().layer_types[..5]);
    for info in cut.source().tensors() {
        let same = whole.source().tensor(&info.name).unwrap();
        assert!(cut.source().bytes(info) == whole.source().bytes(same), "{}", info.name);
    }
    let more = whole.source().tensors().len() - cut.source().tensors().len();
    assert_eq!(more, whole.source().tensors().iter().filter(|t| t.name.contains("layers.5.")).count());
}

/// A configuration with a vision tower gives the text model, and its multi-token-prediction block.
#[test]
fn a_wrapped_configuration_gives_its_text_model() {
    let room = room();
    for name in ["dense-vision-bf16", "moe-packed-bf16"] {
        let text = std::fs::read_to_string(fixture("models").join(name).join("config.json")).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        config["quantization_config"] = json!({"quant_method": "fp8"});
        let mock = Mock::from_config(name, &config).unwrap();
        let hf = write_hf(&mock, &room.path().join(name));
        let gguf = write_gguf(&mock, &room.path().join(name.to_owned() + ".gguf"));
        assert_eq!(hf.config().mtp_num_hidden_layers, 1);
        assert!(hf.source().tensor("mtp.layers.0.self_attn.q_proj.weight").is_some());
        assert!(gguf.config().mtp_num_hidden_layers == 1 && gguf.config().notes.len() <= 1);
        same_weights(&hf, &gguf);
    }
}

#[test]
fn norms_decays_and_time_steps_spread() {
    let room = room();
    let mock = Mock::preset("tiny-dense").unwrap().with_dtype(Encoding::F32);
    let checkpoint = write_hf(&mock, &room.path().join("mock"));
    let weights = weights(&checkpoint);
    let (mut rates, mut steps) = (Vec::new(), Vec::new());
    for layer in &weights.layers {
        let gains = &layer.input_layernorm;
        let mean = gains.iter().sum::<f64>() / gains.len() as f64;
        let deviation = gains.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gains.len() as f64;
        // 256 gains: the mean is within 0.2/16, the deviation within 0.2/√512 of theirs, five times over.
        assert!((mean - 1.0).abs() < 0.07 && (deviation.sqrt() - 0.2).abs() < 0.05);
        if let Mixer::DeltaNet(delta) = &layer.mixer {
            rates.extend(delta.a.iter().map(|a| -a));
            steps.extend(delta.dt_bias.iter().map(|bias| bias.exp().ln_1p()));
        }
    }
    let range = |values: &[f64]| values.iter().fold((f64::MAX, 0f64), |(a, b), &v| (a.min(v), b.max(v)));
    // 24 draws each; a value at the very end of its range may round to just outside.
    let ((a, b), (c, d)) = (range(&rates), range(&steps));
    assert!((0.999..4.0).contains(&a) && (13.0..16.001).contains(&b), "{a} to {b}");
    assert!((0.000_999..0.003).contains(&c) && (0.03..0.1001).contains(&d), "{c} to {d}");
}

#[test]
fn tokenizers_read_the_vocabulary() {
    let room = room();
    for (name, size, count) in [("least", 268, 268), ("tiny-dense", 512, 492), ("0.8b", 248_320, 248_056)] {
        let mut config = PRESETS[0].config_json();
        config["vocab_size"] = size.into();
        config["hidden_size"] = 8.into();
        config["intermediate_size"] = 8.into();
        let mock = Mock::from_config(name, &config).unwrap().with_layers(1).unwrap();
        let path = room.path().join(name);
        write_hf(&mock, &path);
        let tokenizer = tokenizers::Tokenizer::from_file(path.join("tokenizer.json")).unwrap();
        assert_eq!(tokenizer.get_vocab_size(true), count);
        let text = "Hello  wörld, 12 lazy dogs\n\t— 犬 🐕.<|im_end|>\n<think>";
        let ids = tokenizer.encode(text, false).unwrap();
        assert_eq!(tokenizer.decode(ids.get_ids(), false).unwrap(), text);
        let eos = tokenizer.token_to_id("<|im_end|>").unwrap();
        assert!(ids.get_ids().contains(&eos));

        let gguf = write_gguf(&mock, &room.path().join(format!("{name}.gguf")));
        let Metadata::Gguf(keys) = gguf.source().metadata() else { panic!() };
        assert_eq!(keys.get("tokenizer.ggml.eos_token_id").unwrap().as_u64(), Some(eos.into()));
        let array = |key: &str| keys.get(key).unwrap().as_array().unwrap();
        let tokens: Vec<&str> =
            array("tokenizer.ggml.tokens").elements().map(|t| t.unwrap().as_str().unwrap()).collect();
        assert_eq!(tokens.len(), size);
        for (id, token) in (0..).zip(&tokens[..count]) {
            assert_eq!(tokenizer.token_to_id(token), Some(id));
        }
        assert!(tokens[count..].iter().zip(count..).all(|(t, id)| *t == format!("[PAD{id}]")));
        let merges = array("tokenizer.ggml.merges");
        assert_eq!(merges.len() as usize, count - 12 - 256);
        for (token, merge) in tokens[256..].iter().zip(merges.elements()) {
            assert_eq!(merge.unwrap().as_str().unwrap().replacen(' ', "", 1), *token);
        }
    }
}

/// Two checkpoints hold the same canonical weights: matrices bit by bit, and vectors, which a GGUF file holds in f32,
/// when rounded to that.
fn same_weights(a: &Checkpoint, b: &Checkpoint) {
    let (a, b) = (weights(a), weights(b));
    matrix(&a.embed_tokens, &b.embed_tokens);
    vector(&a.norm, &b.norm);
    match (&a.lm_head, &b.lm_head) {
        (Some(a), Some(b)) => matrix(a, b),
        (a, b) => assert!(a.is_none() && b.is_none()),
    }
    assert_eq!(a.layers.len(), b.layers.len());
    assert!(!a.layers.is_empty());
    for (a, b) in a.layers.iter().zip(&b.layers) {
        layer(a, b);
    }
}

fn layer(a: &Layer<Matrix<'_>>, b: &Layer<Matrix<'_>>) {
    vector(&a.input_layernorm, &b.input_layernorm);
    vector(&a.post_attention_layernorm, &b.post_attention_layernorm);
    match (&a.mixer, &b.mixer) {
        (Mixer::DeltaNet(a), Mixer::DeltaNet(b)) => {
            matrix(&a.in_proj_qkv, &b.in_proj_qkv);
            matrix(&a.in_proj_z, &b.in_proj_z);
            matrix(&a.in_proj_b, &b.in_proj_b);
            matrix(&a.in_proj_a, &b.in_proj_a);
            vector(&a.conv1d, &b.conv1d);
            vector(&a.a, &b.a);
            vector(&a.dt_bias, &b.dt_bias);
            vector(&a.norm, &b.norm);
            matrix(&a.out_proj, &b.out_proj);
        }
        (Mixer::Attention(a), Mixer::Attention(b)) => {
            matrix(&a.q_proj, &b.q_proj);
            matrix(&a.k_proj, &b.k_proj);
            matrix(&a.v_proj, &b.v_proj);
            vector(&a.q_norm, &b.q_norm);
            vector(&a.k_norm, &b.k_norm);
            matrix(&a.o_proj, &b.o_proj);
        }
        _ => panic!("other mixers"),
    }
    match (&a.mlp, &b.mlp) {
        (Mlp::Dense(a), Mlp::Dense(b)) => swiglu(a, b),
        (Mlp::Moe(a), Mlp::Moe(b)) => {
            matrix(&a.gate, &b.gate);
            assert_eq!(a.experts.len(), b.experts.len());
            a.experts.iter().zip(&b.experts).for_each(|(a, b)| swiglu(a, b));
            swiglu(&a.shared_expert, &b.shared_expert);
            vector(&a.shared_expert_gate, &b.shared_expert_gate);
        }
        _ => panic!("other feed-forward parts"),
    }
}

fn swiglu(a: &SwiGlu<Matrix<'_>>, b: &SwiGlu<Matrix<'_>>) {
    matrix(&a.gate_proj, &b.gate_proj);
    matrix(&a.up_proj, &b.up_proj);
    matrix(&a.down_proj, &b.down_proj);
}

fn matrix(a: &Matrix<'_>, b: &Matrix<'_>) {
    assert_eq!((a.rows(), a.cols()), (b.rows(), b.cols()));
    assert!(a.rows() > 0);
    let (mut x, mut y, mut scratch) = (vec![0.0; a.cols()], vec![0.0; a.cols()], Vec::new());
    for row in 0..a.rows() {
        a.row(row, &mut x, &mut scratch);
        b.row(row, &mut y, &mut scratch);
        assert!(x.iter().zip(&y).all(|(x, y)| x.to_bits() == y.to_bits()), "row {row}");
    }
}

fn vector(a: &[f64], b: &[f64]) {
    let bits = |values: &[f64]| values.iter().map(|v| (*v as f32).to_bits()).collect::<Vec<_>>();
    assert!(!a.is_empty() && bits(a) == bits(b));
}

//! One mistake at a time, in copies of sound checkpoints: `verify` must name the first point that it reaches.

use serde_json::json;

use crate::etalon::{etalon, fixture};
use crate::mutant::Mutant;

/// A mistake: in which checkpoint, what, and the first point that it reaches.
struct Case {
    mistake: &'static str,
    checkpoint: &'static str,
    make: fn(&Mutant),
    first: &'static str,
}

const fn case(
    mistake: &'static str,
    checkpoint: &'static str,
    make: fn(&Mutant),
    first: &'static str,
) -> Case {
    Case { mistake, checkpoint, make, first }
}

const DENSE: &str = "models/dense-text-f32";
const EXPERTS: &str = "models/moe-experts-f32";
const PACKED: &str = "models/moe-packed-bf16";
const DENSE_GGUF: &str = "gguf-good/dense-text-f32-f32.gguf";

/// dense-text-f32: layers D A A D, H 3, Dh 16, Hk 2, Hv 8, K = V = 8.
const HEADS: usize = 3;
const HEAD: usize = 16;

#[rustfmt::skip]
const CASES: &[Case] = &[
    // Norms: +1 missing, +1 twice, +1 on the one that has none.
    case("input_layernorm without +1", DENSE, |m| m.map("model.layers.1.input_layernorm.weight", less_one), "model.layers.1.input_layernorm"),
    case("input_layernorm with +1 twice", DENSE, |m| m.map("model.layers.0.input_layernorm.weight", plus_one), "model.layers.0.input_layernorm"),
    case("post_attention_layernorm without +1", DENSE, |m| m.map("model.layers.0.post_attention_layernorm.weight", less_one), "model.layers.0.post_attention_layernorm"),
    case("q_norm without +1", DENSE, |m| m.map("model.layers.1.self_attn.q_norm.weight", less_one), "model.layers.1.self_attn.q_norm"),
    case("k_norm without +1", DENSE, |m| m.map("model.layers.1.self_attn.k_norm.weight", less_one), "model.layers.1.self_attn.k_norm"),
    case("final norm without +1", DENSE, |m| m.map("model.norm.weight", less_one), "model.norm"),
    case("+1 on linear_attn.norm", DENSE, |m| m.map("model.layers.0.linear_attn.norm.weight", plus_one), "model.layers.0.linear_attn.norm"),
    // Configuration.
    case("rms_norm_eps 1e-5", DENSE, |m| m.config(|c| c["rms_norm_eps"] = json!(1e-5)), "model.layers.0.input_layernorm"),
    case("all dimensions rotated", DENSE, |m| m.config(|c| c["rope_parameters"]["partial_rotary_factor"] = json!(1.0)), "model.layers.1.self_attn.q_rope"),
    case("another theta", DENSE, |m| m.config(|c| c["rope_parameters"]["rope_theta"] = json!(1e4)), "model.layers.1.self_attn.q_rope"),
    case("head taken for tied", DENSE, |m| m.config(|c| c["tie_word_embeddings"] = json!(true)), "lm_head"),
    case("another number of experts a token", EXPERTS, |m| m.config(|c| c["num_experts_per_tok"] = json!(3)), "model.layers.0.mlp.topk_index"),
    // DeltaNet.
    case("q and k blocks exchanged", DENSE, |m| m.permute("model.layers.0.linear_attn.in_proj_qkv.weight", |n| if n < 32 { (n + 16) % 32 } else { n }), "model.layers.0.linear_attn.in_proj_qkv"),
    case("z negated", DENSE, |m| m.map("model.layers.3.linear_attn.in_proj_z.weight", |w| -w), "model.layers.3.linear_attn.in_proj_z"),
    case("b and a exchanged", DENSE, |m| m.swap("model.layers.0.linear_attn.in_proj_b.weight", "model.layers.0.linear_attn.in_proj_a.weight"), "model.layers.0.linear_attn.in_proj_b"),
    case("taps of the convolution reversed", DENSE, |m| m.permute_columns("model.layers.0.linear_attn.conv1d.weight", |n| 3 - n), "model.layers.0.linear_attn.conv1d"),
    case("A_log holds -exp(A_log)", DENSE, |m| m.map("model.layers.0.linear_attn.A_log", |a| -a.exp()), "model.layers.0.linear_attn.g"),
    case("dt_bias missing", DENSE, |m| m.map("model.layers.3.linear_attn.dt_bias", |_| 0.0), "model.layers.3.linear_attn.g"),
    case("columns of out_proj tiled", DENSE, |m| m.permute_columns("model.layers.0.linear_attn.out_proj.weight", tiled), "model.layers.0.linear_attn"),
    // Attention.
    case("q and gate split as halves", DENSE, |m| m.permute("model.layers.1.self_attn.q_proj.weight", halves), "model.layers.1.self_attn.q_proj"),
    case("q_proj permuted for interleaved pairs", DENSE, |m| m.permute("model.layers.2.self_attn.q_proj.weight", interleaved), "model.layers.2.self_attn.q_proj"),
    case("k_proj and v_proj exchanged", DENSE, |m| m.swap("model.layers.1.self_attn.k_proj.weight", "model.layers.1.self_attn.v_proj.weight"), "model.layers.1.self_attn.k_proj"),
    case("v_proj negated", DENSE, |m| m.map("model.layers.1.self_attn.v_proj.weight", |w| -w), "model.layers.1.self_attn.v_proj"),
    case("heads of o_proj reversed", DENSE, |m| m.permute_columns("model.layers.1.self_attn.o_proj.weight", |n| (HEADS - 1 - n / HEAD) * HEAD + n % HEAD), "model.layers.1.self_attn"),
    // Feed-forward.
    case("gate_proj and up_proj exchanged", DENSE, |m| m.swap("model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.up_proj.weight"), "model.layers.0.mlp.gate_proj"),
    case("down_proj transposed", DENSE, |m| m.edit("model.layers.2.mlp.down_proj.weight", |t| {
        let (n, old) = (t.shape[0], t.values.clone());
        t.values.iter_mut().enumerate().for_each(|(i, v)| *v = old[i % n * n + i / n]);
    }), "model.layers.2.mlp"),
    case("experts permuted in the router", EXPERTS, |m| m.permute("model.layers.0.mlp.gate.weight", |n| (n + 1) % 5), "model.layers.0.mlp.gate"),
    case("gate_proj and up_proj of every expert exchanged", EXPERTS, |m| (0..5).for_each(|e| {
        m.swap(&format!("model.layers.1.mlp.experts.{e}.gate_proj.weight"), &format!("model.layers.1.mlp.experts.{e}.up_proj.weight"));
    }), "model.layers.1.mlp.experts"),
    case("halves of gate_up_proj exchanged", PACKED, |m| m.edit("model.language_model.layers.0.mlp.experts.gate_up_proj", |t| {
        let half = t.values.len() / t.shape[0] / 2;
        t.values.chunks_mut(2 * half).for_each(|expert| expert.rotate_left(half));
    }), "model.layers.0.mlp.experts"),
    case("gate_proj and up_proj of the shared expert exchanged", EXPERTS, |m| m.swap("model.layers.0.mlp.shared_expert.gate_proj.weight", "model.layers.0.mlp.shared_expert.up_proj.weight"), "model.layers.0.mlp.shared_expert"),
    case("shared expert's gate negated", EXPERTS, |m| m.map("model.layers.0.mlp.shared_expert_gate.weight", |w| -w), "model.layers.0.mlp"),
    // Ends.
    case("rows of the embedding shifted", DENSE, |m| m.permute("model.embed_tokens.weight", |n| (n + 1) % 512), "model.embed_tokens"),
    case("rows of the head shifted", DENSE, |m| m.permute("lm_head.weight", |n| (n + 1) % 512), "lm_head"),
    // GGUF: each of the eight tiled tensors back in grouped order.
    case("attn_qkv grouped", DENSE_GGUF, |m| m.permute("blk.0.attn_qkv.weight", |n| if n < 32 { n } else { 32 + tiled(n - 32) }), "model.layers.0.linear_attn.in_proj_qkv"),
    case("attn_gate grouped", DENSE_GGUF, |m| m.permute("blk.0.attn_gate.weight", tiled), "model.layers.0.linear_attn.in_proj_z"),
    case("ssm_beta grouped", DENSE_GGUF, |m| m.permute("blk.0.ssm_beta.weight", tiled_head), "model.layers.0.linear_attn.in_proj_b"),
    case("ssm_alpha grouped", DENSE_GGUF, |m| m.permute("blk.0.ssm_alpha.weight", tiled_head), "model.layers.0.linear_attn.in_proj_a"),
    case("ssm_conv1d grouped", DENSE_GGUF, |m| m.permute("blk.0.ssm_conv1d.weight", |n| if n < 32 { n } else { 32 + tiled(n - 32) }), "model.layers.0.linear_attn.conv1d"),
    case("ssm_a grouped", DENSE_GGUF, |m| m.permute("blk.0.ssm_a", tiled_head), "model.layers.0.linear_attn.g"),
    case("ssm_dt grouped", DENSE_GGUF, |m| m.permute("blk.0.ssm_dt.bias", tiled_head), "model.layers.0.linear_attn.g"),
    case("ssm_out grouped", DENSE_GGUF, |m| m.permute_columns("blk.0.ssm_out.weight", tiled), "model.layers.0.linear_attn"),
    // GGUF: the other transforms, and keys.
    case("ssm_a holds A_log", DENSE_GGUF, |m| m.map("blk.0.ssm_a", |a| (-a).ln()), "model.layers.0.linear_attn.g"),
    case("attn_norm holds w", DENSE_GGUF, |m| m.map("blk.0.attn_norm.weight", less_one), "model.layers.0.input_layernorm"),
    case("post_attention_norm holds w", DENSE_GGUF, |m| m.map("blk.1.post_attention_norm.weight", less_one), "model.layers.1.post_attention_layernorm"),
    case("attn_q_norm holds w", DENSE_GGUF, |m| m.map("blk.1.attn_q_norm.weight", less_one), "model.layers.1.self_attn.q_norm"),
    case("attn_k_norm holds w", DENSE_GGUF, |m| m.map("blk.2.attn_k_norm.weight", less_one), "model.layers.2.self_attn.k_norm"),
    case("output_norm holds w", DENSE_GGUF, |m| m.map("output_norm.weight", less_one), "model.norm"),
    case("ssm_norm holds w + 1", DENSE_GGUF, |m| m.map("blk.3.ssm_norm.weight", plus_one), "model.layers.3.linear_attn.norm"),
    case("layer_norm_rms_epsilon 1e-5", DENSE_GGUF, |m| m.key("qwen35.attention.layer_norm_rms_epsilon", &1e-5f32.to_le_bytes()), "model.layers.0.input_layernorm"),
    case("rope.freq_base 1e4", DENSE_GGUF, |m| m.key("qwen35.rope.freq_base", &1e4f32.to_le_bytes()), "model.layers.1.self_attn.q_rope"),
    case("rope.dimension_count 16", DENSE_GGUF, |m| m.key("qwen35.rope.dimension_count", &16u32.to_le_bytes()), "model.layers.1.self_attn.q_rope"),
    case("ffn_gate_exps and ffn_up_exps exchanged", "gguf-good/moe-packed-bf16-bf16.gguf", |m| m.swap("blk.0.ffn_gate_exps.weight", "blk.0.ffn_up_exps.weight"), "model.layers.0.mlp.experts"),
    case("expert_used_count 2", "gguf-good/moe-packed-bf16-bf16.gguf", |m| m.key("qwen35moe.expert_used_count", &2u32.to_le_bytes()), "model.layers.0.mlp.topk_index"),
];

fn less_one(w: f32) -> f32 {
    w - 1.0
}

fn plus_one(w: f32) -> f32 {
    w + 1.0
}

/// Where HF's value head `g·r + j` stands in GGUF's order, Hk 2, r 4. Read at these places a tiled axis comes out
/// grouped, and a grouped one neither.
fn tiled_head(head: usize) -> usize {
    let (g, j) = (head / 4, head % 4);
    j * 2 + g
}

/// The same for rows of heads of V = 8.
fn tiled(row: usize) -> usize {
    tiled_head(row / 8) * 8 + row % 8
}

/// Row `n` of all queries, then all gates, among rows of query and gate by head.
fn halves(n: usize) -> usize {
    let (gate, head, within) = (n / (HEADS * HEAD), n / HEAD % HEADS, n % HEAD);
    head * 2 * HEAD + gate * HEAD + within
}

/// Queries' rotated halves (i, i + 6) as pairs (2i, 2i + 1), 12 of 16 dimensions being rotated.
fn interleaved(n: usize) -> usize {
    match n % (2 * HEAD) {
        i @ 0..12 => n - i + i / 2 + i % 2 * 6,
        _ => n,
    }
}

/// The f64 trace of the model that a checkpoint was made from.
fn truth(checkpoint: &str) -> std::path::PathBuf {
    let name = checkpoint.rsplit('/').next().unwrap();
    let model =
        ["dense-text-f32", "moe-experts-f32", "moe-packed-bf16"].into_iter().find(|m| name.starts_with(m));
    fixture(&format!("traces/{}.f64.npz", model.expect("a known model")))
}

/// GGUF holds 1 + w and -exp(A_log) rounded to f32, which is 1e-15 of their squares and less than this at the end of
/// the models here; the HF checkpoint is held to the built-in limits of f64.
const GGUF_LIMIT: &str = "*=2e-12";

fn verify(checkpoint: &std::path::Path, truth: &std::path::Path) -> crate::etalon::Ran {
    let mut arguments =
        vec!["verify", checkpoint.to_str().unwrap(), "--json", "--against", truth.to_str().unwrap()];
    if checkpoint.extension().is_some() {
        arguments.extend(["--limit", GGUF_LIMIT]);
    }
    etalon(arguments)
}

#[test]
fn every_mistake_is_found_where_it_is_made() {
    let mut wrong = Vec::new();
    for Case { mistake, checkpoint, make, first } in CASES {
        let mutant = Mutant::of(checkpoint);
        make(&mutant);
        let ran = verify(mutant.path(), &truth(checkpoint));
        let found = match ran.status {
            1 => ran.json()["divergence"]["point"].as_str().unwrap_or("nothing").to_owned(),
            status => format!("exit status {status} {}", ran.stderr),
        };
        if found != *first {
            wrong.push(format!("{checkpoint}: {mistake}: expected {first}, found {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Without a mistake the same copies pass: what the test above finds is the mistake.
#[test]
fn unchanged_copies_pass() {
    let mut checkpoints: Vec<&str> = CASES.iter().map(|case| case.checkpoint).collect();
    checkpoints.sort_unstable();
    checkpoints.dedup();
    for checkpoint in checkpoints {
        let copy = Mutant::of(checkpoint);
        verify(copy.path(), &truth(checkpoint)).expect(0);
    }
}

/// A layer pattern that the tensors contradict is an error, not a comparison.
#[test]
fn a_wrong_layer_pattern_is_an_error() {
    let mutant = Mutant::of(DENSE);
    mutant.config(|c| {
        c.as_object_mut().unwrap().remove("layer_types");
        c["full_attention_interval"] = json!(4);
    });
    let ran = verify(mutant.path(), &truth(DENSE)).expect(2);
    for layer in [1, 2, 3] {
        assert!(ran.stderr.contains(&format!("layer type {layer} is")), "{}", ran.stderr);
    }
    // GGUF: the array of booleans after its type and its length; layer 0 becomes attention.
    let mutant = Mutant::of(DENSE_GGUF);
    let array = [&7u32.to_le_bytes()[..], &4u64.to_le_bytes(), &[0, 0, 0, 1]].concat();
    mutant.key("qwen35.attention.recurrent_layers", &array);
    let ran = verify(mutant.path(), &truth(DENSE_GGUF)).expect(2);
    assert!(ran.stderr.contains("layer type 0 is"), "{}", ran.stderr);
}

/// A head that is not there cannot be untied from the embedding.
#[test]
fn untying_a_tied_head_is_an_error() {
    let mutant = Mutant::of("models/dense-vision-bf16");
    let file = mutant.file("config.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let untied = text.replace("\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false");
    assert_ne!(text, untied);
    std::fs::write(file, untied).unwrap();
    let ran = verify(mutant.path(), &fixture("traces/dense-vision-bf16.f64.npz")).expect(2);
    assert!(ran.stderr.contains("missing    lm_head.weight"), "{}", ran.stderr);
}

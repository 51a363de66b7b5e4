//! The same model as Hugging Face checkpoint and as GGUF, in canonical form.

use std::path::Path;

use model::weights::{Mixer, Mlp, SwiGlu};
use model::{Checkpoint, Matrix, NonFinitePolicy, Weights};

/// Pairs whose GGUF holds the checkpoint's own dtype, so that every matrix must be equal bit for bit.
const PAIRS: &[(&str, &str)] = &[
    ("golden/dense-f32", "gguf-good/dense-f32-f32.gguf"),
    ("golden/moe-f32", "gguf-good/moe-f32-f32.gguf"),
    ("models/dense-text-f32", "gguf-good/dense-text-f32-f32.gguf"),
    ("models/dense-vision-bf16", "gguf-good/dense-vision-bf16-bf16.gguf"),
    ("models/moe-packed-bf16", "gguf-good/moe-packed-bf16-bf16.gguf"),
];

fn open(path: &str) -> Checkpoint {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(path);
    Checkpoint::open(&path, &Default::default()).unwrap_or_else(|e| panic!("{e}"))
}

/// A model taken apart, each part under a name of its own.
#[derive(Default)]
struct Parts<'a> {
    matrices: Vec<(String, Matrix<'a>)>,
    /// Vectors that no step on values touches.
    exact: Vec<(String, Vec<f64>)>,
    /// Vectors that GGUF holds as 1 + w or −exp(A_log), rounded to f32.
    rounded: Vec<(String, Vec<f64>)>,
}

impl<'a> Parts<'a> {
    fn of(weights: &Weights<Matrix<'a>>) -> Parts<'a> {
        let mut parts = Parts::default();
        parts.matrix("embed", &weights.embed_tokens);
        if let Some(head) = &weights.lm_head {
            parts.matrix("head", head);
        }
        parts.rounded.push(("norm".into(), weights.norm.clone()));
        for (l, layer) in weights.layers.iter().enumerate() {
            parts.rounded.push((format!("{l} input norm"), layer.input_layernorm.clone()));
            parts.rounded.push((format!("{l} post norm"), layer.post_attention_layernorm.clone()));
            match &layer.mixer {
                Mixer::DeltaNet(w) => {
                    parts.matrix(&format!("{l} qkv"), &w.in_proj_qkv);
                    parts.matrix(&format!("{l} z"), &w.in_proj_z);
                    parts.matrix(&format!("{l} b"), &w.in_proj_b);
                    parts.matrix(&format!("{l} a"), &w.in_proj_a);
                    parts.matrix(&format!("{l} out"), &w.out_proj);
                    parts.exact.push((format!("{l} conv1d"), w.conv1d.clone()));
                    parts.exact.push((format!("{l} dt_bias"), w.dt_bias.clone()));
                    parts.exact.push((format!("{l} gated norm"), w.norm.clone()));
                    parts.rounded.push((format!("{l} decay"), w.a.clone()));
                }
                Mixer::Attention(w) => {
                    parts.matrix(&format!("{l} q"), &w.q_proj);
                    parts.matrix(&format!("{l} k"), &w.k_proj);
                    parts.matrix(&format!("{l} v"), &w.v_proj);
                    parts.matrix(&format!("{l} o"), &w.o_proj);
                    parts.rounded.push((format!("{l} q norm"), w.q_norm.clone()));
                    parts.rounded.push((format!("{l} k norm"), w.k_norm.clone()));
                }
            }
            match &layer.mlp {
                Mlp::Dense(w) => parts.swiglu(&format!("{l} mlp"), w),
                Mlp::Moe(w) => {
                    for (e, expert) in w.experts.iter().enumerate() {
                        parts.swiglu(&format!("{l} expert {e}"), expert);
                    }
                    parts.swiglu(&format!("{l} shared"), &w.shared_expert);
                    parts.matrix(&format!("{l} router"), &w.gate);
                    parts.exact.push((format!("{l} shared gate"), w.shared_expert_gate.clone()));
                }
            }
        }
        parts
    }

    fn matrix(&mut self, name: &str, matrix: &Matrix<'a>) {
        self.matrices.push((name.into(), matrix.clone()));
    }

    fn swiglu(&mut self, name: &str, w: &SwiGlu<Matrix<'a>>) {
        self.matrix(&format!("{name} gate"), &w.gate_proj);
        self.matrix(&format!("{name} up"), &w.up_proj);
        self.matrix(&format!("{name} down"), &w.down_proj);
    }
}

fn bits(matrix: &Matrix<'_>) -> Vec<u32> {
    let (mut row, mut scratch) = (vec![0f32; matrix.cols()], Vec::new());
    let mut bits = Vec::new();
    for r in 0..matrix.rows() {
        matrix.row(r, &mut row, &mut scratch);
        bits.extend(row.iter().map(|v| v.to_bits()));
    }
    bits
}

#[test]
fn hf_and_gguf_agree_in_canonical_form() {
    for (hf, gguf) in PAIRS {
        let (a, b) = (open(hf), open(gguf));
        let (a, b) =
            (a.weights(NonFinitePolicy::Refuse).unwrap(), b.weights(NonFinitePolicy::Refuse).unwrap());
        let (a, b) = (Parts::of(&a), Parts::of(&b));
        assert!(a.matrices.len() == b.matrices.len() && a.exact.len() == b.exact.len(), "{hf}");
        assert!(a.rounded.len() == b.rounded.len() && !a.rounded.is_empty(), "{hf}");
        for ((name, a), (_, b)) in a.matrices.iter().zip(&b.matrices) {
            assert!(bits(a) == bits(b), "{hf}: {name}");
        }
        for ((name, a), (_, b)) in a.exact.iter().zip(&b.exact) {
            assert!(a.iter().map(|v| v.to_bits()).eq(b.iter().map(|v| v.to_bits())), "{hf}: {name}");
        }
        for ((name, a), (_, b)) in a.rounded.iter().zip(&b.rounded) {
            for (exact, stored) in a.iter().zip(b) {
                // Half an ulp of f32 from rounding; a converter's exp in f32 may be one ulp off itself.
                let magnitude = (*exact as f32).abs();
                let ulp = f64::from(magnitude.next_up()) - f64::from(magnitude);
                assert!((exact - stored).abs() <= 1.5 * ulp, "{hf}: {name}: {exact} and {stored}");
            }
        }
    }
}

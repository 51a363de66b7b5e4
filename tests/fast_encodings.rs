//! The fast path against the reference with matrices of every encoding.

use ::fast::Kernels;
use codec::Encoding;
use convert::Mock;
use format::Existing;
use model::weights::{Attention, DeltaNet, Layer, Mixer, Mlp, Moe, SwiGlu};
use model::{Checkpoint, Matrix, NonFinitePolicy, Weights};

use crate::fast::{expect_close, judge};

/// The same weights, each matrix held in another way.
fn map<'a, M, N>(w: &'a Weights<M>, f: &impl Fn(&'a M) -> N) -> Weights<N> {
    let block = |w: &'a SwiGlu<M>| SwiGlu {
        gate_proj: f(&w.gate_proj),
        up_proj: f(&w.up_proj),
        down_proj: f(&w.down_proj),
    };
    let layer = |l: &'a Layer<M>| Layer {
        input_layernorm: l.input_layernorm.clone(),
        mixer: match &l.mixer {
            Mixer::DeltaNet(w) => Mixer::DeltaNet(DeltaNet {
                in_proj_qkv: f(&w.in_proj_qkv),
                in_proj_z: f(&w.in_proj_z),
                in_proj_b: f(&w.in_proj_b),
                in_proj_a: f(&w.in_proj_a),
                conv1d: w.conv1d.clone(),
                a: w.a.clone(),
                dt_bias: w.dt_bias.clone(),
                norm: w.norm.clone(),
                out_proj: f(&w.out_proj),
            }),
            Mixer::Attention(w) => Mixer::Attention(Attention {
                q_proj: f(&w.q_proj),
                k_proj: f(&w.k_proj),
                v_proj: f(&w.v_proj),
                q_norm: w.q_norm.clone(),
                k_norm: w.k_norm.clone(),
                o_proj: f(&w.o_proj),
            }),
        },
        post_attention_layernorm: l.post_attention_layernorm.clone(),
        mlp: match &l.mlp {
            Mlp::Dense(w) => Mlp::Dense(block(w)),
            Mlp::Moe(w) => Mlp::Moe(Moe {
                gate: f(&w.gate),
                experts: w.experts.iter().map(block).collect(),
                shared_expert: block(&w.shared_expert),
                shared_expert_gate: w.shared_expert_gate.clone(),
            }),
        },
    };
    Weights {
        embed_tokens: f(&w.embed_tokens),
        layers: w.layers.iter().map(layer).collect(),
        norm: w.norm.clone(),
        lm_head: w.lm_head.as_ref().map(f),
    }
}

/// A matrix encoded anew.
struct Held {
    bytes: Vec<u8>,
    encoding: Encoding,
    rows: usize,
    cols: usize,
}

impl Held {
    fn new(w: &Matrix, encoding: Encoding) -> Held {
        let (rows, cols) = (w.rows(), w.cols());
        let mut values = vec![0f32; rows * cols];
        for (r, row) in values.chunks_exact_mut(cols).enumerate() {
            w.row(r, row, &mut Vec::new());
        }
        let mut bytes = vec![0; encoding.byte_len(values.len() as u64).unwrap() as usize];
        let importance = encoding.needs_importance().then(|| vec![1f32; cols]);
        encoding.encode(&values, importance.as_deref(), &mut bytes).unwrap();
        Held { bytes, encoding, rows, cols }
    }

    fn matrix(&self) -> Matrix<'_> {
        Matrix::new(&self.bytes, self.encoding, self.rows, self.cols).unwrap()
    }
}

fn check(preset: &str, encodings: &[Encoding]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mock.gguf");
    let mock = Mock::preset(preset).unwrap().with_dtype(Encoding::F32);
    mock.write_gguf(&path, Existing::Refuse, &mut |_, _| {}).unwrap();
    let checkpoint = Checkpoint::open(&path, &format::Limits::default()).unwrap();
    let plain = checkpoint.weights(NonFinitePolicy::Refuse).unwrap();
    for &encoding in encodings {
        let held = map(&plain, &|w| Held::new(w, encoding));
        let weights = map(&held, &Held::matrix);
        for calls in [&[24][..], &[1; 6]] {
            let found = judge(checkpoint.config(), &weights, calls, Kernels::detect());
            expect_close(&format!("{preset} in {encoding}, calls of {calls:?}"), found);
        }
    }
}

#[test]
fn every_encoding_agrees_with_the_reference() {
    let blocks = Encoding::ALL.iter().filter(|e| e.is_encodable() && e.block_len() > 1);
    let mut encodings: Vec<Encoding> = blocks.copied().collect();
    assert!(encodings.len() >= 24, "{}", encodings.len());
    encodings.extend([Encoding::F32, Encoding::F16, Encoding::BF16, Encoding::F64]);
    check("tiny-dense", &encodings);
}

#[test]
fn experts_agree_with_the_reference() {
    check("tiny-moe", &[Encoding::Q4K, Encoding::Q8_0]);
}

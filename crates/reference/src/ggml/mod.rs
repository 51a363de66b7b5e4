//! The second oracle: matrices times activations as ggml 0.25.3 computes them.
//!
//! ggml rounds activations to the form that goes with a matrix's encoding, mostly blocks of 8-bit numbers, and sums
//! products of whole numbers. What is here has the bits of its portable scalar code (`…_generic`, `quantize_row_…_ref`)
//! compiled for baseline x86-64, where no multiply-add is fused. Everything else of a pass stays the reference's:
//! `docs/contract.md`.

mod activations;
mod dots;
mod linear;

use codec::Encoding;
use model::weights::{Mixer, Mlp, SwiGlu};
use model::{Matrix, Weights};

pub(crate) use linear::linear;

use crate::error::Error;

/// What every trace and report of this oracle names instead of [`crate::CONTRACT`].
pub const CONTRACT: &str = "etalon-ggml-q8/1";

/// What activations become before a matrix is multiplied by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activations {
    /// They stay, and products are exact: the reference.
    F32,
    /// What ggml makes of them, and its products: the second oracle.
    Q8,
}

impl Activations {
    /// As `--activations` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Activations::F32 => "f32",
            Activations::Q8 => "q8",
        }
    }

    /// The contract that a pass with such activations keeps.
    pub fn contract(self) -> &'static str {
        match self {
            Activations::F32 => crate::CONTRACT,
            Activations::Q8 => CONTRACT,
        }
    }
}

/// What ggml multiplies rows of an encoding by: its `vec_dot_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partner {
    /// Activations as they are.
    F32,
    /// The nearest half.
    F16,
    /// The nearest bfloat16.
    BF16,
    /// Blocks of 32: f16 d, bytes.
    Q8_0,
    /// Blocks of 32: f16 d, f16 d·Σq, bytes.
    Q8_1,
    /// Blocks of 256: f32 d, bytes, sums of sixteen.
    Q8K,
}

impl Partner {
    /// Of rows of `encoding`; `None` if ggml has no inner product for them.
    pub fn of(encoding: Encoding) -> Option<Partner> {
        use Encoding::*;
        match encoding {
            F32 => Some(Partner::F32),
            F16 => Some(Partner::F16),
            BF16 => Some(Partner::BF16),
            Q4_0 | Q5_0 | Q8_0 | Iq4Nl | Mxfp4 | Nvfp4 | Q1_0 | Q2_0 => Some(Partner::Q8_0),
            Q4_1 | Q5_1 => Some(Partner::Q8_1),
            Q2K | Q3K | Q4K | Q5K | Q6K | Iq1S | Iq1M | Iq2Xxs | Iq2Xs | Iq2S | Iq3Xxs | Iq3S | Iq4Xs
            | Tq1_0 | Tq2_0 => Some(Partner::Q8K),
            F64 | I8 | I16 | I32 | I64 | U8 | U16 | U32 | U64 | Bool | F8E4M3 | F8E5M2 | Q8_1 | Q8K => None,
        }
    }

    /// Activations in this form, byte for byte as ggml holds them; a width that is no whole number of blocks loses its
    /// rest.
    pub fn bytes(self, x: &[f32]) -> Vec<u8> {
        activations::bytes(self, x)
    }
}

/// The inner product of a row of `encoding`, as it lies in the file, with activations in the same order of columns.
/// `None` if ggml has none for it, or the row is not exactly the encoding of so many values.
pub fn dot(encoding: Encoding, row: &[u8], x: &[f32]) -> Option<f32> {
    linear::dot(encoding, row, x)
}

/// The inner product of numbers: products in f32, their sum in f64, in order.
pub(crate) fn dot_f32(w: impl Iterator<Item = f32>, x: impl Iterator<Item = f32>) -> f32 {
    w.zip(x).fold(0.0, |sum, (w, x)| sum + f64::from(w * x)) as f32
}

/// Every matrix has an inner product.
///
/// # Errors
/// The first one that has none.
pub(crate) fn check(weights: &Weights<Matrix<'_>>) -> Result<(), Error> {
    let check = |name: String, w: &Matrix<'_>| match Partner::of(w.encoding()) {
        Some(_) => Ok(()),
        None => Err(Error::NoDot { matrix: name, encoding: w.encoding() }),
    };
    let block = |at: &str, w: &SwiGlu<Matrix<'_>>| {
        let parts = [("gate_proj", &w.gate_proj), ("up_proj", &w.up_proj), ("down_proj", &w.down_proj)];
        parts.into_iter().try_for_each(|(name, w)| check(format!("{at}.{name}"), w))
    };
    match &weights.lm_head {
        Some(head) => check("lm_head".to_owned(), head)?,
        None => check("model.embed_tokens (the tied head)".to_owned(), &weights.embed_tokens)?,
    }
    for (l, layer) in weights.layers.iter().enumerate() {
        let at = format!("model.layers.{l}");
        let mixer: Vec<(&str, &Matrix<'_>)> = match &layer.mixer {
            Mixer::DeltaNet(w) => vec![
                ("linear_attn.in_proj_qkv", &w.in_proj_qkv),
                ("linear_attn.in_proj_z", &w.in_proj_z),
                ("linear_attn.in_proj_b", &w.in_proj_b),
                ("linear_attn.in_proj_a", &w.in_proj_a),
                ("linear_attn.out_proj", &w.out_proj),
            ],
            Mixer::Attention(w) => vec![
                ("self_attn.q_proj", &w.q_proj),
                ("self_attn.k_proj", &w.k_proj),
                ("self_attn.v_proj", &w.v_proj),
                ("self_attn.o_proj", &w.o_proj),
            ],
        };
        mixer.into_iter().try_for_each(|(name, w)| check(format!("{at}.{name}"), w))?;
        match &layer.mlp {
            Mlp::Dense(w) => block(&format!("{at}.mlp"), w)?,
            Mlp::Moe(w) => {
                check(format!("{at}.mlp.gate"), &w.gate)?;
                block(&format!("{at}.mlp.shared_expert"), &w.shared_expert)?;
                let mut experts = w.experts.iter().enumerate();
                experts.try_for_each(|(e, w)| block(&format!("{at}.mlp.experts.{e}"), w))?;
            }
        }
    }
    Ok(())
}

//! Offers named activations to a tap.

use model::{Config, FeedForward, LayerType};
use ndarray::{Array, Array2, ArrayRef, Dimension};
use trace::point::{KINDS, order_key};
use trace::{Extent, Tap, TapError, ValuesRef, View};

use crate::precision::Kept;

/// A tap, and the module path that the names offered to it begin with.
pub(crate) struct Points<'t> {
    tap: &'t mut dyn Tap,
    prefix: String,
}

impl<'t> Points<'t> {
    pub(crate) fn new(tap: &'t mut dyn Tap, prefix: &str) -> Points<'t> {
        Points { tap, prefix: prefix.into() }
    }

    fn record(
        &mut self,
        name: &str,
        shape: &[usize],
        values: ValuesRef<'_>,
        extent: Extent,
    ) -> Result<(), TapError> {
        self.tap.record(&format!("{}{name}", self.prefix), View { shape, values, extent })
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.tap.wants(&format!("{}{name}", self.prefix))
    }

    /// Records one row a token, and hands the rows on.
    pub(crate) fn rows<D: Dimension>(
        &mut self,
        name: &str,
        rows: Array<f64, D>,
    ) -> Result<Array<f64, D>, TapError> {
        self.record_rows(name, &rows)?;
        Ok(rows)
    }

    /// Records one row a token.
    pub(crate) fn record_rows<T: Kept, D: Dimension>(
        &mut self,
        name: &str,
        values: &ArrayRef<T, D>,
    ) -> Result<(), TapError> {
        if !self.wants(name) {
            return Ok(());
        }
        let values_in_order = values.as_standard_layout();
        let flat = values_in_order.as_slice().expect("standard layout is contiguous");
        self.record(name, values.shape(), T::values(flat), Extent::Tokens)
    }

    /// One row of whole numbers a token.
    pub(crate) fn indices(&mut self, name: &str, values: &Array2<i64>) -> Result<(), TapError> {
        if !self.wants(name) {
            return Ok(());
        }
        let flat = values.as_slice().expect("made in standard layout");
        self.record(name, values.shape(), ValuesRef::I64(flat), Extent::Tokens)
    }

    /// What stands after the last token.
    pub(crate) fn state(
        &mut self,
        name: &str,
        shape: &[usize],
        values: impl FnOnce() -> Vec<f64>,
    ) -> Result<(), TapError> {
        if !self.wants(name) {
            return Ok(());
        }
        self.record(name, shape, ValuesRef::F64(&values()), Extent::State)
    }
}

/// A point that a model has, and the shape it records.
#[derive(Clone, Debug, serde::Serialize)]
pub struct PointShape {
    /// As traces name it.
    pub name: String,
    /// Axes as symbols, `T` being tokens.
    pub axes: Vec<&'static str>,
    /// Lengths of the axes; `None` for tokens.
    pub shape: Vec<Option<usize>>,
    /// What llama.cpp's evaluation callback calls it.
    pub llama_cpp: Option<String>,
}

/// Every point of a model of this configuration, in execution order.
pub fn points(config: &Config) -> Vec<PointShape> {
    let moe = matches!(config.feed_forward, FeedForward::Moe { .. });
    let has = |layer: usize, suffix: &str| match suffix {
        "mlp.gate_proj" | "mlp.up_proj" => !moe,
        "mlp.gate" | "mlp.topk_index" | "mlp.topk_weight" | "mlp.experts" | "mlp.shared_expert" => moe,
        s if s.starts_with("linear_attn") => config.layer_types[layer] == LayerType::LinearAttention,
        s if s.starts_with("self_attn") => config.layer_types[layer] == LayerType::FullAttention,
        _ => true,
    };
    let of = |layer: Option<usize>| {
        KINDS
            .iter()
            .filter(move |kind| kind.in_layer == layer.is_some())
            .filter(move |kind| layer.is_none_or(|l| has(l, kind.suffix)))
            .map(move |kind| PointShape {
                name: layer.map_or(kind.suffix.to_owned(), |l| kind.name(l)),
                axes: kind.axes.to_vec(),
                shape: kind.axes.iter().map(|axis| length(axis, config)).collect(),
                llama_cpp: kind.llama_cpp.map(|name| match layer {
                    Some(l) => format!("{name}-{l}"),
                    None => name.to_owned(),
                }),
            })
    };
    let mut points: Vec<PointShape> =
        of(None).chain((0..config.num_hidden_layers).flat_map(|l| of(Some(l)))).collect();
    points.sort_by_key(|point| order_key(&point.name));
    points
}

/// The length of an axis of the point table; `None` for tokens.
fn length(axis: &str, c: &Config) -> Option<usize> {
    let (inner, experts, chosen) = match c.feed_forward {
        FeedForward::Dense { intermediate_size } => (intermediate_size, 0, 0),
        FeedForward::Moe { num_experts, num_experts_per_tok, .. } => (0, num_experts, num_experts_per_tok),
    };
    Some(match axis {
        "T" => return None,
        "D" => c.hidden_size,
        "C" => c.qkv_dim(),
        "taps−1" => c.linear_conv_kernel_dim - 1,
        "Hv" => c.linear_num_value_heads,
        "K" => c.linear_key_head_dim,
        "V" => c.linear_value_head_dim,
        "Hv·V" => c.value_dim(),
        "H" => c.num_attention_heads,
        "Hkv" => c.num_key_value_heads,
        "Dh" => c.head_dim,
        "H·Dh" => c.num_attention_heads * c.head_dim,
        "Hkv·Dh" => c.num_key_value_heads * c.head_dim,
        "H·2·Dh" => 2 * c.num_attention_heads * c.head_dim,
        "F" => inner,
        "E" => experts,
        "k" => chosen,
        "vocab" => c.vocab_size,
        other => unreachable!("the point table has no axis {other}"),
    })
}

//! What a model carries from one call to the next.

use std::io::{Read, Write};

use model::{Config, LayerType};

use crate::error::Error;

/// Everything that the tokens so far have left behind, in f64 whatever the precision. Cloning it forks the text.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    pub(crate) position: usize,
    pub(crate) layers: Vec<LayerState>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum LayerState {
    DeltaNet(DeltaState),
    Attention(AttentionState),
}

/// DeltaNet's part.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DeltaState {
    /// The last `taps − 1` rows of in_proj_qkv's output, oldest first: `[taps−1, C]`.
    pub conv: Vec<f64>,
    /// `[Hv, K, V]`.
    pub recurrent: Vec<f64>,
    channels: usize,
}

impl DeltaState {
    /// The convolution's rows as traces hold them: `[C, taps−1]`.
    pub(crate) fn conv_by_channel(&self) -> Vec<f64> {
        (0..self.channels).flat_map(|c| self.conv.iter().skip(c).step_by(self.channels)).copied().collect()
    }
}

/// Attention's part: keys after RoPE and values, `[positions, Hkv, Dh]` each.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct AttentionState {
    pub k: Vec<f64>,
    pub v: Vec<f64>,
}

/// First bytes of a saved state; the number is the version of what follows.
const MAGIC: &[u8; 16] = b"etalon state v1\n";

impl State {
    /// Before the first token.
    pub fn new(config: &Config) -> State {
        let recurrent =
            config.linear_num_value_heads * config.linear_key_head_dim * config.linear_value_head_dim;
        let layer = |kind: &LayerType| match kind {
            LayerType::LinearAttention => LayerState::DeltaNet(DeltaState {
                conv: vec![0.0; (config.linear_conv_kernel_dim - 1) * config.qkv_dim()],
                recurrent: vec![0.0; recurrent],
                channels: config.qkv_dim(),
            }),
            LayerType::FullAttention => LayerState::Attention(AttentionState::default()),
        };
        State { position: 0, layers: config.layer_types.iter().map(layer).collect() }
    }

    /// Tokens seen.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Moves past `tokens` that were run block by block.
    pub fn advance(&mut self, tokens: usize) {
        self.position += tokens;
    }

    /// Writes the state: [`State::restore`] gives back the same bits.
    ///
    /// # Errors
    /// Whatever the writer says.
    pub fn save(&self, to: &mut impl Write) -> std::io::Result<()> {
        to.write_all(MAGIC)?;
        to.write_all(&(self.position as u64).to_le_bytes())?;
        for values in self.layers.iter().flat_map(LayerState::parts) {
            for value in values {
                to.write_all(&value.to_le_bytes())?;
            }
        }
        Ok(())
    }

    /// Reads a state saved for a model of this configuration.
    ///
    /// # Errors
    /// Not a saved state, one of another model, or one that is cut short.
    pub fn restore(from: &mut impl Read, config: &Config) -> Result<State, Error> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).map_err(|e| Error::State(e.to_string()))?;
        let (head, values) = bytes
            .split_at_checked(MAGIC.len() + 8)
            .filter(|(head, _)| head.starts_with(MAGIC))
            .ok_or_else(|| Error::State("expected it to begin with \"etalon state v1\"".into()))?;
        let position =
            u64::from_le_bytes(head[MAGIC.len()..].try_into().expect("eight bytes were split off"));
        let mut state = State::new(config);
        let stride = config.num_key_value_heads * config.head_dim;
        let cached = usize::try_from(position).ok().and_then(|p| p.checked_mul(stride));
        let expected = state.layers.iter().try_fold(0usize, |sum, layer| {
            sum.checked_add(match layer {
                LayerState::DeltaNet(s) => s.conv.len() + s.recurrent.len(),
                LayerState::Attention(_) => cached?.checked_mul(2)?,
            })
        });
        if expected.and_then(|count| count.checked_mul(8)) != Some(values.len()) {
            return Err(Error::State(format!(
                "expected {} values after {position} tokens, found {} bytes: it is cut short or of another model",
                expected.map_or("too many".into(), |count| count.to_string()),
                values.len()
            )));
        }
        state.position = position as usize;
        let mut values = values.as_chunks::<8>().0.iter().map(|v| f64::from_le_bytes(*v));
        for layer in &mut state.layers {
            if let LayerState::Attention(s) = layer {
                (s.k, s.v) = (vec![0.0; position as usize * stride], vec![0.0; position as usize * stride]);
            }
            for part in layer.parts_mut() {
                part.iter_mut().zip(&mut values).for_each(|(value, saved)| *value = saved);
            }
        }
        Ok(state)
    }
}

impl LayerState {
    fn parts(&self) -> [&Vec<f64>; 2] {
        match self {
            LayerState::DeltaNet(s) => [&s.conv, &s.recurrent],
            LayerState::Attention(s) => [&s.k, &s.v],
        }
    }

    fn parts_mut(&mut self) -> [&mut Vec<f64>; 2] {
        match self {
            LayerState::DeltaNet(s) => [&mut s.conv, &mut s.recurrent],
            LayerState::Attention(s) => [&mut s.k, &mut s.v],
        }
    }
}

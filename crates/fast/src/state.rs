//! What a model carries from one call to the next.

use std::io::{Read, Write};

use model::{Config, LayerType};

use crate::error::Error;

/// Everything that the tokens so far have left behind. Cloning it forks the text.
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
    pub conv: Vec<f32>,
    /// `[Hv, K, V]`.
    pub recurrent: Vec<f32>,
}

/// Attention's part: keys after RoPE and values, `[positions, Hkv, Dh]` each.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct AttentionState {
    pub k: Vec<f32>,
    pub v: Vec<f32>,
}

/// Positions by which a cache grows at least.
const GROWTH: usize = 256;

impl AttentionState {
    /// Appends rows; the cache grows by little more than what comes, not to double its size.
    pub(crate) fn extend(&mut self, k: &[f32], v: &[f32], stride: usize) {
        for (cache, rows) in [(&mut self.k, k), (&mut self.v, v)] {
            if cache.capacity() - cache.len() < rows.len() {
                cache.reserve_exact(rows.len() + GROWTH * stride);
            }
            cache.extend_from_slice(rows);
        }
    }
}

/// First bytes of a saved state; the number is the version of what follows.
const MAGIC: &[u8; 16] = b"etalon faster 1\n";

/// Numbers converted at a time on their way to or from a file.
const CHUNK: usize = 1 << 14;

impl State {
    /// Before the first token.
    pub fn new(config: &Config) -> State {
        let recurrent =
            config.linear_num_value_heads * config.linear_key_head_dim * config.linear_value_head_dim;
        let layer = |kind: &LayerType| match kind {
            LayerType::LinearAttention => LayerState::DeltaNet(DeltaState {
                conv: vec![0.0; (config.linear_conv_kernel_dim - 1) * config.qkv_dim()],
                recurrent: vec![0.0; recurrent],
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
        let mut bytes = Vec::with_capacity(4 * CHUNK);
        for values in self.layers.iter().flat_map(LayerState::parts) {
            for values in values.chunks(CHUNK) {
                bytes.clear();
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                to.write_all(&bytes)?;
            }
        }
        Ok(())
    }

    /// Reads a state saved for a model of this configuration.
    ///
    /// # Errors
    /// Not a saved state, one of another model, or one that is cut short or goes on.
    pub fn restore(from: &mut impl Read, config: &Config) -> Result<State, Error> {
        let mut head = [0; MAGIC.len() + 8];
        from.read_exact(&mut head).map_err(|e| Error::State(format!("saved state: {e}")))?;
        let (magic, position) = head.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(Error::State("expected it to begin with \"etalon faster 1\"".into()));
        }
        let position = u64::from_le_bytes(position.try_into().expect("eight bytes were split off"));
        let mut state = State::new(config);
        let cached = usize::try_from(position)
            .ok()
            .and_then(|p| p.checked_mul(config.num_key_value_heads * config.head_dim))
            .ok_or_else(|| Error::State(format!("{position} tokens are more than any state holds")))?;
        state.position = position as usize;
        for layer in &mut state.layers {
            let lengths = match layer {
                LayerState::DeltaNet(s) => [s.conv.len(), s.recurrent.len()],
                LayerState::Attention(_) => [cached, cached],
            };
            for (part, len) in layer.parts_mut().into_iter().zip(lengths) {
                read(from, part, len)?;
            }
        }
        match from.read(&mut [0]) {
            Ok(0) => Ok(state),
            Ok(_) => Err(Error::State("it goes on behind its end: it is of another model".into())),
            Err(e) => Err(Error::State(e.to_string())),
        }
    }
}

/// Fills `part` with `len` numbers; it grows as they come, whatever length was declared.
fn read(from: &mut impl Read, part: &mut Vec<f32>, len: usize) -> Result<(), Error> {
    part.clear();
    let mut bytes = [0; 4 * CHUNK];
    while part.len() < len {
        let bytes = &mut bytes[..4 * CHUNK.min(len - part.len())];
        from.read_exact(bytes)
            .map_err(|e| Error::State(format!("{e}: it is cut short or of another model")))?;
        part.extend(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)));
    }
    Ok(())
}

impl LayerState {
    fn parts(&self) -> [&Vec<f32>; 2] {
        match self {
            LayerState::DeltaNet(s) => [&s.conv, &s.recurrent],
            LayerState::Attention(s) => [&s.k, &s.v],
        }
    }

    fn parts_mut(&mut self) -> [&mut Vec<f32>; 2] {
        match self {
            LayerState::DeltaNet(s) => [&mut s.conv, &mut s.recurrent],
            LayerState::Attention(s) => [&mut s.k, &mut s.v],
        }
    }
}

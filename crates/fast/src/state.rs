//! What a model carries from one call to the next.

use std::io::{Read, Write};

use model::{Config, LayerType};

use crate::error::Error;

/// How the caches of keys and values hold their numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kv {
    /// As they were computed.
    #[default]
    F32,
    /// Rounded to the nearest f16, in half the memory: off by 2⁻¹¹ of themselves at most, and infinite from 65520 on.
    F16,
}

impl Kv {
    /// As states and reports name it.
    pub fn name(self) -> &'static str {
        match self {
            Kv::F32 => "f32",
            Kv::F16 => "f16",
        }
    }
}

/// Everything that the tokens so far have left behind. Cloning it forks the text.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    kv: Kv,
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
    /// `[Hv, K, V]`, in f64: heads that forget slowly would keep what f32 rounds away, token after token.
    pub recurrent: Vec<f64>,
}

/// Attention's part: keys after RoPE and values, `[positions, Hkv, Dh]` each.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AttentionState {
    pub k: Cached,
    pub v: Cached,
}

/// Numbers that are kept.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cached {
    F32(Vec<f32>),
    /// Two bytes each, the low one first.
    F16(Vec<u8>),
}

/// Positions by which a cache grows at least.
const GROWTH: usize = 256;

impl AttentionState {
    fn new(kv: Kv) -> AttentionState {
        let empty = || match kv {
            Kv::F32 => Cached::F32(Vec::new()),
            Kv::F16 => Cached::F16(Vec::new()),
        };
        AttentionState { k: empty(), v: empty() }
    }

    /// Appends rows of `stride` numbers.
    pub(crate) fn extend(&mut self, k: &[f32], v: &[f32], stride: usize) {
        self.k.extend(k, GROWTH * stride);
        self.v.extend(v, GROWTH * stride);
    }
}

impl Cached {
    pub(crate) fn len(&self) -> usize {
        match self {
            Cached::F32(numbers) => numbers.len(),
            Cached::F16(bytes) => bytes.len() / 2,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Cached::F32(numbers) => 4 * numbers.len(),
            Cached::F16(bytes) => bytes.len(),
        }
    }

    /// Numbers that it has room for.
    fn capacity(&self) -> usize {
        match self {
            Cached::F32(numbers) => numbers.capacity(),
            Cached::F16(bytes) => bytes.capacity() / 2,
        }
    }

    /// Makes room for exactly so many numbers more.
    fn reserve(&mut self, more: usize) {
        match self {
            Cached::F32(numbers) => numbers.reserve_exact(more),
            Cached::F16(bytes) => bytes.reserve_exact(2 * more),
        }
    }

    /// Grows by little more than what comes, not to double its size.
    fn extend(&mut self, rows: &[f32], more: usize) {
        if self.capacity() - self.len() < rows.len() {
            self.reserve(rows.len() + more);
        }
        match self {
            Cached::F32(numbers) => numbers.extend_from_slice(rows),
            Cached::F16(bytes) => {
                bytes.extend(rows.iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes()));
            }
        }
    }

    fn save(&self, to: &mut impl Write) -> std::io::Result<()> {
        match self {
            Cached::F32(numbers) => write(to, numbers, f32::to_le_bytes),
            Cached::F16(bytes) => to.write_all(bytes),
        }
    }

    fn restore(&mut self, from: &mut impl Read, len: usize) -> Result<(), Error> {
        match self {
            Cached::F32(numbers) => read(from, numbers, len, f32::from_le_bytes),
            Cached::F16(bytes) => {
                let len = len as u64 * 2;
                from.take(len).read_to_end(bytes).map_err(|e| Error::State(e.to_string()))?;
                match bytes.len() as u64 == len {
                    true => Ok(()),
                    false => Err(Error::State("it is cut short or of another model".into())),
                }
            }
        }
    }
}

/// First bytes of a saved state; the number is the version of what follows.
const MAGIC: &[u8; 16] = b"etalon faster 3\n";

/// Numbers converted at a time on their way to or from a file.
const CHUNK: usize = 1 << 14;

impl State {
    /// Before the first token, with caches in f32.
    pub fn new(config: &Config) -> State {
        State::with_kv(config, Kv::F32)
    }

    /// Before the first token.
    pub fn with_kv(config: &Config, kv: Kv) -> State {
        let recurrent =
            config.linear_num_value_heads * config.linear_key_head_dim * config.linear_value_head_dim;
        let layer = |kind: &LayerType| match kind {
            LayerType::LinearAttention => LayerState::DeltaNet(DeltaState {
                conv: vec![0.0; (config.linear_conv_kernel_dim - 1) * config.qkv_dim()],
                recurrent: vec![0.0; recurrent],
            }),
            LayerType::FullAttention => LayerState::Attention(AttentionState::new(kv)),
        };
        State { kv, position: 0, layers: config.layer_types.iter().map(layer).collect() }
    }

    /// Makes room for so many tokens more, which are known to come: caches that grow call by call leave as much again in
    /// pieces that were outgrown. Room costs no memory before it is filled.
    pub fn reserve(&mut self, config: &Config, tokens: usize) {
        let stride = config.num_key_value_heads * config.head_dim;
        for layer in &mut self.layers {
            if let LayerState::Attention(s) = layer {
                [&mut s.k, &mut s.v]
                    .into_iter()
                    .for_each(|cache| cache.reserve(tokens.saturating_mul(stride)));
            }
        }
    }

    /// How its caches hold their numbers.
    pub fn kv(&self) -> Kv {
        self.kv
    }

    /// Bytes of all its numbers.
    pub fn bytes(&self) -> usize {
        let bytes = |layer: &LayerState| match layer {
            LayerState::DeltaNet(s) => size_of_val(&s.conv[..]) + size_of_val(&s.recurrent[..]),
            LayerState::Attention(s) => [&s.k, &s.v].map(Cached::bytes).iter().sum(),
        };
        self.layers.iter().map(bytes).sum()
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
        to.write_all(&bits(self.kv).to_le_bytes())?;
        for layer in &self.layers {
            match layer {
                LayerState::DeltaNet(s) => {
                    write(to, &s.conv, f32::to_le_bytes)?;
                    write(to, &s.recurrent, f64::to_le_bytes)?;
                }
                LayerState::Attention(s) => {
                    s.k.save(to)?;
                    s.v.save(to)?;
                }
            }
        }
        Ok(())
    }

    /// Reads a state saved for a model of this configuration.
    ///
    /// # Errors
    /// Not a saved state, one of another model, or one that is cut short or goes on.
    pub fn restore(from: &mut impl Read, config: &Config) -> Result<State, Error> {
        let mut head = [0; MAGIC.len() + 16];
        from.read_exact(&mut head).map_err(|e| Error::State(format!("saved state: {e}")))?;
        let (magic, numbers) = head.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(Error::State("expected it to begin with \"etalon faster 3\"".into()));
        }
        let numbers = numbers.as_chunks::<8>().0;
        let [position, width] = [numbers[0], numbers[1]].map(u64::from_le_bytes);
        let kv = [Kv::F32, Kv::F16].into_iter().find(|&kv| bits(kv) == width);
        let kv = kv.ok_or_else(|| {
            Error::State(format!("expected caches of 32 or 16 bits a number, found {width}"))
        })?;
        let mut state = State::with_kv(config, kv);
        let cached = usize::try_from(position)
            .ok()
            .and_then(|p| p.checked_mul(config.num_key_value_heads * config.head_dim))
            .ok_or_else(|| Error::State(format!("{position} tokens are more than any state holds")))?;
        state.position = position as usize;
        for layer in &mut state.layers {
            match layer {
                LayerState::DeltaNet(s) => {
                    let lengths = [s.conv.len(), s.recurrent.len()];
                    read(from, &mut s.conv, lengths[0], f32::from_le_bytes)?;
                    read(from, &mut s.recurrent, lengths[1], f64::from_le_bytes)?;
                }
                LayerState::Attention(s) => {
                    s.k.restore(from, cached)?;
                    s.v.restore(from, cached)?;
                }
            }
        }
        match from.read(&mut [0]) {
            Ok(0) => Ok(state),
            Ok(_) => Err(Error::State("it goes on behind its end: it is of another model".into())),
            Err(e) => Err(Error::State(e.to_string())),
        }
    }
}

/// Bits of a cached number, which a file says.
fn bits(kv: Kv) -> u64 {
    match kv {
        Kv::F32 => 32,
        Kv::F16 => 16,
    }
}

fn write<T: Copy, const N: usize>(
    to: &mut impl Write,
    values: &[T],
    bytes_of: fn(T) -> [u8; N],
) -> std::io::Result<()> {
    let mut bytes = Vec::with_capacity(N * CHUNK);
    for values in values.chunks(CHUNK) {
        bytes.clear();
        bytes.extend(values.iter().flat_map(|&value| bytes_of(value)));
        to.write_all(&bytes)?;
    }
    Ok(())
}

/// Fills `part` with `len` numbers; it grows as they come, whatever length was declared.
fn read<T, const N: usize>(
    from: &mut impl Read,
    part: &mut Vec<T>,
    len: usize,
    number: fn([u8; N]) -> T,
) -> Result<(), Error> {
    part.clear();
    let mut bytes = vec![0; N * CHUNK];
    while part.len() < len {
        let bytes = &mut bytes[..N * CHUNK.min(len - part.len())];
        from.read_exact(bytes)
            .map_err(|e| Error::State(format!("{e}: it is cut short or of another model")))?;
        part.extend(bytes.as_chunks::<N>().0.iter().map(|b| number(*b)));
    }
    Ok(())
}

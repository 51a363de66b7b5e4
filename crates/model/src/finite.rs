//! Looks for weights that are not numbers.

use codec::Encoding;
use format::{TensorInfo, TensorSource};
use rayon::prelude::*;

use crate::error::NonFinite;

/// Values decoded at a time: a whole number of blocks of every encoding.
const CHUNK: usize = 1 << 16;

/// The first element of each of these tensors that is NaN or infinite, in the order given.
pub(crate) fn non_finite(source: &dyn TensorSource, tensors: &[&TensorInfo]) -> Vec<NonFinite> {
    tensors.par_iter().filter_map(|info| first(source.bytes(info), info)).collect()
}

fn first(bytes: &[u8], info: &TensorInfo) -> Option<NonFinite> {
    let (block_len, block_bytes) = (info.encoding.block_len(), info.encoding.block_bytes());
    let chunk_bytes = CHUNK / block_len * block_bytes;
    let mut values = vec![0f32; CHUNK];
    // The largest chunk that can be suspicious is found by a look at the raw bits where that is cheap.
    for (n, chunk) in bytes.chunks(chunk_bytes).enumerate() {
        if raw_finite(chunk, info.encoding) == Some(true) {
            continue;
        }
        let values = &mut values[..chunk.len() / block_bytes * block_len];
        if info.encoding.decode(chunk, values).is_err() {
            return None; // a ragged tensor is misshapen, and was refused as such
        }
        if let Some(i) = values.iter().position(|v| !v.is_finite()) {
            return Some(NonFinite { name: info.name.clone(), index: n * CHUNK + i, value: values[i] });
        }
    }
    None
}

/// Whether every number's exponent is below the one of NaN and infinity; `None` for block encodings.
fn raw_finite(bytes: &[u8], encoding: Encoding) -> Option<bool> {
    let halves = |mask: u16| {
        bytes.chunks_exact(2).fold(true, |fine, b| fine & (u16::from_le_bytes([b[0], b[1]]) & mask != mask))
    };
    match encoding {
        Encoding::BF16 => Some(halves(0x7f80)),
        Encoding::F16 => Some(halves(0x7c00)),
        Encoding::F32 => Some(bytes.chunks_exact(4).fold(true, |fine, b| {
            fine & (u32::from_le_bytes([b[0], b[1], b[2], b[3]]) & 0x7f80_0000 != 0x7f80_0000)
        })),
        _ => None,
    }
}

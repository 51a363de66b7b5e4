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
    let find = |(n, chunk): (usize, &[u8])| {
        // Plain numbers show it in their raw bits; only what is suspicious or in blocks is decoded.
        if raw_finite(chunk, info.encoding) == Some(true) {
            return None;
        }
        let mut values = vec![0f32; chunk.len() / block_bytes * block_len];
        info.encoding.decode(chunk, &mut values).ok()?; // a ragged tensor was refused as misshapen
        let i = values.iter().position(|v| !v.is_finite())?;
        Some(NonFinite { name: info.name.clone(), index: n * CHUNK + i, value: values[i] })
    };
    bytes.par_chunks(CHUNK / block_len * block_bytes).enumerate().find_map_first(find)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_bits_tell_finite_from_not() {
        for value in
            [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE / 2.0, -0.0, 1.0]
        {
            let fine = Some(value.is_finite());
            assert_eq!(raw_finite(&value.to_le_bytes(), Encoding::F32), fine, "{value}");
            // BF16 is the upper half of an f32; the largest f32 cut short stays finite.
            assert_eq!(raw_finite(&value.to_le_bytes()[2..], Encoding::BF16), fine, "{value}");
        }
        for (half, fine) in [(0x7bffu16, true), (0x7c00, false), (0xfc01, false), (0x0001, true)] {
            assert_eq!(raw_finite(&half.to_le_bytes(), Encoding::F16), Some(fine), "{half:x}");
        }
        assert_eq!(raw_finite(&[0; 34], Encoding::Q8_0), None);
    }
}

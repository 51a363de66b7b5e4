//! How TQ1_0 and TQ2_0 open: codes 0, 1, 2 for −1, 0, 1.

use codec::levels::{POWERS, digit};

use super::digits::{Open, Opened, half, quarters};

pub(crate) struct Tq2_0;
impl Open for Tq2_0 {
    const BYTES: usize = 66;
    const CHUNKS: usize = 4;
    const OFFSET: Option<u32> = Some(0);
    #[inline(always)]
    fn open(bytes: &[u8], to: &mut Opened) {
        for (c, codes) in to.codes.iter_mut().enumerate() {
            quarters(&bytes[..64], c, codes);
        }
        to.scales.as_flattened_mut().fill(half(&bytes[64..]));
    }
}

/// Where TQ1_0 has a value: its byte, and which digit of it. Five digits of 32 bytes, five of 16, four of 4.
pub(crate) const fn place(value: usize) -> (usize, usize) {
    match value {
        0..160 => (value % 32, value / 32),
        160..240 => (32 + value % 16, (value - 160) / 16),
        _ => (48 + value % 4, (value - 240) / 4),
    }
}

pub(crate) struct Tq1_0;
impl Open for Tq1_0 {
    const BYTES: usize = 54;
    const CHUNKS: usize = 4;
    const OFFSET: Option<u32> = Some(0);
    #[inline(always)]
    fn open(bytes: &[u8], to: &mut Opened) {
        // In runs of a byte each rather than by `place`, so that digits are taken side by side.
        let codes = to.codes.as_flattened_mut();
        for (first, count, at) in [(0, 32, 0), (160, 16, 32), (240, 4, 48)] {
            let rows = codes[first..].chunks_exact_mut(count).zip(POWERS);
            for (codes, power) in rows.take(if count == 4 { 4 } else { 5 }) {
                for (code, byte) in codes.iter_mut().zip(&bytes[at..]) {
                    *code = digit(*byte, power);
                }
            }
        }
        to.scales.as_flattened_mut().fill(half(&bytes[52..]));
    }
}

//! How blocks of 32, 64 and 128 values open, but for those that `digits` has: nibbles with a fifth bit or a minimum,
//! four-bit floats, bits and pairs of bits.

use codec::levels;

use super::digits::{Minima, Open, Opened, half};
use super::lane::LANES;

/// The nibbles of four blocks of 32: the lower ones are the first halves.
#[inline(always)]
fn nibbles<const BYTES: usize, const AT: usize>(bytes: &[u8], to: &mut Opened) {
    for (b, block) in bytes.chunks_exact(BYTES).enumerate() {
        for (i, byte) in block[AT..AT + 16].iter().enumerate() {
            to.codes[0][16 * b + i] = byte & 15;
            to.codes[1][16 * b + i] = byte >> 4;
        }
    }
}

/// The fifth bits of four blocks of 32, bit i for value i.
#[inline(always)]
fn fifths<const BYTES: usize, const AT: usize>(bytes: &[u8], to: &mut Opened) {
    for (b, block) in bytes.chunks_exact(BYTES).enumerate() {
        for (c, codes) in to.codes[..2].iter_mut().enumerate() {
            let codes = codes[16 * b..][..16].as_chunks_mut::<8>().0;
            for (codes, byte) in codes.iter_mut().zip(&block[AT + 2 * c..]) {
                *codes = (u64::from_le_bytes(*codes) | bits(*byte) << 4).to_le_bytes();
            }
        }
    }
}

/// What four blocks have in half precision `at`, each for its four lanes.
#[inline(always)]
fn halves<const BYTES: usize>(bytes: &[u8], at: usize, to: &mut [[f32; LANES]; 4]) {
    for (b, block) in bytes.chunks_exact(BYTES).enumerate() {
        let factor = half(&block[at..]);
        to[..2].iter_mut().for_each(|lanes| lanes[4 * b..][..4].fill(factor));
    }
}

/// A byte's bits, each 0 or 1 in a byte of its own.
#[inline(always)]
pub(crate) fn bits(byte: u8) -> u64 {
    let each = (u64::from(byte) * 0x0101_0101_0101_0101) & 0x8040_2010_0804_0201;
    (each + 0x7f7f_7f7f_7f7f_7f7f) >> 7 & 0x0101_0101_0101_0101
}

pub(crate) struct Q4_1;
impl Open for Q4_1 {
    const BYTES: usize = 4 * 20;
    const CHUNKS: usize = 2;
    const OFFSET: Option<u32> = None;
    const MINIMA: Minima = Minima::Lanes;
    #[inline(always)]
    fn open(bytes: &[u8], to: &mut Opened) {
        nibbles::<20, 4>(bytes, to);
        halves::<20>(bytes, 0, &mut to.scales);
        halves::<20>(bytes, 2, &mut to.lane_mins);
    }
}

pub(crate) struct Q5_0;
impl Open for Q5_0 {
    const BYTES: usize = 4 * 22;
    const CHUNKS: usize = 2;
    const OFFSET: Option<u32> = Some(4);
    #[inline(always)]
    fn open(bytes: &[u8], to: &mut Opened) {
        nibbles::<22, 6>(bytes, to);
        fifths::<22, 2>(bytes, to);
        halves::<22>(bytes, 0, &mut to.scales);
    }
}

pub(crate) struct Q5_1;
impl Open for Q5_1 {
    const BYTES: usize = 4 * 24;
    const CHUNKS: usize = 2;
    const OFFSET: Option<u32> = None;
    const MINIMA: Minima = Minima::Lanes;
    #[inline(always)]
    fn open(bytes: &[u8], to: &mut Opened) {
        nibbles::<24, 8>(bytes, to);
        fifths::<24, 4>(bytes, to);
        halves::<24>(bytes, 0, &mut to.scales);
        halves::<24>(bytes, 2, &mut to.lane_mins);
    }
}

/// The values of E2M1, doubled, 16 more.
pub(crate) const E2M1: [u8; 16] = {
    let mut codes = [0; 16];
    let mut i = 0;
    while i < 16 {
        codes[i] = (levels::E2M1_DOUBLED[i] + 16.0) as u8;
        i += 1;
    }
    codes
};

/// Half of what an E8M0 scale stands for.
pub(crate) static E8M0: [f32; 256] = {
    let mut scales = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        scales[code] = levels::half_e8m0(code as u8);
        code += 1;
    }
    scales
};

/// Half of what an unsigned E4M3 scale stands for.
pub(crate) static UE4M3: [f32; 256] = {
    let mut scales = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        scales[code] = levels::half_ue4m3(code as u8);
        code += 1;
    }
    scales
};

pub(crate) struct Mxfp4;
impl Open for Mxfp4 {
    const BYTES: usize = 4 * 17;
    const CHUNKS: usize = 2;
    const OFFSET: Option<u32> = Some(4);
    const LEVELS: Option<&'static [u8; 16]> = Some(&E2M1);
    #[inline(always)]
    fn open(bytes: &[u8], to: &mut Opened) {
        nibbles::<17, 1>(bytes, to);
        for (b, block) in bytes.chunks_exact(17).enumerate() {
            let scale = E8M0[usize::from(block[0])];
            to.scales[..2].iter_mut().for_each(|lanes| lanes[4 * b..][..4].fill(scale));
        }
    }
}

pub(crate) struct Nvfp4;
impl Open for Nvfp4 {
    const BYTES: usize = 2 * 36;
    const CHUNKS: usize = 2;
    const OFFSET: Option<u32> = Some(4);
    const LEVELS: Option<&'static [u8; 16]> = Some(&E2M1);
    #[inline(always)]
    fn open(bytes: &[u8], to: &mut Opened) {
        for (c, block) in bytes.chunks_exact(36).enumerate() {
            // Groups of sixteen, the lower nibbles of eight bytes and then the upper ones.
            for (g, codes) in to.codes[c].as_chunks_mut::<16>().0.iter_mut().enumerate() {
                for (i, byte) in block[4 + 8 * g..][..8].iter().enumerate() {
                    codes[i] = byte & 15;
                    codes[8 + i] = byte >> 4;
                }
                to.scales[c][4 * g..][..4].fill(UE4M3[usize::from(block[g])]);
            }
        }
    }
}

/// Codes 0 and 2 for minus and plus one.
pub(crate) struct Q1_0;
impl Open for Q1_0 {
    const BYTES: usize = 18;
    const CHUNKS: usize = 2;
    const OFFSET: Option<u32> = Some(0);
    #[inline(always)]
    fn open(bytes: &[u8], to: &mut Opened) {
        let codes = to.codes[..2].as_flattened_mut().as_chunks_mut::<8>().0;
        for (codes, byte) in codes.iter_mut().zip(&bytes[2..]) {
            *codes = (bits(*byte) << 1).to_le_bytes();
        }
        to.scales[..2].as_flattened_mut().fill(half(bytes));
    }
}

pub(crate) struct Q2_0;
impl Open for Q2_0 {
    const BYTES: usize = 2 * 18;
    const CHUNKS: usize = 2;
    const OFFSET: Option<u32> = Some(0);
    #[inline(always)]
    fn open(bytes: &[u8], to: &mut Opened) {
        for (c, block) in bytes.chunks_exact(18).enumerate() {
            for (codes, byte) in to.codes[c].as_chunks_mut::<4>().0.iter_mut().zip(&block[2..]) {
                let byte = u32::from(*byte);
                *codes = ((byte | byte << 6 | byte << 12 | byte << 18) & 0x0303_0303).to_le_bytes();
            }
            to.scales[c].fill(half(block));
        }
    }
}

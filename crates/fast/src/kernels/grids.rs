//! How IQ1, IQ2 and IQ3 open: points of a grid, eight values of a chunk at a time, with signs of their own or shifted.

use codec::levels;

use super::digits::{Open, Opened, half};
use super::short_blocks::bits;

/// An encoding whose superblocks name points of a grid.
pub(crate) trait Grid {
    /// Bytes of a superblock.
    const BYTES: usize;
    /// Logarithm of what is added to every level.
    const OFFSET: u32;
    /// What the factor is multiplied by besides the steps.
    const UNIT: f32;
    /// Whether values have signs: levels are then below the offset.
    const SIGNED: bool = true;

    /// The superblock's factor, in half precision.
    #[inline(always)]
    fn factor(bytes: &[u8]) -> u16 {
        word(bytes, 0)
    }

    /// The codes of chunk `c`, eight at a time, the first one the lowest byte: levels plus the offset.
    fn points(bytes: &[u8], c: usize) -> [u64; 8];

    /// Which of the chunk's values are negative.
    #[inline(always)]
    fn minuses(_bytes: &[u8], _c: usize) -> u64 {
        0
    }

    /// What the factor is multiplied by for each sixteen of the chunk's values.
    fn steps(bytes: &[u8], c: usize) -> [u8; 4];
}

impl<G: Grid> Open for G {
    const BYTES: usize = G::BYTES;
    const CHUNKS: usize = 4;
    const OFFSET: Option<u32> = Some(G::OFFSET);
    #[inline(always)]
    fn open(bytes: &[u8], to: &mut Opened) {
        let d = half(&G::factor(bytes).to_le_bytes()) * G::UNIT;
        for c in 0..4 {
            let minuses = G::minuses(bytes, c).to_le_bytes();
            let eights = to.codes[c].as_chunks_mut::<8>().0.iter_mut().zip(G::points(bytes, c));
            for ((codes, point), minuses) in eights.zip(minuses) {
                *codes = if G::SIGNED { turn(point, minuses, G::OFFSET) } else { point }.to_le_bytes();
            }
            let fours = to.scales[c].as_chunks_mut::<4>().0.iter_mut();
            for (scales, step) in fours.zip(G::steps(bytes, c)) {
                // Exact: at most 11 bits times 5.
                scales.fill(d * f32::from(step));
            }
        }
    }
}

/// Negates the levels where a bit of `minuses` is set. Both codes of a level together are twice the offset, so that
/// the other one is that less one with its bits turned, plus one.
#[inline(always)]
fn turn(point: u64, minuses: u8, offset: u32) -> u64 {
    let minuses = bits(minuses);
    (point ^ (minuses * ((2 << offset) - 1))) + minuses
}

/// The bytes `at` a place, read at once: piece by piece they would be gathered with shuffles.
#[inline(always)]
fn piece<const BYTES: usize>(bytes: &[u8], at: usize) -> [u8; BYTES] {
    *bytes[at..].first_chunk().expect("pieces are within a block")
}

#[inline(always)]
pub(crate) fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(piece(bytes, at))
}

#[inline(always)]
pub(crate) fn double(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(piece(bytes, at))
}

#[inline(always)]
fn quad(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(piece(bytes, at))
}

/// Steps by their halves: odd numbers.
#[inline(always)]
fn odd(halves: u32) -> [u8; 4] {
    (2 * halves + 0x0101_0101).to_le_bytes()
}

/// Two steps, each for 32 values.
#[inline(always)]
fn twice(a: u32, b: u32) -> [u8; 4] {
    odd((a | b << 16) * 0x101)
}

/// Gives eight signs to each of eight sevens: the number of minuses is even.
#[inline(always)]
fn even(sevens: u64) -> u64 {
    // The lowest bit of each byte sums its own, whatever of the next byte comes along above.
    let sums = sevens ^ sevens >> 4;
    let sums = sums ^ sums >> 2;
    let sums = sums ^ sums >> 1;
    sevens | (sums & 0x0101_0101_0101_0101) << 7
}

/// The four sevens of each of two words, in bytes.
#[inline(always)]
fn sevens(pair: u64) -> u64 {
    let seven = |i: u32| pair << i & 0x0000_007f_0000_007f << (8 * i);
    seven(0) | seven(1) | seven(2) | seven(3)
}

/// The upper seven bits of four words of sixteen, in bytes.
#[inline(always)]
fn upper_sevens(words: u64) -> u64 {
    let sevens = words >> 9 & 0x007f_007f_007f_007f;
    let sevens = (sevens | sevens >> 8) & 0x0000_ffff_0000_ffff;
    (sevens | sevens >> 16) & 0xffff_ffff
}

/// The pair of words of signs and a scale that IQ2_XXS and IQ3_XXS have for a chunk: the steps.
#[inline(always)]
fn steps_of(pair: u64) -> [u8; 4] {
    twice((pair >> 28) as u32 & 15, (pair >> 60) as u32)
}

/// The four nibbles of two bytes as steps.
#[inline(always)]
fn nibble_steps(scales: u16) -> [u8; 4] {
    let scales = u32::from(scales);
    let scales = (scales | scales << 8) & 0x00ff_00ff;
    let scales = (scales | scales << 4) & 0x0f0f_0f0f;
    odd(scales)
}

/// A grid's points as codes: the offset is added.
const fn eights<const POINTS: usize>(points: &[[i8; 8]; POINTS], scale: i8, offset: i8) -> [u64; POINTS] {
    let mut codes = [0; POINTS];
    let mut p = 0;
    while p < POINTS {
        let mut i = 0;
        while i < 8 {
            codes[p] |= ((points[p][i] * scale + offset) as u64) << (8 * i);
            i += 1;
        }
        p += 1;
    }
    codes
}

/// The same of points of four.
const fn fours<const POINTS: usize>(points: &[[i8; 4]; POINTS], offset: i8) -> [u32; POINTS] {
    let mut codes = [0; POINTS];
    let mut p = 0;
    while p < POINTS {
        let mut i = 0;
        while i < 4 {
            codes[p] |= ((points[p][i] + offset) as u32) << (8 * i);
            i += 1;
        }
        p += 1;
    }
    codes
}

pub(crate) static IQ2_XXS: [u64; 256] = eights(&levels::IQ2_XXS, 1, 64);
pub(crate) static IQ2_XS: [u64; 512] = eights(&levels::IQ2_XS, 1, 64);
pub(crate) static IQ2_S: [u64; 1024] = eights(&levels::IQ2_S, 1, 64);
pub(crate) static IQ3_XXS: [u32; 256] = fours(&levels::IQ3_XXS, 64);
pub(crate) static IQ3_S: [u32; 512] = fours(&levels::IQ3_S, 64);
/// Eight times the points, shifted down by 1.
pub(crate) static IQ1: [u64; 2048] = eights(&levels::IQ1, 8, 16 - 1);

pub(crate) struct Iq2Xxs;
impl Iq2Xxs {
    #[inline(always)]
    fn pair(bytes: &[u8], c: usize) -> u64 {
        u64::from(double(bytes, 6 + 16 * c)) | u64::from(double(bytes, 14 + 16 * c)) << 32
    }
}
impl Grid for Iq2Xxs {
    const BYTES: usize = 66;
    const OFFSET: u32 = 6;
    const UNIT: f32 = 0.125;
    #[inline(always)]
    fn points(bytes: &[u8], c: usize) -> [u64; 8] {
        std::array::from_fn(|i| IQ2_XXS[usize::from(bytes[2 + 16 * c + i / 4 * 8 + i % 4])])
    }
    #[inline(always)]
    fn minuses(bytes: &[u8], c: usize) -> u64 {
        even(sevens(Self::pair(bytes, c)))
    }
    #[inline(always)]
    fn steps(bytes: &[u8], c: usize) -> [u8; 4] {
        steps_of(Self::pair(bytes, c))
    }
}

pub(crate) struct Iq2Xs;
impl Grid for Iq2Xs {
    const BYTES: usize = 74;
    const OFFSET: u32 = 6;
    const UNIT: f32 = 0.125;
    #[inline(always)]
    fn points(bytes: &[u8], c: usize) -> [u64; 8] {
        std::array::from_fn(|i| IQ2_XS[usize::from(word(bytes, 2 + 16 * c + 2 * i) % 512)])
    }
    #[inline(always)]
    fn minuses(bytes: &[u8], c: usize) -> u64 {
        even(upper_sevens(quad(bytes, 2 + 16 * c)) | upper_sevens(quad(bytes, 10 + 16 * c)) << 32)
    }
    #[inline(always)]
    fn steps(bytes: &[u8], c: usize) -> [u8; 4] {
        nibble_steps(word(bytes, 66 + 2 * c))
    }
}

pub(crate) struct Iq2S;
impl Grid for Iq2S {
    const BYTES: usize = 82;
    const OFFSET: u32 = 6;
    const UNIT: f32 = 0.125;
    #[inline(always)]
    fn points(bytes: &[u8], c: usize) -> [u64; 8] {
        let high = u32::from(word(bytes, 66 + 2 * c));
        std::array::from_fn(|i| {
            IQ2_S[usize::from(bytes[2 + 8 * c + i]) | ((high >> (2 * i) & 3) as usize * 256)]
        })
    }
    #[inline(always)]
    fn minuses(bytes: &[u8], c: usize) -> u64 {
        quad(bytes, 34 + 8 * c)
    }
    #[inline(always)]
    fn steps(bytes: &[u8], c: usize) -> [u8; 4] {
        nibble_steps(word(bytes, 74 + 2 * c))
    }
}

pub(crate) struct Iq3Xxs;
impl Grid for Iq3Xxs {
    const BYTES: usize = 98;
    const OFFSET: u32 = 6;
    const UNIT: f32 = 0.25;
    #[inline(always)]
    fn points(bytes: &[u8], c: usize) -> [u64; 8] {
        let point = |i: usize| u64::from(IQ3_XXS[usize::from(bytes[2 + 16 * c + i])]);
        std::array::from_fn(|i| point(2 * i) | point(2 * i + 1) << 32)
    }
    #[inline(always)]
    fn minuses(bytes: &[u8], c: usize) -> u64 {
        even(sevens(quad(bytes, 66 + 8 * c)))
    }
    #[inline(always)]
    fn steps(bytes: &[u8], c: usize) -> [u8; 4] {
        steps_of(quad(bytes, 66 + 8 * c))
    }
}

pub(crate) struct Iq3S;
impl Grid for Iq3S {
    const BYTES: usize = 110;
    const OFFSET: u32 = 6;
    const UNIT: f32 = 1.0;
    #[inline(always)]
    fn points(bytes: &[u8], c: usize) -> [u64; 8] {
        let high = u32::from(word(bytes, 66 + 2 * c));
        let point = |i: usize| {
            let index = usize::from(bytes[2 + 16 * c + i]) | ((high >> i & 1) as usize * 256);
            u64::from(IQ3_S[index])
        };
        std::array::from_fn(|i| point(2 * i) | point(2 * i + 1) << 32)
    }
    #[inline(always)]
    fn minuses(bytes: &[u8], c: usize) -> u64 {
        quad(bytes, 74 + 8 * c)
    }
    #[inline(always)]
    fn steps(bytes: &[u8], c: usize) -> [u8; 4] {
        let scales = u32::from(bytes[106 + c]);
        twice(scales & 15, scales >> 4)
    }
}

/// What a point that is shifted up has more.
pub(crate) const UP: u64 = 0x0202_0202_0202_0202;

/// A point, shifted down or up by 1.
#[inline(always)]
fn shifted(point: usize, down: bool) -> u64 {
    IQ1[point] + if down { 0 } else { UP }
}

pub(crate) struct Iq1S;
impl Grid for Iq1S {
    const BYTES: usize = 50;
    const OFFSET: u32 = 4;
    const UNIT: f32 = 0.125;
    const SIGNED: bool = false;
    #[inline(always)]
    fn points(bytes: &[u8], c: usize) -> [u64; 8] {
        std::array::from_fn(|i| {
            let high = word(bytes, 34 + 4 * c + i / 4 * 2);
            let point = usize::from(bytes[2 + 8 * c + i]) | usize::from(high >> (3 * (i % 4)) & 7) << 8;
            shifted(point, high >> 15 == 1)
        })
    }
    #[inline(always)]
    fn steps(bytes: &[u8], c: usize) -> [u8; 4] {
        let pair = double(bytes, 34 + 4 * c);
        twice(pair >> 12 & 7, pair >> 28 & 7)
    }
}

pub(crate) struct Iq1M;
impl Grid for Iq1M {
    const BYTES: usize = 56;
    const OFFSET: u32 = 4;
    const UNIT: f32 = 0.125;
    const SIGNED: bool = false;
    /// A nibble on top of each word of scales.
    #[inline(always)]
    fn factor(bytes: &[u8]) -> u16 {
        (0..4).fold(0, |bits, c| bits | word(bytes, 48 + 2 * c) >> 12 << (4 * c))
    }
    #[inline(always)]
    fn points(bytes: &[u8], c: usize) -> [u64; 8] {
        let high = double(bytes, 32 + 4 * c);
        std::array::from_fn(|i| {
            let high = high >> (4 * i);
            shifted(usize::from(bytes[8 * c + i]) | ((high & 7) as usize * 256), high & 8 != 0)
        })
    }
    #[inline(always)]
    fn steps(bytes: &[u8], c: usize) -> [u8; 4] {
        let scales = u32::from(word(bytes, 48 + 2 * c));
        let three = |i: u32| scales << (5 * i) & 7 << (8 * i);
        odd(three(0) | three(1) | three(2) | three(3))
    }
}

//! Quantized rows times activations in whole numbers.
//!
//! Each 32 activations become a scale and whole numbers below 2²¹, those three signed digits of eight bits. The codes of
//! a row times digits are sums that no order changes: what is left to floating point is one multiply-add for every
//! four products, on lanes, so that the bits are the same for every instruction set. The codes are unsigned; an encoding
//! whose values are centred takes its offset times the activations away again, still in whole numbers.

use codec::Encoding;

use super::lane::{LANES, Lane, Lanes};

/// Largest whole number that an activation becomes: four of them times the largest code fill 31 bits.
const LARGEST: f32 = (1 << 21) as f32;

/// Activations of a block that share a scale.
const BLOCK: usize = 32;
/// Activations that the layouts reorder among themselves.
pub(crate) const UNIT: usize = 128;

/// 64 activations in the order in which an encoding's codes come.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Chunk {
    /// Digits of weight 2¹⁶, 2⁸ and 1.
    pub digits: [[i8; 64]; 3],
    /// Sums of four.
    pub sums: [i32; LANES],
    /// Each lane's scale.
    pub scales: [f32; LANES],
}

impl Chunk {
    pub(crate) const ZERO: Chunk = Chunk { digits: [[0; 64]; 3], sums: [0; LANES], scales: [0.0; LANES] };
}

/// Which runs of 16 activations of a unit make its two chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// In order.
    Natural,
    /// Blocks 0 and 2, then 1 and 3: the nibbles of Q4_K and Q5_K.
    Pairs,
    /// The first halves of all four blocks, then the second: nibbles in blocks of 16 bytes.
    Halves,
}

impl Layout {
    fn runs(self) -> [[usize; 4]; 2] {
        match self {
            Layout::Natural => [[0, 1, 2, 3], [4, 5, 6, 7]],
            Layout::Pairs => [[0, 1, 4, 5], [2, 3, 6, 7]],
            Layout::Halves => [[0, 2, 4, 6], [1, 3, 5, 7]],
        }
    }
}

/// One token's activations as digits.
#[derive(Clone, Copy)]
pub(crate) struct Digits<'a> {
    /// Two a unit.
    pub chunks: &'a [Chunk],
    /// For each two units, in lanes 8 to 15: the sums of their eight blocks, negated.
    pub minus: &'a [Lane],
}

/// Writes a token's digits; `x` is of whole units, `chunks` twice their number, `minus` half, rounded up.
#[inline(always)]
pub(crate) fn pack(x: &[f32], layout: Layout, chunks: &mut [Chunk], minus: &mut [Lane]) {
    let units = x.as_chunks::<UNIT>().0.iter().zip(chunks.as_chunks_mut::<2>().0);
    for (u, (x, chunks)) in units.enumerate() {
        let (mut whole, mut scales) = ([0i32; UNIT], [0f32; UNIT / BLOCK]);
        let blocks = x.as_chunks::<BLOCK>().0.iter().zip(whole.as_chunks_mut::<BLOCK>().0);
        for (b, (x, whole)) in blocks.enumerate() {
            let (scale, sum) = pack_block(x, whole);
            scales[b] = scale;
            minus[u / 2].0[8 + u % 2 * 4 + b] = -(scale * sum as f32);
        }
        for (chunk, runs) in chunks.iter_mut().zip(layout.runs()) {
            for (r, run) in runs.into_iter().enumerate() {
                let whole: &[i32; 16] = whole[16 * run..].first_chunk().expect("eight runs a unit");
                pack_run(whole, scales[run / 2], r, chunk);
            }
        }
    }
}

/// The block's scale and the sum of its whole numbers.
#[inline(always)]
fn pack_block(x: &[f32; BLOCK], whole: &mut [i32; BLOCK]) -> (f32, i32) {
    // The largest magnitude by its bits, so that NaN is the largest of all and stays.
    let mut largest = 0u32;
    for x in x {
        largest = largest.max(x.to_bits() & 0x7fff_ffff);
    }
    let largest = f32::from_bits(largest);
    let inverse = LARGEST / largest;
    // Below 2⁻¹⁰⁷ the inverse is infinite: nothing that small is told from 0.
    let (scale, inverse) = if inverse == f32::INFINITY { (0.0, 0.0) } else { (largest / LARGEST, inverse) };
    /// 1.5·2²³: adding it leaves the nearest whole number in the low bits.
    const SHIFT: f32 = 12_582_912.0;
    let mut sum = 0;
    for (whole, x) in whole.iter_mut().zip(x) {
        *whole = x.mul_add(inverse, SHIFT).to_bits().wrapping_sub(SHIFT.to_bits()).cast_signed();
        // What NaN leaves here is any number; its scale is NaN.
        sum = i32::wrapping_add(sum, *whole);
    }
    (scale, sum)
}

#[inline(always)]
fn pack_run(whole: &[i32; 16], scale: f32, r: usize, chunk: &mut Chunk) {
    for (i, &x) in whole.iter().enumerate() {
        let low = x as i8;
        let x = x.wrapping_sub(i32::from(low)) >> 8;
        let middle = x as i8;
        let high = (x.wrapping_sub(i32::from(middle)) >> 8) as i8;
        chunk.digits[0][16 * r + i] = high;
        chunk.digits[1][16 * r + i] = middle;
        chunk.digits[2][16 * r + i] = low;
    }
    for l in 0..4 {
        let four = &whole[4 * l..4 * l + 4];
        chunk.sums[4 * r + l] = four.iter().fold(0, |sum, x| sum.wrapping_add(*x));
        chunk.scales[4 * r + l] = scale;
    }
}

/// An encoding that is multiplied so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Q4_0,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Iq4Nl,
    Iq4Xs,
    Q4_1,
    Q5_0,
    Q5_1,
    Mxfp4,
    Nvfp4,
    Q1_0,
    Q2_0,
    Tq1_0,
    Tq2_0,
    Iq1S,
    Iq1M,
    Iq2Xxs,
    Iq2Xs,
    Iq2S,
    Iq3Xxs,
    Iq3S,
}

impl Coding {
    /// For rows of this many columns.
    pub(crate) fn of(encoding: Encoding, cols: usize) -> Option<Coding> {
        if !cols.is_multiple_of(UNIT) {
            return None;
        }
        Some(match encoding {
            Encoding::Q4_0 => Coding::Q4_0,
            Encoding::Q8_0 => Coding::Q8_0,
            Encoding::Q2K => Coding::Q2K,
            Encoding::Q3K => Coding::Q3K,
            Encoding::Q4K => Coding::Q4K,
            Encoding::Q5K => Coding::Q5K,
            Encoding::Q6K => Coding::Q6K,
            Encoding::Iq4Nl => Coding::Iq4Nl,
            Encoding::Iq4Xs => Coding::Iq4Xs,
            Encoding::Q4_1 => Coding::Q4_1,
            Encoding::Q5_0 => Coding::Q5_0,
            Encoding::Q5_1 => Coding::Q5_1,
            Encoding::Mxfp4 => Coding::Mxfp4,
            Encoding::Nvfp4 => Coding::Nvfp4,
            Encoding::Q1_0 => Coding::Q1_0,
            Encoding::Q2_0 => Coding::Q2_0,
            Encoding::Tq1_0 => Coding::Tq1_0,
            Encoding::Tq2_0 => Coding::Tq2_0,
            Encoding::Iq1S => Coding::Iq1S,
            Encoding::Iq1M => Coding::Iq1M,
            Encoding::Iq2Xxs => Coding::Iq2Xxs,
            Encoding::Iq2Xs => Coding::Iq2Xs,
            Encoding::Iq2S => Coding::Iq2S,
            Encoding::Iq3Xxs => Coding::Iq3Xxs,
            Encoding::Iq3S => Coding::Iq3S,
            _ => return None,
        })
    }

    pub(crate) fn layout(self) -> Layout {
        match self {
            Coding::Q4K | Coding::Q5K => Layout::Pairs,
            Coding::Q4_0 | Coding::Q4_1 | Coding::Q5_0 | Coding::Q5_1 => Layout::Halves,
            Coding::Iq4Nl | Coding::Iq4Xs | Coding::Mxfp4 => Layout::Halves,
            _ => Layout::Natural,
        }
    }
}

/// Some chunks of a row, opened: two or four.
pub(crate) struct Opened {
    pub codes: [[u8; 64]; 4],
    pub scales: [[f32; LANES]; 4],
    /// What the sums of the eight blocks are multiplied by, in lanes 8 to 15.
    pub mins: [f32; LANES],
    /// What each lane's sum of four is multiplied by, if it is not the blocks'.
    pub lane_mins: [[f32; LANES]; 4],
}

impl Opened {
    pub(crate) const ZERO: Opened = Opened {
        codes: [[0; 64]; 4],
        scales: [[0.0; LANES]; 4],
        mins: [0.0; LANES],
        lane_mins: [[0.0; LANES]; 4],
    };
}

/// What an encoding takes away from the products of whole groups.
#[derive(PartialEq, Eq)]
pub(crate) enum Minima {
    None,
    /// One for every block of activations.
    Blocks,
    /// One for half of a block: those of each chunk's lanes.
    Lanes,
}

/// How an encoding opens: the plain definition.
pub(crate) trait Open {
    /// Bytes that are opened together.
    const BYTES: usize;
    /// Chunks that they hold.
    const CHUNKS: usize;
    /// Logarithm of what is taken away from every code.
    const OFFSET: Option<u32>;
    const MINIMA: Minima = Minima::None;
    /// What the opened codes, which are then nibbles, are multiplied as.
    const LEVELS: Option<&'static [u8; 16]> = None;
    fn open(bytes: &[u8], to: &mut Opened);
}

/// Each row times a token, as `row` does it: in one call, so that the end of a row overlaps with the next.
#[inline(always)]
pub(crate) fn each(rows: &[&[u8]], x: Digits<'_>, y: &mut [f32], row: impl Fn(&[u8], Digits<'_>) -> f32) {
    for (y, bytes) in y.iter_mut().zip(rows) {
        *y = row(bytes, x);
    }
}

/// A row times a token: for each chunk and lane the exact sum of four products, its scale, and a multiply-add; even
/// and odd chunks apart.
#[allow(clippy::needless_range_loop, reason = "lanes are what is counted")]
#[inline(always)]
pub(crate) fn row<O: Open, L: Lanes>(row: &[u8], x: Digits<'_>) -> f32 {
    let mut opened = Opened::ZERO;
    let mut sums = [[0f32; LANES]; 2];
    for (b, (bytes, chunks)) in row.chunks_exact(O::BYTES).zip(x.chunks.chunks_exact(O::CHUNKS)).enumerate() {
        O::open(bytes, &mut opened);
        if let Some(levels) = O::LEVELS {
            let codes = opened.codes[..O::CHUNKS].as_flattened_mut();
            codes.iter_mut().for_each(|code| *code = levels[usize::from(*code & 15)]);
        }
        for (c, chunk) in chunks.iter().enumerate() {
            for l in 0..LANES {
                let mut sum = 0i32;
                for digits in &chunk.digits {
                    sum = sum.wrapping_shl(8);
                    for i in 4 * l..4 * l + 4 {
                        sum = sum.wrapping_add(i32::from(opened.codes[c][i]) * i32::from(digits[i]));
                    }
                }
                if let Some(shift) = O::OFFSET {
                    sum = sum.wrapping_sub(chunk.sums[l].wrapping_shl(shift));
                }
                let scale = opened.scales[c][l] * chunk.scales[l];
                sums[c % 2][l] = (sum as f32).mul_add(scale, sums[c % 2][l]);
                if O::MINIMA == Minima::Lanes {
                    let four = chunk.sums[l] as f32 * chunk.scales[l];
                    sums[c % 2][l] = opened.lane_mins[c][l].mul_add(four, sums[c % 2][l]);
                }
            }
        }
        if O::MINIMA == Minima::Blocks {
            for l in 8..LANES {
                sums[0][l] = opened.mins[l].mul_add(x.minus[b].0[l], sums[0][l]);
            }
        }
    }
    let mut lanes = [0f32; LANES];
    for l in 0..LANES {
        lanes[l] = sums[0][l] + sums[1][l];
    }
    L::load(&lanes).sum()
}

/// A number in half precision, in plain arithmetic: what asks the processor first is not inlined. No subnormal number of
/// single precision comes up on the way, not even where several are widened side by side and lanes are left over: each
/// would cost more than a row's block.
#[inline(always)]
pub(crate) fn half(bytes: &[u8]) -> f32 {
    /// What exponents of half precision fall short of those of single precision.
    const REBIAS: u32 = 112 << 23;
    /// The least number of half precision.
    const LEAST: f32 = 1.0 / (1 << 24) as f32;
    let bits = u32::from(u16::from_le_bytes([bytes[0], bytes[1]]));
    let magnitude = bits & 0x7fff;
    let widened = match magnitude {
        0..0x400 => (magnitude as i32 as f32 * LEAST).to_bits(),
        0x400..0x7c00 => (magnitude << 13) + REBIAS,
        // Infinities and NaN keep what is in their mantissa.
        _ => magnitude << 13 | 0x7f80_0000,
    };
    f32::from_bits(widened | (bits & 0x8000) << 16)
}

/// The levels of IQ4_NL and IQ4_XS, 128 more.
pub(crate) const LEVELS: [u8; 16] = [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241];

#[inline(always)]
fn nibbles(bytes: &[u8], to: &mut [[u8; 64]]) {
    for (i, byte) in bytes.iter().enumerate() {
        to[0][i] = byte & 15;
        to[1][i] = byte >> 4;
    }
}

/// Four blocks of a half-precision scale and sixteen bytes of nibbles.
#[inline(always)]
fn open_halves(bytes: &[u8], to: &mut Opened) {
    for (b, block) in bytes.chunks_exact(18).enumerate() {
        for (i, byte) in block[2..].iter().enumerate() {
            to.codes[0][16 * b + i] = byte & 15;
            to.codes[1][16 * b + i] = byte >> 4;
        }
        for l in 4 * b..4 * b + 4 {
            to.scales[0][l] = half(block);
            to.scales[1][l] = half(block);
        }
    }
}

pub(crate) struct Q4_0;
impl Open for Q4_0 {
    const BYTES: usize = 4 * 18;
    const CHUNKS: usize = 2;
    const OFFSET: Option<u32> = Some(3);
    #[inline(always)]
    fn open(bytes: &[u8], to: &mut Opened) {
        open_halves(bytes, to);
    }
}

pub(crate) struct Iq4Nl;
impl Open for Iq4Nl {
    const BYTES: usize = 4 * 18;
    const CHUNKS: usize = 2;
    const OFFSET: Option<u32> = Some(7);
    const LEVELS: Option<&'static [u8; 16]> = Some(&LEVELS);
    #[inline(always)]
    fn open(bytes: &[u8], to: &mut Opened) {
        open_halves(bytes, to);
    }
}

pub(crate) struct Iq4Xs;
impl Open for Iq4Xs {
    const BYTES: usize = 136;
    const CHUNKS: usize = 4;
    const OFFSET: Option<u32> = Some(7);
    const LEVELS: Option<&'static [u8; 16]> = Some(&LEVELS);
    #[inline(always)]
    fn open(bytes: &[u8], to: &mut Opened) {
        let d = half(bytes);
        let high = u16::from_le_bytes([bytes[2], bytes[3]]);
        for g in 0..8 {
            let low = bytes[4 + g / 2] >> (4 * (g % 2)) & 15;
            let scale = d * f32::from(i16::from(low | ((high >> (2 * g) & 3) << 4) as u8) - 32);
            for l in g % 4 * 4..g % 4 * 4 + 4 {
                to.scales[g / 4 * 2][l] = scale;
                to.scales[g / 4 * 2 + 1][l] = scale;
            }
        }
        nibbles(&bytes[8..72], &mut to.codes[..2]);
        nibbles(&bytes[72..], &mut to.codes[2..]);
    }
}

pub(crate) struct Q8_0;
impl Open for Q8_0 {
    const BYTES: usize = 4 * 34;
    const CHUNKS: usize = 2;
    const OFFSET: Option<u32> = Some(7);
    #[inline(always)]
    fn open(bytes: &[u8], to: &mut Opened) {
        for (b, block) in bytes.chunks_exact(34).enumerate() {
            for (i, byte) in block[2..].iter().enumerate() {
                to.codes[b / 2][b % 2 * 32 + i] = byte ^ 128;
            }
            to.scales[b / 2][b % 2 * 8..][..8].fill(half(block));
        }
    }
}

/// Two bits of each of four quarters in every byte of 32: chunk `c` has those of two.
#[inline(always)]
pub(crate) fn quarters(bytes: &[u8], c: usize, codes: &mut [u8; 64]) {
    for (h, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        for (code, byte) in codes.iter_mut().zip(&bytes[c / 2 * 32..]) {
            *code = byte >> (2 * (c % 2 * 2 + h)) & 3;
        }
    }
}

pub(crate) struct Q2K;
impl Open for Q2K {
    const BYTES: usize = 84;
    const CHUNKS: usize = 4;
    const OFFSET: Option<u32> = None;
    const MINIMA: Minima = Minima::Lanes;
    #[inline(always)]
    fn open(bytes: &[u8], to: &mut Opened) {
        let (d, dmin) = (half(&bytes[80..]), half(&bytes[82..]));
        for c in 0..4 {
            quarters(&bytes[16..80], c, &mut to.codes[c]);
            for l in 0..LANES {
                let scale = bytes[4 * c + l / 4];
                to.scales[c][l] = d * f32::from(scale & 15);
                to.lane_mins[c][l] = -(dmin * f32::from(scale >> 4));
            }
        }
    }
}

/// The sixteen six-bit scales of Q3_K, 32 more, eight in each: low nibbles of eight bytes and then their upper ones, and
/// two bits each from four more.
#[inline(always)]
pub(crate) fn q3_k_scales(bytes: &[u8; 12]) -> [u64; 2] {
    let [low, high] = [0, 4]
        .map(|at| u64::from(u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])));
    let nibbles = low | high << 32;
    let pairs = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
    let upper = |shift: u32| u64::from(pairs >> shift & 0x0303_0303) << 4;
    [
        nibbles & 0x0f0f_0f0f_0f0f_0f0f | upper(0) | upper(2) << 32,
        nibbles >> 4 & 0x0f0f_0f0f_0f0f_0f0f | upper(4) | upper(6) << 32,
    ]
}

pub(crate) struct Q3K;
impl Open for Q3K {
    const BYTES: usize = 110;
    const CHUNKS: usize = 4;
    const OFFSET: Option<u32> = Some(2);
    #[inline(always)]
    fn open(bytes: &[u8], to: &mut Opened) {
        let d = half(&bytes[108..]);
        let packed: &[u8; 12] = bytes[96..].first_chunk().expect("a block's scales");
        let scales = q3_k_scales(packed).map(u64::to_le_bytes);
        for c in 0..4 {
            quarters(&bytes[32..96], c, &mut to.codes[c]);
            for (h, codes) in to.codes[c].as_chunks_mut::<32>().0.iter_mut().enumerate() {
                for (code, byte) in codes.iter_mut().zip(bytes) {
                    *code |= (byte >> (2 * c + h) & 1) << 2;
                }
            }
            for l in 0..LANES {
                let scale = scales.as_flattened()[4 * c + l / 4];
                to.scales[c][l] = d * (f32::from(scale) - 32.0);
            }
        }
    }
}

pub(crate) struct Q6K;
impl Open for Q6K {
    const BYTES: usize = 210;
    const CHUNKS: usize = 4;
    const OFFSET: Option<u32> = Some(5);
    #[inline(always)]
    fn open(bytes: &[u8], to: &mut Opened) {
        let (low, rest) = bytes.split_at(128);
        let (high, rest) = rest.split_at(64);
        let d = half(&rest[16..]);
        for c in 0..4 {
            quarters(high, c, &mut to.codes[c]);
            for (code, low) in to.codes[c].iter_mut().zip(&low[c / 2 * 64..]) {
                *code = low >> (4 * (c % 2)) & 15 | *code << 4;
            }
            for l in 0..LANES {
                to.scales[c][l] = d * f32::from(rest[4 * c + l / 4].cast_signed());
            }
        }
    }
}

/// The six-bit scales and minima that Q4_K and Q5_K share: eight bytes of each, the first group's lowest.
#[inline(always)]
pub(crate) fn scales_and_mins(header: &[u8; 16]) -> [u64; 2] {
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (a, b, c) = (word(4), word(8), word(12));
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    [
        join(a & 0x3f3f_3f3f, c & 0x0f0f_0f0f | (a >> 6 & 0x0303_0303) << 4),
        join(b & 0x3f3f_3f3f, c >> 4 & 0x0f0f_0f0f | (b >> 6 & 0x0303_0303) << 4),
    ]
}

#[inline(always)]
fn open_k_header(bytes: &[u8], to: &mut Opened) {
    let header: &[u8; 16] = bytes.first_chunk().expect("a block begins with its header");
    let (d, dmin) = (half(header), half(&header[2..]));
    let [scales, mins] = scales_and_mins(header).map(u64::to_le_bytes);
    for g in 0..8 {
        // Group g lies in unit g / 4: groups 0 and 2 in its first chunk, 1 and 3 in its second.
        let (chunk, first) = (g / 4 * 2 + g % 2, g % 4 / 2 * 8);
        to.scales[chunk][first..first + 8].fill(d * f32::from(scales[g]));
        to.mins[8 + g] = dmin * f32::from(mins[g]);
    }
}

pub(crate) struct Q4K;
impl Open for Q4K {
    const BYTES: usize = 144;
    const CHUNKS: usize = 4;
    const OFFSET: Option<u32> = None;
    const MINIMA: Minima = Minima::Blocks;
    #[inline(always)]
    fn open(bytes: &[u8], to: &mut Opened) {
        open_k_header(bytes, to);
        nibbles(&bytes[16..80], &mut to.codes[..2]);
        nibbles(&bytes[80..], &mut to.codes[2..]);
    }
}

pub(crate) struct Q5K;
impl Open for Q5K {
    const BYTES: usize = 176;
    const CHUNKS: usize = 4;
    const OFFSET: Option<u32> = None;
    const MINIMA: Minima = Minima::Blocks;
    #[inline(always)]
    fn open(bytes: &[u8], to: &mut Opened) {
        open_k_header(bytes, to);
        nibbles(&bytes[48..112], &mut to.codes[..2]);
        nibbles(&bytes[112..], &mut to.codes[2..]);
        for c in 0..4 {
            for (h, codes) in to.codes[c].as_chunks_mut::<32>().0.iter_mut().enumerate() {
                let group = c / 2 * 4 + c % 2 + 2 * h;
                for (code, byte) in codes.iter_mut().zip(&bytes[16..]) {
                    *code |= (byte >> group & 1) << 4;
                }
            }
        }
    }
}

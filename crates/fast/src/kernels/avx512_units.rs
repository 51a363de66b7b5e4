//! Quantized rows in AVX-512 whose encodings open 128 values at a time: the codes of `short_blocks` and `ternary` in
//! registers. For functions compiled for AVX-512 only.

use std::arch::x86_64::*;

use super::avx512_rows::{add_chunk, four_groups, prefetch, quarters, total};
use super::digits::{Digits, Minima, Open};
use super::short_blocks::{E2M1, E8M0, Mxfp4, Nvfp4, Q1_0, Q2_0, Q4_1, Q5_0, Q5_1, UE4M3};
use super::ternary::{Tq1_0, Tq2_0, place};

/// A chunk, opened.
pub(super) struct Part {
    pub codes: __m512i,
    pub scales: __m512,
    /// What sums of four are multiplied by, if the encoding has minima.
    pub minima: __m512,
}

impl Part {
    #[inline(always)]
    pub(super) fn new(codes: __m512i, scales: __m512) -> Part {
        // SAFETY: used only in functions compiled for AVX-512.
        Part { codes, scales, minima: unsafe { _mm512_setzero_ps() } }
    }
}

/// An encoding that opens in registers.
pub(super) trait Unit: Open {
    /// Two chunks of what [`Open`] opens together: those of unit `u`.
    ///
    /// # Safety
    /// There are `BYTES` bytes, and the processor has what the table is compiled for.
    unsafe fn unit(bytes: &[u8], u: usize) -> [Part; 2];
}

/// A row times a token.
#[inline(always)]
pub(super) fn row<O: Unit>(row: &[u8], x: Digits<'_>) -> f32 {
    // SAFETY: used only in functions compiled for AVX-512; a chunk's fields are of 64 bytes each and aligned so.
    unsafe {
        let mut sums = [_mm512_setzero_ps(); 2];
        for (bytes, chunks) in row.chunks_exact(O::BYTES).zip(x.chunks.chunks_exact(O::CHUNKS)) {
            prefetch(bytes);
            for (u, chunks) in chunks.as_chunks::<2>().0.iter().enumerate() {
                for (c, (part, x)) in O::unit(bytes, u).into_iter().zip(chunks).enumerate() {
                    sums[c] = add_chunk(O::OFFSET, sums[c], part.codes, part.scales, x);
                    if O::MINIMA == Minima::Lanes {
                        let fours = _mm512_cvtepi32_ps(_mm512_load_si512(x.sums.as_ptr().cast()));
                        let fours = _mm512_mul_ps(fours, _mm512_load_ps(x.scales.as_ptr()));
                        sums[c] = _mm512_fmadd_ps(part.minima, fours, sums[c]);
                    }
                }
            }
        }
        total(sums[0], sums[1])
    }
}

/// The nibbles of four blocks of 32, which lie `AT` a block's first byte: the lower ones, and the upper ones.
#[inline(always)]
unsafe fn nibbles<const BYTES: usize, const AT: usize>(bytes: &[u8]) -> [__m512i; 2] {
    // SAFETY: the caller vouches for four blocks and AVX-512.
    unsafe {
        let at: *const u8 = bytes.as_ptr().add(AT);
        let codes = _mm512_castsi128_si512(_mm_loadu_si128(at.cast()));
        let codes = _mm512_inserti32x4::<1>(codes, _mm_loadu_si128(at.add(BYTES).cast()));
        let codes = _mm512_inserti32x4::<2>(codes, _mm_loadu_si128(at.add(2 * BYTES).cast()));
        let codes = _mm512_inserti32x4::<3>(codes, _mm_loadu_si128(at.add(3 * BYTES).cast()));
        let low = _mm512_set1_epi8(15);
        [_mm512_and_si512(codes, low), _mm512_and_si512(_mm512_srli_epi16::<4>(codes), low)]
    }
}

/// The fifth bits of four blocks of 32, to bit 4 of the first halves' codes and the second halves'.
#[inline(always)]
unsafe fn with_fifths<const BYTES: usize, const AT: usize>(
    bytes: &[u8],
    codes: [__m512i; 2],
) -> [__m512i; 2] {
    let mut masks = [0u64; 2];
    for b in 0..4 {
        let at = BYTES * b + AT;
        masks[0] |= u64::from(u16::from_le_bytes([bytes[at], bytes[at + 1]])) << (16 * b);
        masks[1] |= u64::from(u16::from_le_bytes([bytes[at + 2], bytes[at + 3]])) << (16 * b);
    }
    // SAFETY: the caller's function is compiled for AVX-512.
    unsafe {
        let fifth = _mm512_set1_epi8(16);
        [
            _mm512_mask_add_epi8(codes[0], masks[0], codes[0], fifth),
            _mm512_mask_add_epi8(codes[1], masks[1], codes[1], fifth),
        ]
    }
}

/// The numbers in half precision that four blocks begin with, each in a block's four lanes: the first, and the second,
/// which means nothing where a block has but one.
#[inline(always)]
unsafe fn halves<const BYTES: usize>(bytes: &[u8]) -> [__m512; 2] {
    let first = |b: usize| {
        let at = BYTES * b;
        i32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    };
    // SAFETY: the caller's function is compiled for AVX-512 and F16C.
    unsafe {
        let both = _mm256_cvtph_ps(_mm_setr_epi32(first(0), first(1), first(2), first(3)));
        let both = _mm512_castps256_ps512(both);
        let index = _mm512_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2, 4, 4, 4, 4, 6, 6, 6, 6);
        let second = _mm512_add_epi32(index, _mm512_set1_epi32(1));
        [_mm512_permutexvar_ps(index, both), _mm512_permutexvar_ps(second, both)]
    }
}

/// A number in half precision in all lanes.
#[inline(always)]
pub(super) unsafe fn half(bits: u16) -> __m512 {
    // SAFETY: the caller's function is compiled for AVX-512 and F16C.
    unsafe { _mm512_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(bits.into()))) }
}

/// Four numbers, each in four lanes.
#[inline(always)]
unsafe fn fours(a: f32, b: f32, c: f32, d: f32) -> __m512 {
    // SAFETY: the caller's function is compiled for AVX-512.
    unsafe { four_groups(_mm512_castps128_ps512(_mm_setr_ps(a, b, c, d)), 0) }
}

impl Unit for Q4_1 {
    #[inline(always)]
    unsafe fn unit(bytes: &[u8], _: usize) -> [Part; 2] {
        // SAFETY: the caller vouches for it.
        let ([low, high], [scales, minima]) = unsafe { (nibbles::<20, 4>(bytes), halves::<20>(bytes)) };
        [Part { codes: low, scales, minima }, Part { codes: high, scales, minima }]
    }
}

impl Unit for Q5_0 {
    #[inline(always)]
    unsafe fn unit(bytes: &[u8], _: usize) -> [Part; 2] {
        // SAFETY: the caller vouches for it.
        unsafe {
            let [low, high] = with_fifths::<22, 2>(bytes, nibbles::<22, 6>(bytes));
            let [scales, _] = halves::<22>(bytes);
            [Part::new(low, scales), Part::new(high, scales)]
        }
    }
}

impl Unit for Q5_1 {
    #[inline(always)]
    unsafe fn unit(bytes: &[u8], _: usize) -> [Part; 2] {
        // SAFETY: the caller vouches for it.
        unsafe {
            let [low, high] = with_fifths::<24, 4>(bytes, nibbles::<24, 8>(bytes));
            let [scales, minima] = halves::<24>(bytes);
            [Part { codes: low, scales, minima }, Part { codes: high, scales, minima }]
        }
    }
}

#[inline(always)]
unsafe fn e2m1(codes: __m512i) -> __m512i {
    // SAFETY: sixteen bytes; the caller's function is compiled for AVX-512.
    unsafe { _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(E2M1.as_ptr().cast())), codes) }
}

impl Unit for Mxfp4 {
    #[inline(always)]
    unsafe fn unit(bytes: &[u8], _: usize) -> [Part; 2] {
        let scale = |b: usize| E8M0[usize::from(bytes[17 * b])];
        // SAFETY: the caller vouches for it.
        unsafe {
            let [low, high] = nibbles::<17, 1>(bytes);
            let scales = fours(scale(0), scale(1), scale(2), scale(3));
            [Part::new(e2m1(low), scales), Part::new(e2m1(high), scales)]
        }
    }
}

/// A block: each eight bytes twice, their lower nibbles and then their upper ones.
#[inline(always)]
unsafe fn nvfp4(block: &[u8]) -> Part {
    let scale = |g: usize| UE4M3[usize::from(block[g])];
    // SAFETY: the caller vouches for 36 bytes and AVX-512.
    unsafe {
        let codes = _mm512_castsi256_si512(_mm256_loadu_si256(block.as_ptr().add(4).cast()));
        let twice = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3), codes);
        let codes = _mm512_srlv_epi64(twice, _mm512_setr_epi64(0, 4, 0, 4, 0, 4, 0, 4));
        let codes = e2m1(_mm512_and_si512(codes, _mm512_set1_epi8(15)));
        Part::new(codes, fours(scale(0), scale(1), scale(2), scale(3)))
    }
}

impl Unit for Nvfp4 {
    #[inline(always)]
    unsafe fn unit(bytes: &[u8], _: usize) -> [Part; 2] {
        // SAFETY: the caller vouches for it.
        unsafe { [nvfp4(&bytes[..36]), nvfp4(&bytes[36..])] }
    }
}

impl Unit for Q1_0 {
    #[inline(always)]
    unsafe fn unit(bytes: &[u8], _: usize) -> [Part; 2] {
        // SAFETY: the caller vouches for it.
        unsafe {
            let at: *const u8 = bytes.as_ptr();
            let (first, second) = (at.add(2).cast::<u64>(), at.add(10).cast::<u64>());
            let (scales, two) = (half(u16::from_le_bytes([bytes[0], bytes[1]])), _mm512_set1_epi8(2));
            [
                Part::new(_mm512_maskz_mov_epi8(first.read_unaligned(), two), scales),
                Part::new(_mm512_maskz_mov_epi8(second.read_unaligned(), two), scales),
            ]
        }
    }
}

/// A block: each byte's pairs of bits side by side.
#[inline(always)]
unsafe fn q2_0(block: &[u8]) -> Part {
    // SAFETY: the caller vouches for 18 bytes and AVX-512.
    unsafe {
        let codes = _mm512_cvtepu8_epi32(_mm_loadu_si128(block.as_ptr().add(2).cast()));
        // Of two bytes 32 bits apart: where each of their pairs begins.
        let pairs = _mm512_set1_epi64(i64::from_le_bytes([0, 2, 4, 6, 32, 34, 36, 38]));
        let codes = _mm512_and_si512(_mm512_multishift_epi64_epi8(pairs, codes), _mm512_set1_epi8(3));
        Part::new(codes, half(u16::from_le_bytes([block[0], block[1]])))
    }
}

impl Unit for Q2_0 {
    #[inline(always)]
    unsafe fn unit(bytes: &[u8], _: usize) -> [Part; 2] {
        // SAFETY: the caller vouches for it.
        unsafe { [q2_0(&bytes[..18]), q2_0(&bytes[18..])] }
    }
}

impl Unit for Tq2_0 {
    #[inline(always)]
    unsafe fn unit(bytes: &[u8], u: usize) -> [Part; 2] {
        // SAFETY: the caller vouches for it: the codes are 64 bytes.
        unsafe {
            let scales = half(u16::from_le_bytes([bytes[64], bytes[65]]));
            let [first, second] = quarters(bytes.as_ptr().add(32 * u));
            [Part::new(first, scales), Part::new(second, scales)]
        }
    }
}

/// For each chunk of TQ1_0 the bytes that its values are in, and what brings their digits up front: the same for each
/// two values.
static PLACES: [([u8; 64], [u16; 32]); 4] = {
    let mut places = [([0; 64], [0; 32]); 4];
    let mut value = 0;
    while value < 256 {
        let (byte, n) = place(value);
        places[value / 64].0[value % 64] = byte as u8;
        places[value / 64].1[value % 64 / 2] = codec::levels::POWERS[n] as u16;
        value += 1;
    }
    places
};

/// Chunk `c`.
#[inline(always)]
unsafe fn tq1_0(bytes: &[u8], c: usize) -> Part {
    let (bytes_of, powers) = &PLACES[c];
    // SAFETY: the caller vouches for 54 bytes and AVX-512 with VBMI; tables are of 64 bytes.
    unsafe {
        let all = _mm512_maskz_loadu_epi8((1 << 54) - 1, bytes.as_ptr().cast());
        let bytes_of = _mm512_permutexvar_epi8(_mm512_loadu_si512(bytes_of.as_ptr().cast()), all);
        let powers = _mm512_loadu_si512(powers.as_ptr().cast());
        // There are no products of bytes: those of each two lie in 16 bits, of which the low eight count.
        let even = _mm512_mullo_epi16(bytes_of, powers);
        let odd = _mm512_slli_epi16::<8>(_mm512_mullo_epi16(_mm512_srli_epi16::<8>(bytes_of), powers));
        let fractions = _mm512_mask_blend_epi8(0xaaaa_aaaa_aaaa_aaaa, even, odd);
        // Three times a fraction of 256 reaches 256 from 86 on, and 512 from 171 on.
        let one = _mm512_set1_epi8(1);
        let first = _mm512_cmpge_epu8_mask(fractions, _mm512_set1_epi8(86));
        let second = _mm512_cmpge_epu8_mask(fractions, _mm512_set1_epi8(171_u8.cast_signed()));
        let codes = _mm512_maskz_mov_epi8(first, one);
        let codes = _mm512_mask_add_epi8(codes, second, codes, one);
        Part::new(codes, half(u16::from_le_bytes([bytes[52], bytes[53]])))
    }
}

impl Unit for Tq1_0 {
    #[inline(always)]
    unsafe fn unit(bytes: &[u8], u: usize) -> [Part; 2] {
        // SAFETY: the caller vouches for it.
        unsafe { [tq1_0(bytes, 2 * u), tq1_0(bytes, 2 * u + 1)] }
    }
}

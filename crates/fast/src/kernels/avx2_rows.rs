//! Quantized rows in AVX2: any encoding's codes, opened as `digits` and its like define it, times digits in registers. For
//! functions compiled for AVX2 only.

use std::arch::x86_64::*;

use super::avx2::Avx2;
use super::digits::{Chunk, Digits, Minima, Open, Opened};
use super::lane::Lanes;

/// Half a chunk's codes, in two parts where a product of bytes that are this large would not fit 16 bits.
#[derive(Clone, Copy)]
struct Codes {
    codes: __m256i,
    /// The lowest bits, if `codes` are halved.
    lowest: Option<__m256i>,
}

/// Exact sums of four products with a digit.
#[inline(always)]
unsafe fn sums_of_four(codes: Codes, digits: *const i8) -> __m256i {
    // SAFETY: the caller vouches for 32 digits and AVX2.
    unsafe {
        let digits = _mm256_loadu_si256(digits.cast());
        // Of codes below 128 two products at most 2·127·128: 16 bits hold them.
        let sum = |codes, by| _mm256_madd_epi16(_mm256_maddubs_epi16(codes, digits), _mm256_set1_epi16(by));
        match codes.lowest {
            Some(lowest) => _mm256_add_epi32(sum(codes.codes, 2), sum(lowest, 1)),
            None => sum(codes.codes, 1),
        }
    }
}

/// Half `h` of a chunk: codes `from` there, as the products take them.
#[inline(always)]
unsafe fn codes<O: Open>(from: *const u8) -> Codes {
    // SAFETY: the caller vouches for 32 codes and AVX2; levels are sixteen bytes.
    unsafe {
        let mut codes = _mm256_loadu_si256(from.cast());
        if let Some(levels) = O::LEVELS {
            let levels = _mm256_broadcastsi128_si256(_mm_loadu_si128(levels.as_ptr().cast()));
            codes = _mm256_shuffle_epi8(levels, codes);
        }
        // Only codes that are centred at 128 are larger than 127.
        if O::OFFSET != Some(7) {
            return Codes { codes, lowest: None };
        }
        let halves = _mm256_and_si256(_mm256_srli_epi16::<1>(codes), _mm256_set1_epi8(127));
        Codes { codes: halves, lowest: Some(_mm256_and_si256(codes, _mm256_set1_epi8(1))) }
    }
}

/// Adds half `h` of chunk `c` to its eight lanes.
#[inline(always)]
unsafe fn add_half<O: Open>(mut sums: __m256, opened: &Opened, c: usize, x: &Chunk, h: usize) -> __m256 {
    // SAFETY: halves of chunks are of 32 bytes and eight lanes; the caller vouches for AVX2 and FMA.
    unsafe {
        let codes = codes::<O>(opened.codes[c].as_ptr().add(32 * h));
        let [high, middle, low] = x.digits.each_ref().map(|digits| digits.as_ptr().add(32 * h));
        let sum = _mm256_slli_epi32::<8>(sums_of_four(codes, high));
        let sum = _mm256_slli_epi32::<8>(_mm256_add_epi32(sum, sums_of_four(codes, middle)));
        let mut sum = _mm256_add_epi32(sum, sums_of_four(codes, low));
        let fours = _mm256_loadu_si256(x.sums.as_ptr().add(8 * h).cast());
        if let Some(shift) = O::OFFSET {
            sum = _mm256_sub_epi32(sum, _mm256_sllv_epi32(fours, _mm256_set1_epi32(shift as i32)));
        }
        let x_scales = _mm256_loadu_ps(x.scales.as_ptr().add(8 * h));
        let scales = _mm256_mul_ps(_mm256_loadu_ps(opened.scales[c].as_ptr().add(8 * h)), x_scales);
        sums = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scales, sums);
        if O::MINIMA == Minima::Lanes {
            let fours = _mm256_mul_ps(_mm256_cvtepi32_ps(fours), x_scales);
            sums = _mm256_fmadd_ps(_mm256_loadu_ps(opened.lane_mins[c].as_ptr().add(8 * h)), fours, sums);
        }
        sums
    }
}

/// A row times a token, to the bits of [`super::digits::row`].
#[inline(always)]
pub(super) fn row<O: Open>(row: &[u8], x: Digits<'_>) -> f32 {
    let mut opened = Opened::ZERO;
    // SAFETY: used only in functions compiled for AVX2 and FMA; eight blocks' sums are the upper half of a lane group.
    unsafe {
        let mut sums = [[_mm256_setzero_ps(); 2]; 2];
        for (b, (bytes, chunks)) in
            row.chunks_exact(O::BYTES).zip(x.chunks.chunks_exact(O::CHUNKS)).enumerate()
        {
            O::open(bytes, &mut opened);
            for (c, x) in chunks.iter().enumerate() {
                for (h, sums) in sums[c % 2].iter_mut().enumerate() {
                    *sums = add_half::<O>(*sums, &opened, c, x, h);
                }
            }
            if O::MINIMA == Minima::Blocks {
                let minus = _mm256_loadu_ps(x.minus[b].0.as_ptr().add(8));
                let mins = _mm256_loadu_ps(opened.mins.as_ptr().add(8));
                sums[0][1] = _mm256_fmadd_ps(mins, minus, sums[0][1]);
            }
        }
        let [even, odd] = sums;
        Avx2(_mm256_add_ps(even[0], odd[0]), _mm256_add_ps(even[1], odd[1])).sum()
    }
}

//! Quantized rows in AVX-512 whose encodings are points of a grid: the look-ups of `grids` as gathers, and signs given
//! sixty-four at a time. For functions compiled for AVX-512 only.

use std::arch::x86_64::*;

use super::avx512_rows::four_groups;
use super::avx512_units::{Part, Unit, half};
use super::grids::{
    Grid, IQ1, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS, Iq1M, Iq1S, Iq2S, Iq2Xs, Iq2Xxs, Iq3S, Iq3Xxs, UP,
    double, word,
};

/// A grid whose points are looked up side by side.
pub(super) trait Gather: Grid {
    /// What [`Grid::points`] has of chunk `c`.
    ///
    /// # Safety
    /// There are `BYTES` bytes, and the processor has what the table is compiled for.
    unsafe fn gather(bytes: &[u8], c: usize) -> __m512i;
}

impl<G: Gather> Unit for G {
    #[inline(always)]
    unsafe fn unit(bytes: &[u8], u: usize) -> [Part; 2] {
        // SAFETY: the caller vouches for it.
        unsafe { [chunk::<G>(bytes, 2 * u), chunk::<G>(bytes, 2 * u + 1)] }
    }
}

/// Chunk `c`.
#[inline(always)]
unsafe fn chunk<G: Gather>(bytes: &[u8], c: usize) -> Part {
    // SAFETY: the caller vouches for it.
    unsafe {
        let mut codes = G::gather(bytes, c);
        if G::SIGNED {
            // Both codes of a level together are twice the offset.
            let twice = _mm512_set1_epi8((2_u8 << G::OFFSET).cast_signed());
            codes = _mm512_mask_sub_epi8(codes, G::minuses(bytes, c), twice, codes);
        }
        let d = _mm512_mul_ps(half(G::factor(bytes)), _mm512_set1_ps(G::UNIT));
        let steps = _mm_cvtsi32_si128(i32::from_le_bytes(G::steps(bytes, c)));
        let steps = _mm_cvtepi32_ps(_mm_cvtepu8_epi32(steps));
        Part::new(codes, _mm512_mul_ps(four_groups(_mm512_castps128_ps512(steps), 0), d))
    }
}

/// Points of eight.
///
/// # Safety
/// Indices are within the table, and the processor has AVX-512.
#[inline(always)]
unsafe fn eights<const POINTS: usize>(table: &[u64; POINTS], indices: __m256i) -> __m512i {
    // SAFETY: the caller vouches for it.
    unsafe { _mm512_i32gather_epi64::<8>(indices, table.as_ptr().cast()) }
}

/// Points of four.
///
/// # Safety
/// Indices are within the table, and the processor has AVX-512.
#[inline(always)]
unsafe fn fours<const POINTS: usize>(table: &[u32; POINTS], indices: __m512i) -> __m512i {
    // SAFETY: the caller vouches for it.
    unsafe { _mm512_i32gather_epi32::<4>(indices, table.as_ptr().cast()) }
}

/// Eight bytes, widened.
#[inline(always)]
unsafe fn eight(bytes: &[u8], at: usize) -> __m256i {
    let bytes: &[u8] = &bytes[at..at + 8];
    // SAFETY: they are there; the caller's function is compiled for AVX-512.
    unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(bytes.as_ptr().cast())) }
}

/// Sixteen bytes, widened.
#[inline(always)]
unsafe fn sixteen(bytes: &[u8], at: usize) -> __m512i {
    let bytes: &[u8] = &bytes[at..at + 16];
    // SAFETY: they are there; the caller's function is compiled for AVX-512.
    unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(bytes.as_ptr().cast())) }
}

/// Some low bits of each number as bits 8 and up of an index.
#[inline(always)]
unsafe fn above(bits: __m256i, mask: i32) -> __m256i {
    // SAFETY: the caller's function is compiled for AVX-512.
    unsafe { _mm256_slli_epi32::<8>(_mm256_and_si256(bits, _mm256_set1_epi32(mask))) }
}

impl Gather for Iq2Xxs {
    #[inline(always)]
    unsafe fn gather(bytes: &[u8], c: usize) -> __m512i {
        let pair: &[u8] = &bytes[2 + 16 * c..][..16];
        // SAFETY: sixteen bytes; bytes index 256 points.
        unsafe {
            let points = _mm_shuffle_epi32::<0b00_00_10_00>(_mm_loadu_si128(pair.as_ptr().cast()));
            eights(&IQ2_XXS, _mm256_cvtepu8_epi32(points))
        }
    }
}

impl Gather for Iq2Xs {
    #[inline(always)]
    unsafe fn gather(bytes: &[u8], c: usize) -> __m512i {
        let words: &[u8] = &bytes[2 + 16 * c..][..16];
        // SAFETY: sixteen bytes; nine bits index 512 points.
        unsafe {
            let words = _mm256_cvtepu16_epi32(_mm_loadu_si128(words.as_ptr().cast()));
            eights(&IQ2_XS, _mm256_and_si256(words, _mm256_set1_epi32(511)))
        }
    }
}

impl Gather for Iq2S {
    #[inline(always)]
    unsafe fn gather(bytes: &[u8], c: usize) -> __m512i {
        let high = i32::from(word(bytes, 66 + 2 * c));
        // SAFETY: ten bits index 1024 points.
        unsafe {
            let pairs = _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14);
            let high = above(_mm256_srlv_epi32(_mm256_set1_epi32(high), pairs), 3);
            eights(&IQ2_S, _mm256_or_si256(eight(bytes, 2 + 8 * c), high))
        }
    }
}

impl Gather for Iq3Xxs {
    #[inline(always)]
    unsafe fn gather(bytes: &[u8], c: usize) -> __m512i {
        // SAFETY: bytes index 256 points.
        unsafe { fours(&IQ3_XXS, sixteen(bytes, 2 + 16 * c)) }
    }
}

impl Gather for Iq3S {
    #[inline(always)]
    unsafe fn gather(bytes: &[u8], c: usize) -> __m512i {
        let high = word(bytes, 66 + 2 * c);
        // SAFETY: nine bits index 512 points.
        unsafe {
            let low = sixteen(bytes, 2 + 16 * c);
            fours(&IQ3_S, _mm512_mask_add_epi32(low, high, low, _mm512_set1_epi32(256)))
        }
    }
}

/// Points of IQ1, shifted up where the mask has a bit.
#[inline(always)]
unsafe fn shifted(indices: __m256i, up: u8) -> __m512i {
    // SAFETY: the caller vouches for eleven bits, which index 2048 points, and for AVX-512.
    unsafe {
        let points = eights(&IQ1, indices);
        _mm512_mask_add_epi64(points, up, points, _mm512_set1_epi64(UP.cast_signed()))
    }
}

impl Gather for Iq1S {
    #[inline(always)]
    unsafe fn gather(bytes: &[u8], c: usize) -> __m512i {
        let [a, b] = [0, 2].map(|at| i32::from(word(bytes, 34 + 4 * c + at)));
        // SAFETY: three bits above eight.
        unsafe {
            let high = _mm256_setr_epi32(a, a, a, a, b, b, b, b);
            let down = _mm256_test_epi32_mask(high, _mm256_set1_epi32(1 << 15));
            let high = above(_mm256_srlv_epi32(high, _mm256_setr_epi32(0, 3, 6, 9, 0, 3, 6, 9)), 7);
            shifted(_mm256_or_si256(eight(bytes, 2 + 8 * c), high), !down)
        }
    }
}

impl Gather for Iq1M {
    #[inline(always)]
    unsafe fn gather(bytes: &[u8], c: usize) -> __m512i {
        let high = double(bytes, 32 + 4 * c).cast_signed();
        // SAFETY: three bits above eight.
        unsafe {
            let nibbles = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
            let high = _mm256_srlv_epi32(_mm256_set1_epi32(high), nibbles);
            let down = _mm256_test_epi32_mask(high, _mm256_set1_epi32(8));
            shifted(_mm256_or_si256(eight(bytes, 8 * c), above(high, 7)), !down)
        }
    }
}

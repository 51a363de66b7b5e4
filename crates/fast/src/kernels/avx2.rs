//! AVX2 with fused multiply-add.

use std::arch::x86_64::*;

use super::lane::{LANES, Lanes};
use super::superblock::Sums;
use super::*;

table!("avx2", #[target_feature(enable = "avx2,fma,f16c")] Avx2, 2 x 2, 16, 1 x 4,
    fix = fixed::fix_pairs,
    open = superblock::open_in_rows,
    scatter = superblock::scatter,
    rows_q4_0 = avx2_rows::row::<digits::Q4_0>,
    rows_q8_0 = avx2_rows::row::<digits::Q8_0>,
    rows_q2_k = avx2_rows::row::<digits::Q2K>,
    rows_q3_k = avx2_rows::row::<digits::Q3K>,
    rows_q4_k = avx2_rows::row::<digits::Q4K>,
    rows_q5_k = avx2_rows::row::<digits::Q5K>,
    rows_q6_k = avx2_rows::row::<digits::Q6K>,
    rows_iq4_nl = avx2_rows::row::<digits::Iq4Nl>,
    rows_iq4_xs = avx2_rows::row::<digits::Iq4Xs>,
    rows_q4_1 = avx2_rows::row::<short_blocks::Q4_1>,
    rows_q5_0 = avx2_rows::row::<short_blocks::Q5_0>,
    rows_q5_1 = avx2_rows::row::<short_blocks::Q5_1>,
    rows_mxfp4 = avx2_rows::row::<short_blocks::Mxfp4>,
    rows_nvfp4 = avx2_rows::row::<short_blocks::Nvfp4>,
    rows_q1_0 = avx2_rows::row::<short_blocks::Q1_0>,
    rows_q2_0 = avx2_rows::row::<short_blocks::Q2_0>,
    rows_tq1_0 = avx2_rows::row::<ternary::Tq1_0>,
    rows_tq2_0 = avx2_rows::row::<ternary::Tq2_0>,
    rows_iq1_s = avx2_rows::row::<grids::Iq1S>,
    rows_iq1_m = avx2_rows::row::<grids::Iq1M>,
    rows_iq2_xxs = avx2_rows::row::<grids::Iq2Xxs>,
    rows_iq2_xs = avx2_rows::row::<grids::Iq2Xs>,
    rows_iq2_s = avx2_rows::row::<grids::Iq2S>,
    rows_iq3_xxs = avx2_rows::row::<grids::Iq3Xxs>,
    rows_iq3_s = avx2_rows::row::<grids::Iq3S>,
);

/// The table, where the processor has what it is compiled for.
pub(super) fn detect() -> Option<&'static Table> {
    let has = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c");
    has.then_some(&TABLE)
}

#[derive(Clone, Copy)]
pub(super) struct Avx2(pub __m256, pub __m256);

impl Lanes for Avx2 {
    #[inline(always)]
    fn load(from: &[f32; LANES]) -> Avx2 {
        // SAFETY: sixteen numbers are two registers; used only in functions compiled for AVX2.
        unsafe { Avx2(_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))) }
    }

    #[inline(always)]
    fn load_f32(from: &[u8; 4 * LANES]) -> Avx2 {
        let from: *const f32 = from.as_ptr().cast();
        // SAFETY: 64 bytes are two registers, wherever they lie; used only in functions compiled for AVX2.
        unsafe { Avx2(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
    }

    #[inline(always)]
    fn load_f16(from: &[u8; 2 * LANES]) -> Avx2 {
        let from: *const __m128i = from.as_ptr().cast();
        // SAFETY: 32 bytes are two registers; used only in functions compiled for AVX2 and F16C.
        unsafe { Avx2(_mm256_cvtph_ps(_mm_loadu_si128(from)), _mm256_cvtph_ps(_mm_loadu_si128(from.add(1)))) }
    }

    #[inline(always)]
    fn load_bf16(from: &[u8; 2 * LANES]) -> Avx2 {
        let from: *const __m128i = from.as_ptr().cast();
        // SAFETY: 32 bytes are two registers; used only in functions compiled for AVX2.
        unsafe {
            let wide = |half| {
                let words = _mm256_cvtepu16_epi32(_mm_loadu_si128(half));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(words))
            };
            Avx2(wide(from), wide(from.add(1)))
        }
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        // SAFETY: as in `load`.
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), self.0);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), self.1);
        }
    }

    #[inline(always)]
    fn splat(x: f32) -> Avx2 {
        // SAFETY: used only in functions compiled for AVX2.
        unsafe { Avx2(_mm256_set1_ps(x), _mm256_set1_ps(x)) }
    }

    #[inline(always)]
    fn times(self, other: Avx2) -> Avx2 {
        // SAFETY: used only in functions compiled for AVX2.
        unsafe { Avx2(_mm256_mul_ps(self.0, other.0), _mm256_mul_ps(self.1, other.1)) }
    }

    #[inline(always)]
    fn add_product(self, a: Avx2, b: Avx2) -> Avx2 {
        // SAFETY: used only in functions compiled for AVX2 and FMA.
        unsafe { Avx2(_mm256_fmadd_ps(a.0, b.0, self.0), _mm256_fmadd_ps(a.1, b.1, self.1)) }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: used only in functions compiled for AVX2.
        unsafe {
            let eight = _mm256_add_ps(self.0, self.1);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn sums(of: [Avx2; 4]) -> [f32; 4] {
        // SAFETY: four numbers are a register; used only in functions compiled for AVX2.
        unsafe {
            let pair = |a: Avx2, b: Avx2| {
                let (a, b) = (_mm256_add_ps(a.0, a.1), _mm256_add_ps(b.0, b.1)); // eight lanes of each
                let lower = _mm256_permute2f128_ps::<0x20>(a, b);
                _mm256_castps_pd(_mm256_add_ps(lower, _mm256_permute2f128_ps::<0x31>(a, b)))
            };
            let [a, b, c, d] = of;
            let (ab, cd) = (pair(a, b), pair(c, d)); // four lanes of each
            let lower = _mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd));
            let two = _mm256_add_ps(lower, _mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd)));
            let one = _mm256_add_ps(two, _mm256_movehdup_ps(two)); // at 0 and 2 of each half
            let (ac, bd) = (_mm256_castps256_ps128(one), _mm256_extractf128_ps::<1>(one));
            let mut sums = [0.0; 4];
            let even = _mm_shuffle_ps::<0b10_00_10_00>(ac, bd); // a, c, b, d
            _mm_storeu_ps(sums.as_mut_ptr(), _mm_permute_ps::<0b11_01_10_00>(even));
            sums
        }
    }
}

impl Sums for Avx2 {
    type Whole = (__m256i, __m256i);

    #[inline(always)]
    fn none() -> (__m256i, __m256i) {
        // SAFETY: used only in functions compiled for AVX2.
        unsafe { (_mm256_setzero_si256(), _mm256_setzero_si256()) }
    }

    #[inline(always)]
    fn add_pairs<const HALF: bool>(sums: (__m256i, __m256i), w: [u8; 4], x: &[u8; 64]) -> (__m256i, __m256i) {
        let x: *const __m256i = x.as_ptr().cast();
        // SAFETY: 64 bytes are two registers; used only in functions compiled for AVX2.
        unsafe {
            let w = _mm256_set1_epi32(i32::from_le_bytes(w));
            let add = |sums, x| _mm256_add_epi32(sums, _mm256_madd_epi16(w, _mm256_loadu_si256(x)));
            (add(sums.0, x), if HALF { sums.1 } else { add(sums.1, x.add(1)) })
        }
    }

    #[inline(always)]
    fn total(high: (__m256i, __m256i), low: (__m256i, __m256i)) -> Avx2 {
        // SAFETY: used only in functions compiled for AVX2 and FMA.
        unsafe {
            let quarter = |high, low| {
                let by = _mm256_set1_pd(4096.0);
                _mm256_cvtpd_ps(_mm256_fmadd_pd(_mm256_cvtepi32_pd(high), by, _mm256_cvtepi32_pd(low)))
            };
            let half = |high, low| {
                let lower = quarter(_mm256_castsi256_si128(high), _mm256_castsi256_si128(low));
                let upper = quarter(_mm256_extracti128_si256::<1>(high), _mm256_extracti128_si256::<1>(low));
                _mm256_set_m128(upper, lower)
            };
            Avx2(half(high.0, low.0), half(high.1, low.1))
        }
    }
}

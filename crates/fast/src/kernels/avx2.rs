//! AVX2 with fused multiply-add.

use std::arch::x86_64::*;

use super::lane::{LANES, Lanes};
use super::*;

table!("avx2", #[target_feature(enable = "avx2,fma,f16c")] Avx2, 2 x 2, 32);

/// The table, where the processor has what it is compiled for.
pub(super) fn detect() -> Option<&'static Table> {
    let has = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c");
    has.then_some(&TABLE)
}

#[derive(Clone, Copy)]
struct Avx2(__m256, __m256);

impl Lanes for Avx2 {
    #[inline(always)]
    fn load(from: &[f32; LANES]) -> Avx2 {
        // SAFETY: sixteen numbers are two registers; used only in functions compiled for AVX2.
        unsafe { Avx2(_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))) }
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
}

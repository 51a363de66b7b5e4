//! AVX-512 with byte permutes and integer dot products (Ice Lake, Zen 4 and later).

use std::arch::x86_64::*;

use super::lane::{LANES, Lanes};
use super::*;

table!(
    "avx512",
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
    Avx512,
    4 x 6,
    64
);

/// The table, where the processor has what it is compiled for.
pub(super) fn detect() -> Option<&'static Table> {
    let has = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vbmi")
        && is_x86_feature_detected!("avx512vnni")
        && is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c");
    has.then_some(&TABLE)
}

#[derive(Clone, Copy)]
struct Avx512(__m512);

impl Lanes for Avx512 {
    #[inline(always)]
    fn load(from: &[f32; LANES]) -> Avx512 {
        // SAFETY: sixteen numbers are a register; used only in functions compiled for AVX-512.
        unsafe { Avx512(_mm512_loadu_ps(from.as_ptr())) }
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        // SAFETY: as in `load`.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn splat(x: f32) -> Avx512 {
        // SAFETY: used only in functions compiled for AVX-512.
        unsafe { Avx512(_mm512_set1_ps(x)) }
    }

    #[inline(always)]
    fn add_product(self, a: Avx512, b: Avx512) -> Avx512 {
        // SAFETY: used only in functions compiled for AVX-512.
        unsafe { Avx512(_mm512_fmadd_ps(a.0, b.0, self.0)) }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: used only in functions compiled for AVX-512.
        unsafe {
            let eight = _mm256_add_ps(_mm512_castps512_ps256(self.0), _mm512_extractf32x8_ps::<1>(self.0));
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }
}

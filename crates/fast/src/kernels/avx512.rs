//! AVX-512 with byte permutes and integer dot products (Ice Lake, Zen 4 and later).

use std::arch::x86_64::*;

use super::lane::{LANES, Lanes};
use super::superblock::Sums;
use super::*;

table!(
    "avx512",
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
    Avx512,
    4 x 6,
    32,
    6 x 4,
    fix = avx512_tiles::fix::<avx512_tiles::Pairs>,
    open = avx512_tiles::open_in_rows,
    scatter = avx512_tiles::scatter,
    rows_q4_0 = avx512_rows::q4_0,
    rows_q8_0 = avx512_rows::q8_0,
    rows_q2_k = avx512_rows::q2_k,
    rows_q3_k = avx512_rows::q3_k,
    rows_q4_k = avx512_rows::q4_k,
    rows_q5_k = avx512_rows::q5_k,
    rows_q6_k = avx512_rows::q6_k,
    rows_iq4_nl = avx512_rows::iq4_nl,
    rows_iq4_xs = avx512_rows::iq4_xs,
    rows_q4_1 = avx512_units::row::<short_blocks::Q4_1>,
    rows_q5_0 = avx512_units::row::<short_blocks::Q5_0>,
    rows_q5_1 = avx512_units::row::<short_blocks::Q5_1>,
    rows_mxfp4 = avx512_units::row::<short_blocks::Mxfp4>,
    rows_nvfp4 = avx512_units::row::<short_blocks::Nvfp4>,
    rows_q1_0 = avx512_units::row::<short_blocks::Q1_0>,
    rows_q2_0 = avx512_units::row::<short_blocks::Q2_0>,
    rows_tq1_0 = avx512_units::row::<ternary::Tq1_0>,
    rows_tq2_0 = avx512_units::row::<ternary::Tq2_0>,
    rows_iq1_s = avx512_units::row::<grids::Iq1S>,
    rows_iq1_m = avx512_units::row::<grids::Iq1M>,
    rows_iq2_xxs = avx512_units::row::<grids::Iq2Xxs>,
    rows_iq2_xs = avx512_units::row::<grids::Iq2Xs>,
    rows_iq2_s = avx512_units::row::<grids::Iq2S>,
    rows_iq3_xxs = avx512_units::row::<grids::Iq3Xxs>,
    rows_iq3_s = avx512_units::row::<grids::Iq3S>,
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
pub(super) struct Avx512(pub __m512);

impl Lanes for Avx512 {
    #[inline(always)]
    fn load(from: &[f32; LANES]) -> Avx512 {
        // SAFETY: sixteen numbers are a register; used only in functions compiled for AVX-512.
        unsafe { Avx512(_mm512_loadu_ps(from.as_ptr())) }
    }

    #[inline(always)]
    fn load_f32(from: &[u8; 4 * LANES]) -> Avx512 {
        // SAFETY: 64 bytes are a register, wherever they lie; used only in functions compiled for AVX-512.
        unsafe { Avx512(_mm512_loadu_ps(from.as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_f16(from: &[u8; 2 * LANES]) -> Avx512 {
        // SAFETY: 32 bytes are half a register; used only in functions compiled for AVX-512.
        unsafe { Avx512(_mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast()))) }
    }

    #[inline(always)]
    fn load_bf16(from: &[u8; 2 * LANES]) -> Avx512 {
        // SAFETY: 32 bytes are half a register; used only in functions compiled for AVX-512.
        unsafe {
            let words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.as_ptr().cast()));
            Avx512(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(words)))
        }
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
    fn times(self, other: Avx512) -> Avx512 {
        // SAFETY: used only in functions compiled for AVX-512.
        Avx512(unsafe { _mm512_mul_ps(self.0, other.0) })
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

    #[inline(always)]
    fn sums(of: [Avx512; 4]) -> [f32; 4] {
        // SAFETY: four numbers are a register; used only in functions compiled for AVX-512.
        unsafe {
            let pair = |a, b| {
                let lower = _mm512_shuffle_f32x4::<0x44>(a, b);
                _mm512_add_ps(lower, _mm512_shuffle_f32x4::<0xee>(a, b))
            };
            let [a, b, c, d] = of;
            let (ab, cd) = (pair(a.0, b.0), pair(c.0, d.0)); // eight lanes of each
            let lower = _mm512_shuffle_f32x4::<0x88>(ab, cd);
            let four = _mm512_add_ps(lower, _mm512_shuffle_f32x4::<0xdd>(ab, cd)); // four of each
            let two = _mm512_add_ps(four, _mm512_shuffle_ps::<0x4e>(four, four));
            let one = _mm512_add_ps(two, _mm512_movehdup_ps(two));
            let firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
            let mut sums = [0.0; 4];
            let four = _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, one));
            _mm_storeu_ps(sums.as_mut_ptr(), four);
            sums
        }
    }
}

/// `2ˢʰⁱᶠᵗ·high + low`, rounded once. Sums of a superblock fill at most 43 bits: the upper 23 and the lower 20 are both exact
/// in f32, and one fused multiply-add joins them.
///
/// # Safety
/// The processor has AVX-512.
#[inline(always)]
pub(super) unsafe fn joined<const SHIFT: u32>(high: __m512i, low: __m512i) -> Avx512 {
    const LOWER: u32 = 20;
    // SAFETY: the caller vouches for the processor.
    unsafe {
        let high = _mm512_add_epi32(high, _mm512_srav_epi32(low, _mm512_set1_epi32(SHIFT as i32)));
        let upper = _mm512_srav_epi32(high, _mm512_set1_epi32((LOWER - SHIFT) as i32));
        let shifted = _mm512_sllv_epi32(high, _mm512_set1_epi32(SHIFT as i32));
        // (shifted | low & (2ˢʰⁱᶠᵗ − 1)) & (2²⁰ − 1): below the shift, the one is zero.
        let own = _mm512_set1_epi32((1 << SHIFT) - 1);
        let both = _mm512_ternarylogic_epi32::<0b1110_1100>(own, shifted, low);
        let lower = _mm512_and_si512(both, _mm512_set1_epi32((1 << LOWER) - 1));
        let by = _mm512_set1_ps((1 << LOWER) as f32);
        Avx512(_mm512_fmadd_ps(_mm512_cvtepi32_ps(upper), by, _mm512_cvtepi32_ps(lower)))
    }
}

impl Sums for Avx512 {
    type Whole = __m512i;

    #[inline(always)]
    fn none() -> __m512i {
        // SAFETY: used only in functions compiled for AVX-512.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    fn add_pairs<const HALF: bool>(sums: __m512i, w: [u8; 4], x: &[u8; 64]) -> __m512i {
        let w = i32::from_le_bytes(w);
        // SAFETY: 64 bytes are a register, 32 half of one; used only in functions compiled for AVX-512 with VNNI.
        unsafe {
            if HALF {
                let (sums, x) = (_mm512_castsi512_si256(sums), _mm256_loadu_si256(x.as_ptr().cast()));
                return _mm512_zextsi256_si512(_mm256_dpwssd_epi32(sums, _mm256_set1_epi32(w), x));
            }
            _mm512_dpwssd_epi32(sums, _mm512_set1_epi32(w), _mm512_loadu_si512(x.as_ptr().cast()))
        }
    }

    #[inline(always)]
    fn total(high: __m512i, low: __m512i) -> Avx512 {
        // SAFETY: used only in functions compiled for AVX-512.
        unsafe { joined::<12>(high, low) }
    }
}

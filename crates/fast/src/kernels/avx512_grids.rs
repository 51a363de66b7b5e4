//! Quantized rows in AVX-512 whose encodings are points of a grid: what `grids` looks up, signs given sixty-four at a
//! time. For functions compiled for AVX-512 only.

use std::arch::x86_64::*;

use super::avx512_rows::four_groups;
use super::avx512_units::{Part, Unit, half};
use super::grids::Grid;

/// Chunk `c`.
#[inline(always)]
unsafe fn chunk<G: Grid>(bytes: &[u8], c: usize) -> Part {
    let [p0, p1, p2, p3, p4, p5, p6, p7] = G::points(bytes, c).map(u64::cast_signed);
    // SAFETY: the caller's function is compiled for AVX-512.
    unsafe {
        let mut codes = _mm512_setr_epi64(p0, p1, p2, p3, p4, p5, p6, p7);
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

impl<G: Grid> Unit for G {
    #[inline(always)]
    unsafe fn unit(bytes: &[u8], u: usize) -> [Part; 2] {
        // SAFETY: the caller vouches for it.
        unsafe { [chunk::<G>(bytes, 2 * u), chunk::<G>(bytes, 2 * u + 1)] }
    }
}

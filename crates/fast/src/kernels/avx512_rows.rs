//! Quantized rows in AVX-512: what `digits` defines, sixteen lanes at a time. For functions compiled for AVX-512 only.

use std::arch::x86_64::*;

use super::digits::{Chunk, Digits, LEVELS, Open, q3_k_scales, scales_and_mins};
use super::lane::Lane;
use super::{avx512::Avx512, digits, lane::Lanes};

/// Adds a chunk's products: codes times three digits, what the offset is worth taken away, and the multiply-add.
///
/// # Safety
/// The processor has AVX-512 with VNNI.
#[inline(always)]
pub(super) unsafe fn add_chunk(
    offset: Option<u32>,
    sums: __m512,
    codes: __m512i,
    scales: __m512,
    x: &Chunk,
) -> __m512 {
    // SAFETY: a chunk's fields are of 64 bytes each and aligned so; the caller vouches for the processor.
    unsafe {
        let [high, middle, low] = &x.digits;
        let sum = _mm512_dpbusd_epi32(_mm512_setzero_si512(), codes, _mm512_load_si512(high.as_ptr().cast()));
        let sum = _mm512_slli_epi32::<8>(sum);
        let sum = _mm512_dpbusd_epi32(sum, codes, _mm512_load_si512(middle.as_ptr().cast()));
        let sum = _mm512_slli_epi32::<8>(sum);
        let mut sum = _mm512_dpbusd_epi32(sum, codes, _mm512_load_si512(low.as_ptr().cast()));
        if let Some(shift) = offset {
            let sums = _mm512_load_si512(x.sums.as_ptr().cast());
            sum = _mm512_sub_epi32(sum, _mm512_sllv_epi32(sums, _mm512_set1_epi32(shift as i32)));
        }
        let scales = _mm512_mul_ps(scales, _mm512_load_ps(x.scales.as_ptr()));
        _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scales, sums)
    }
}

/// The sum of even and odd chunks' lanes.
#[inline(always)]
pub(super) fn total(even: __m512, odd: __m512) -> f32 {
    // SAFETY: used only in functions compiled for AVX-512.
    Avx512(unsafe { _mm512_add_ps(even, odd) }).sum()
}

/// Bytes ahead that the second-level cache is asked for: the processor's own prefetching stops at every page.
const FAR: usize = 4096;
/// Bytes ahead that the first-level cache is asked for.
const NEAR: usize = 768;

#[inline(always)]
pub(super) fn prefetch(bytes: &[u8]) {
    for line in (0..bytes.len()).step_by(64) {
        let at: *const i8 = bytes.as_ptr().wrapping_add(line).cast();
        // SAFETY: a prefetch reads nothing, wherever it points.
        unsafe {
            _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(FAR));
            _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(NEAR));
        }
    }
}

/// The eight groups' scales (lanes 0 to 7) and minima (8 to 15).
#[inline(always)]
fn k_header(block: &[u8]) -> __m512 {
    let header: &[u8; 16] = block.first_chunk().expect("a block begins with its header");
    let [scales, mins] = scales_and_mins(header);
    // SAFETY: used only in functions compiled for AVX-512.
    unsafe {
        let codes = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_set_epi64x(mins as i64, scales as i64)));
        let halves = i32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let d = _mm512_castps128_ps512(_mm_cvtph_ps(_mm_cvtsi32_si128(halves)));
        let d = _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1), d);
        _mm512_mul_ps(codes, d)
    }
}

/// Lanes 0 to 7 of group `a`, the rest of group `b`.
#[inline(always)]
fn two_groups(scales: __m512, a: i32, b: i32) -> __m512 {
    // SAFETY: used only in functions compiled for AVX-512.
    unsafe {
        let index = _mm512_setr_epi32(a, a, a, a, a, a, a, a, b, b, b, b, b, b, b, b);
        _mm512_permutexvar_ps(index, scales)
    }
}

/// Four lanes each of groups `first` to `first + 3`.
#[inline(always)]
pub(super) fn four_groups(scales: __m512, first: i32) -> __m512 {
    let (a, b, c, d) = (first, first + 1, first + 2, first + 3);
    // SAFETY: used only in functions compiled for AVX-512.
    unsafe {
        let index = _mm512_setr_epi32(a, a, a, a, b, b, b, b, c, c, c, c, d, d, d, d);
        _mm512_permutexvar_ps(index, scales)
    }
}

/// Takes the eight blocks' sums times their minima away.
#[inline(always)]
fn subtract_mins(sums: __m512, header: __m512, minus: &Lane) -> __m512 {
    // SAFETY: a lane group is a register; used only in functions compiled for AVX-512.
    unsafe { _mm512_mask3_fmadd_ps(header, _mm512_load_ps(minus.0.as_ptr()), sums, 0xff00) }
}

#[inline(always)]
pub(super) fn q4_k(row: &[u8], x: Digits<'_>) -> f32 {
    let blocks = row.as_chunks::<{ digits::Q4K::BYTES }>().0.iter();
    // SAFETY: used only in functions compiled for AVX-512; both loads end with the block.
    unsafe {
        let (mut even, mut odd) = (_mm512_setzero_ps(), _mm512_setzero_ps());
        let low = _mm512_set1_epi8(15);
        for ((block, x), minus) in blocks.zip(x.chunks.as_chunks::<4>().0).zip(x.minus) {
            prefetch(block);
            let header = k_header(block);
            let codes = _mm512_loadu_si512(block.as_ptr().add(16).cast());
            let upper = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), low);
            even = add_chunk(None, even, _mm512_and_si512(codes, low), two_groups(header, 0, 2), &x[0]);
            odd = add_chunk(None, odd, upper, two_groups(header, 1, 3), &x[1]);
            let codes = _mm512_loadu_si512(block.as_ptr().add(80).cast());
            let upper = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), low);
            even = add_chunk(None, even, _mm512_and_si512(codes, low), two_groups(header, 4, 6), &x[2]);
            odd = add_chunk(None, odd, upper, two_groups(header, 5, 7), &x[3]);
            even = subtract_mins(even, header, minus);
        }
        total(even, odd)
    }
}

/// `a | b & mask`.
#[inline(always)]
unsafe fn join(a: __m512i, b: __m512i, mask: __m512i) -> __m512i {
    // SAFETY: the caller's function is compiled for AVX-512.
    unsafe { _mm512_ternarylogic_epi32::<0b1111_1000>(a, b, mask) }
}

/// 16-bit shift counts: `a` for the lower 32 bytes, `b` for the upper.
#[inline(always)]
unsafe fn counts(a: i16, b: i16) -> __m512i {
    // SAFETY: the caller's function is compiled for AVX-512.
    unsafe { _mm512_inserti64x4::<1>(_mm512_set1_epi16(a), _mm256_set1_epi16(b)) }
}

#[inline(always)]
pub(super) fn q5_k(row: &[u8], x: Digits<'_>) -> f32 {
    let blocks = row.as_chunks::<{ digits::Q5K::BYTES }>().0.iter();
    // SAFETY: used only in functions compiled for AVX-512; the last load ends with the block.
    unsafe {
        let (mut even, mut odd) = (_mm512_setzero_ps(), _mm512_setzero_ps());
        let (low, fifth) = (_mm512_set1_epi8(15), _mm512_set1_epi8(16));
        for ((block, x), minus) in blocks.zip(x.chunks.as_chunks::<4>().0).zip(x.minus) {
            prefetch(block);
            let header = k_header(block);
            // Bit g of every byte is group g's: to bit 4 with it.
            let bits = _mm512_broadcast_i64x4(_mm256_loadu_si256(block.as_ptr().add(16).cast()));
            let codes = _mm512_loadu_si512(block.as_ptr().add(48).cast());
            let a = join(_mm512_and_si512(codes, low), _mm512_sllv_epi16(bits, counts(4, 2)), fifth);
            let upper = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), low);
            let b = join(upper, _mm512_sllv_epi16(bits, counts(3, 1)), fifth);
            even = add_chunk(None, even, a, two_groups(header, 0, 2), &x[0]);
            odd = add_chunk(None, odd, b, two_groups(header, 1, 3), &x[1]);
            let codes = _mm512_loadu_si512(block.as_ptr().add(112).cast());
            let a = join(_mm512_and_si512(codes, low), _mm512_srlv_epi16(bits, counts(0, 2)), fifth);
            let upper = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), low);
            let b = join(upper, _mm512_srlv_epi16(bits, counts(1, 3)), fifth);
            even = add_chunk(None, even, a, two_groups(header, 4, 6), &x[2]);
            odd = add_chunk(None, odd, b, two_groups(header, 5, 7), &x[3]);
            even = subtract_mins(even, header, minus);
        }
        total(even, odd)
    }
}

/// Two bits of four quarters in every byte of 32: those of the first two, and of the others.
#[inline(always)]
pub(super) unsafe fn quarters(at: *const u8) -> [__m512i; 2] {
    // SAFETY: the caller vouches for 32 bytes and AVX-512.
    unsafe {
        let (bits, two) = (_mm512_broadcast_i64x4(_mm256_loadu_si256(at.cast())), _mm512_set1_epi8(3));
        [counts(0, 2), counts(4, 6)].map(|counts| _mm512_and_si512(_mm512_srlv_epi16(bits, counts), two))
    }
}

/// Half-precision numbers, the lowest first, in the lanes of a register.
#[inline(always)]
fn halves(bits: i32) -> __m512 {
    // SAFETY: used only in functions compiled for AVX-512 and F16C.
    unsafe { _mm512_castps128_ps512(_mm_cvtph_ps(_mm_cvtsi32_si128(bits))) }
}

#[inline(always)]
pub(super) fn q2_k(row: &[u8], x: Digits<'_>) -> f32 {
    let blocks = row.as_chunks::<{ digits::Q2K::BYTES }>().0.iter();
    // SAFETY: used only in functions compiled for AVX-512; all loads are within the block's 84 bytes.
    unsafe {
        let mut sums = [_mm512_setzero_ps(); 2];
        for (block, x) in blocks.zip(x.chunks.as_chunks::<4>().0) {
            prefetch(block);
            let d = halves(i32::from_le_bytes([block[80], block[81], block[82], block[83]]));
            let dmin = _mm512_permutexvar_ps(_mm512_set1_epi32(1), d);
            let both = _mm512_cvtepu8_epi32(_mm_loadu_si128(block.as_ptr().cast()));
            let scales = _mm512_cvtepi32_ps(_mm512_and_si512(both, _mm512_set1_epi32(15)));
            let scales = _mm512_mul_ps(scales, _mm512_broadcastss_ps(_mm512_castps512_ps128(d)));
            let mins = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_srli_epi32::<4>(both)), dmin);
            for h in 0..2 {
                for (c, codes) in quarters(block.as_ptr().add(16 + 32 * h)).into_iter().enumerate() {
                    let (chunk, group) = (&x[2 * h + c], (8 * h + 4 * c) as i32);
                    sums[c] = add_chunk(None, sums[c], codes, four_groups(scales, group), chunk);
                    let fours = _mm512_cvtepi32_ps(_mm512_load_si512(chunk.sums.as_ptr().cast()));
                    let fours = _mm512_mul_ps(fours, _mm512_load_ps(chunk.scales.as_ptr()));
                    sums[c] = _mm512_fnmadd_ps(four_groups(mins, group), fours, sums[c]);
                }
            }
        }
        total(sums[0], sums[1])
    }
}

#[inline(always)]
pub(super) fn q3_k(row: &[u8], x: Digits<'_>) -> f32 {
    let blocks = row.as_chunks::<{ digits::Q3K::BYTES }>().0.iter();
    // SAFETY: used only in functions compiled for AVX-512; all loads are within the block's 110 bytes.
    unsafe {
        let mut sums = [_mm512_setzero_ps(); 2];
        let four = _mm512_set1_epi8(4);
        for (block, x) in blocks.zip(x.chunks.as_chunks::<4>().0) {
            prefetch(block);
            let packed: &[u8; 12] = block[96..].first_chunk().expect("a block's scales");
            let [low, high] = q3_k_scales(packed);
            let scales = _mm512_cvtepu8_epi32(_mm_set_epi64x(high as i64, low as i64));
            let scales = _mm512_sub_ps(_mm512_cvtepi32_ps(scales), _mm512_set1_ps(32.0));
            let d = halves(u16::from_le_bytes([block[108], block[109]]).into());
            let scales = _mm512_mul_ps(scales, _mm512_broadcastss_ps(_mm512_castps512_ps128(d)));
            // Bit 4·h + q of every byte is that of quarter q: to bit 2 with it.
            let thirds = _mm512_broadcast_i64x4(_mm256_loadu_si256(block.as_ptr().cast()));
            let thirds = [
                [_mm512_sllv_epi16(thirds, counts(2, 1)), _mm512_srlv_epi16(thirds, counts(0, 1))],
                [_mm512_srlv_epi16(thirds, counts(2, 3)), _mm512_srlv_epi16(thirds, counts(4, 5))],
            ];
            for h in 0..2 {
                for (c, codes) in quarters(block.as_ptr().add(32 + 32 * h)).into_iter().enumerate() {
                    let (codes, group) = (join(codes, thirds[h][c], four), (8 * h + 4 * c) as i32);
                    sums[c] = add_chunk(Some(2), sums[c], codes, four_groups(scales, group), &x[2 * h + c]);
                }
            }
        }
        total(sums[0], sums[1])
    }
}

#[inline(always)]
pub(super) fn q6_k(row: &[u8], x: Digits<'_>) -> f32 {
    let blocks = row.as_chunks::<{ digits::Q6K::BYTES }>().0.iter();
    // SAFETY: used only in functions compiled for AVX-512; all loads are within the block's 210 bytes.
    unsafe {
        let (mut even, mut odd) = (_mm512_setzero_ps(), _mm512_setzero_ps());
        let (low, two) = (_mm512_set1_epi8(15), _mm512_set1_epi8(0x30));
        for (block, x) in blocks.zip(x.chunks.as_chunks::<4>().0) {
            prefetch(block);
            let at = block.as_ptr();
            let scales = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(at.add(192).cast())));
            let d = _mm_cvtph_ps(_mm_cvtsi32_si128(u16::from_le_bytes([block[208], block[209]]).into()));
            let scales = _mm512_mul_ps(scales, _mm512_broadcastss_ps(d));
            // Two bits of four quarters in every byte: to bits 4 and 5 with each.
            let codes = _mm512_loadu_si512(at.cast());
            let bits = _mm512_broadcast_i64x4(_mm256_loadu_si256(at.add(128).cast()));
            let a = join(_mm512_and_si512(codes, low), _mm512_sllv_epi16(bits, counts(4, 2)), two);
            let upper = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), low);
            let b = join(upper, _mm512_srlv_epi16(bits, counts(0, 2)), two);
            even = add_chunk(Some(5), even, a, four_groups(scales, 0), &x[0]);
            odd = add_chunk(Some(5), odd, b, four_groups(scales, 4), &x[1]);
            let codes = _mm512_loadu_si512(at.add(64).cast());
            let bits = _mm512_broadcast_i64x4(_mm256_loadu_si256(at.add(160).cast()));
            let a = join(_mm512_and_si512(codes, low), _mm512_sllv_epi16(bits, counts(4, 2)), two);
            let upper = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), low);
            let b = join(upper, _mm512_srlv_epi16(bits, counts(0, 2)), two);
            even = add_chunk(Some(5), even, a, four_groups(scales, 8), &x[2]);
            odd = add_chunk(Some(5), odd, b, four_groups(scales, 12), &x[3]);
        }
        total(even, odd)
    }
}

/// Two blocks of Q8_0, 34 bytes apart: codes with 128 added, and their scales.
#[inline(always)]
unsafe fn two_blocks(at: *const u8) -> (__m512i, __m512) {
    // SAFETY: the caller vouches for 68 bytes and AVX-512.
    unsafe {
        let codes = _mm512_castsi256_si512(_mm256_loadu_si256(at.add(2).cast()));
        let codes = _mm512_inserti64x4::<1>(codes, _mm256_loadu_si256(at.add(36).cast()));
        let first = i32::from(at.cast::<u16>().read_unaligned());
        let second = i32::from(at.add(34).cast::<u16>().read_unaligned());
        let d = _mm512_castps128_ps512(_mm_cvtph_ps(_mm_cvtsi32_si128(first | second << 16)));
        (_mm512_xor_si512(codes, _mm512_set1_epi8(-128)), two_groups(d, 0, 1))
    }
}

#[inline(always)]
pub(super) fn q8_0(row: &[u8], x: Digits<'_>) -> f32 {
    let blocks = row.as_chunks::<{ digits::Q8_0::BYTES }>().0.iter();
    // SAFETY: used only in functions compiled for AVX-512; four blocks are twice two.
    unsafe {
        let (mut even, mut odd) = (_mm512_setzero_ps(), _mm512_setzero_ps());
        for (block, x) in blocks.zip(x.chunks.as_chunks::<2>().0) {
            prefetch(block);
            let (codes, scales) = two_blocks(block.as_ptr());
            even = add_chunk(Some(7), even, codes, scales, &x[0]);
            let (codes, scales) = two_blocks(block.as_ptr().add(68));
            odd = add_chunk(Some(7), odd, codes, scales, &x[1]);
        }
        total(even, odd)
    }
}

/// Four blocks of a scale and sixteen bytes of nibbles, 18 bytes apart: the bytes, and their scales.
#[inline(always)]
unsafe fn four_blocks(at: *const u8) -> (__m512i, __m512) {
    // SAFETY: the caller vouches for 72 bytes and AVX-512.
    unsafe {
        let codes = _mm512_castsi128_si512(_mm_loadu_si128(at.add(2).cast()));
        let codes = _mm512_inserti32x4::<1>(codes, _mm_loadu_si128(at.add(20).cast()));
        let codes = _mm512_inserti32x4::<2>(codes, _mm_loadu_si128(at.add(38).cast()));
        let codes = _mm512_inserti32x4::<3>(codes, _mm_loadu_si128(at.add(56).cast()));
        let mut halves = 0u64;
        for b in 0..4 {
            halves |= u64::from(at.add(18 * b).cast::<u16>().read_unaligned()) << (16 * b);
        }
        let d = _mm512_castps128_ps512(_mm_cvtph_ps(_mm_cvtsi64_si128(halves as i64)));
        (codes, four_groups(d, 0))
    }
}

#[inline(always)]
pub(super) fn q4_0(row: &[u8], x: Digits<'_>) -> f32 {
    let blocks = row.as_chunks::<{ digits::Q4_0::BYTES }>().0.iter();
    // SAFETY: used only in functions compiled for AVX-512.
    unsafe {
        let (mut even, mut odd) = (_mm512_setzero_ps(), _mm512_setzero_ps());
        let low = _mm512_set1_epi8(15);
        for (block, x) in blocks.zip(x.chunks.as_chunks::<2>().0) {
            prefetch(block);
            let (codes, scales) = four_blocks(block.as_ptr());
            let upper = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), low);
            even = add_chunk(Some(3), even, _mm512_and_si512(codes, low), scales, &x[0]);
            odd = add_chunk(Some(3), odd, upper, scales, &x[1]);
        }
        total(even, odd)
    }
}

#[inline(always)]
unsafe fn levels() -> __m512i {
    // SAFETY: sixteen bytes; the caller's function is compiled for AVX-512.
    unsafe { _mm512_broadcast_i32x4(_mm_loadu_si128(LEVELS.as_ptr().cast())) }
}

#[inline(always)]
pub(super) fn iq4_nl(row: &[u8], x: Digits<'_>) -> f32 {
    let blocks = row.as_chunks::<{ digits::Iq4Nl::BYTES }>().0.iter();
    // SAFETY: used only in functions compiled for AVX-512.
    unsafe {
        let (mut even, mut odd) = (_mm512_setzero_ps(), _mm512_setzero_ps());
        let (low, levels) = (_mm512_set1_epi8(15), levels());
        for (block, x) in blocks.zip(x.chunks.as_chunks::<2>().0) {
            prefetch(block);
            let (codes, scales) = four_blocks(block.as_ptr());
            let upper = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), low);
            let codes = _mm512_shuffle_epi8(levels, _mm512_and_si512(codes, low));
            even = add_chunk(Some(7), even, codes, scales, &x[0]);
            odd = add_chunk(Some(7), odd, _mm512_shuffle_epi8(levels, upper), scales, &x[1]);
        }
        total(even, odd)
    }
}

#[inline(always)]
pub(super) fn iq4_xs(row: &[u8], x: Digits<'_>) -> f32 {
    let blocks = row.as_chunks::<{ digits::Iq4Xs::BYTES }>().0.iter();
    // SAFETY: used only in functions compiled for AVX-512; the last load ends with the block.
    unsafe {
        let (mut even, mut odd) = (_mm512_setzero_ps(), _mm512_setzero_ps());
        let (low, levels) = (_mm512_set1_epi8(15), levels());
        for (block, x) in blocks.zip(x.chunks.as_chunks::<4>().0) {
            prefetch(block);
            // A lane a group: its low nibble and its upper two bits.
            let nibbles = _mm256_set1_epi32(i32::from_le_bytes([block[4], block[5], block[6], block[7]]));
            let nibbles = _mm256_srlv_epi32(nibbles, _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
            let pairs = _mm256_set1_epi32(u16::from_le_bytes([block[2], block[3]]).into());
            let pairs = _mm256_srlv_epi32(pairs, _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14));
            let pairs = _mm256_slli_epi32::<4>(_mm256_and_si256(pairs, _mm256_set1_epi32(3)));
            let scales = _mm256_or_si256(_mm256_and_si256(nibbles, _mm256_set1_epi32(15)), pairs);
            let scales = _mm256_cvtepi32_ps(_mm256_sub_epi32(scales, _mm256_set1_epi32(32)));
            let d = _mm_cvtph_ps(_mm_cvtsi32_si128(u16::from_le_bytes([block[0], block[1]]).into()));
            let scales = _mm512_castps256_ps512(_mm256_mul_ps(scales, _mm256_broadcastss_ps(d)));
            for half in 0..2 {
                let codes = _mm512_loadu_si512(block.as_ptr().add(8 + 64 * half).cast());
                let upper = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), low);
                let codes = _mm512_shuffle_epi8(levels, _mm512_and_si512(codes, low));
                let scales = four_groups(scales, 4 * half as i32);
                even = add_chunk(Some(7), even, codes, scales, &x[2 * half]);
                odd = add_chunk(Some(7), odd, _mm512_shuffle_epi8(levels, upper), scales, &x[2 * half + 1]);
            }
        }
        total(even, odd)
    }
}

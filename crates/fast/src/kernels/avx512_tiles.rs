//! Moving between rows and lanes in AVX-512: what `fixed` and `superblock` define. For functions compiled for AVX-512 only.

use std::arch::x86_64::*;

use ndarray::ArrayViewMut2;

use super::digits::LEVELS;
use super::fixed::{COLUMNS, TOKENS, TokenTile, scale_of};
use super::lane::{LANES, Lane};
use super::superblock::{ROWS, RowTile, Super, open};

/// Sixteen columns of sixteen tokens, a token in each lane.
type Square = [__m512i; 16];

/// Columns become rows.
#[inline(always)]
fn transpose(rows: &Square) -> Square {
    let mut out = *rows;
    // SAFETY: used only in functions compiled for AVX-512.
    unsafe {
        for i in (0..16).step_by(2) {
            out[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
            out[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
        }
        let pairs = out;
        for i in (0..16).step_by(4) {
            out[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
            out[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
            out[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
            out[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
        }
        // Quarter q of `fours[4·g + c]` is column 4·q + c of rows 4·g and on.
        let fours = out;
        for c in 0..4 {
            let even = _mm512_shuffle_i32x4::<0x88>(fours[c], fours[4 + c]);
            let odd = _mm512_shuffle_i32x4::<0xdd>(fours[c], fours[4 + c]);
            let even_rest = _mm512_shuffle_i32x4::<0x88>(fours[8 + c], fours[12 + c]);
            let odd_rest = _mm512_shuffle_i32x4::<0xdd>(fours[8 + c], fours[12 + c]);
            out[c] = _mm512_shuffle_i32x4::<0x88>(even, even_rest);
            out[4 + c] = _mm512_shuffle_i32x4::<0x88>(odd, odd_rest);
            out[8 + c] = _mm512_shuffle_i32x4::<0xdd>(even, even_rest);
            out[12 + c] = _mm512_shuffle_i32x4::<0xdd>(odd, odd_rest);
        }
    }
    out
}

/// How whole numbers lie in a tile's lines.
pub(super) trait Lay {
    /// Writes columns `16·group` to `16·group + 15`.
    fn lay(columns: &Square, group: usize, lines: &mut [[u8; 64]; 256]);
}

/// As [`super::fixed::pairs`] does it.
pub(super) struct Pairs;

/// As [`super::fixed::fours`] does it.
pub(super) struct Fours;

#[inline(always)]
fn store(to: &mut [u8; 64], line: __m512i) {
    // SAFETY: 64 bytes are a register; used only in functions compiled for AVX-512.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), line) }
}

impl Lay for Pairs {
    #[inline(always)]
    fn lay(columns: &Square, group: usize, lines: &mut [[u8; 64]; 256]) {
        let (high_lines, low_lines) = lines.split_at_mut(COLUMNS / 2);
        for pair in 0..8 {
            let (a, b) = (columns[2 * pair], columns[2 * pair + 1]);
            // SAFETY: used only in functions compiled for AVX-512.
            unsafe {
                let half = _mm512_set1_epi32(2048);
                let (a_high, b_high) = (
                    _mm512_srai_epi32::<12>(_mm512_add_epi32(a, half)),
                    _mm512_srai_epi32::<12>(_mm512_add_epi32(b, half)),
                );
                let a_low = _mm512_sub_epi32(a, _mm512_slli_epi32::<12>(a_high));
                let b_low = _mm512_sub_epi32(b, _mm512_slli_epi32::<12>(b_high));
                // The lower word of `a`, and that of `b` above it.
                store(
                    &mut high_lines[8 * group + pair],
                    _mm512_mask_blend_epi16(0xaaaa_aaaa, a_high, _mm512_slli_epi32::<16>(b_high)),
                );
                store(
                    &mut low_lines[8 * group + pair],
                    _mm512_mask_blend_epi16(0xaaaa_aaaa, a_low, _mm512_slli_epi32::<16>(b_low)),
                );
            }
        }
    }
}

impl Lay for Fours {
    #[inline(always)]
    fn lay(columns: &Square, group: usize, lines: &mut [[u8; 64]; 256]) {
        for four in 0..4 {
            let mut columns: [__m512i; 4] =
                [columns[4 * four], columns[4 * four + 1], columns[4 * four + 2], columns[4 * four + 3]];
            for plane in (0..3).rev() {
                // SAFETY: used only in functions compiled for AVX-512.
                unsafe {
                    let [a, b, c, d] = columns;
                    let ab = _mm512_mask_blend_epi8(0x2222_2222_2222_2222, a, _mm512_slli_epi32::<8>(b));
                    let abc = _mm512_mask_blend_epi8(0x4444_4444_4444_4444, ab, _mm512_slli_epi32::<16>(c));
                    let all = _mm512_mask_blend_epi8(0x8888_8888_8888_8888, abc, _mm512_slli_epi32::<24>(d));
                    store(&mut lines[64 * plane + 4 * group + four], all);
                    // What is left when the lowest signed digit is taken off.
                    for x in &mut columns {
                        *x = _mm512_srai_epi32::<8>(_mm512_add_epi32(*x, _mm512_set1_epi32(128)));
                    }
                }
            }
        }
    }
}

/// What [`super::fixed::fix`] defines.
#[inline(always)]
pub(super) fn fix<L: Lay>(x: &[[f32; COLUMNS]; TOKENS], to: &mut TokenTile) {
    let mut inverse = [0f32; TOKENS];
    // SAFETY: sixteen numbers are a register; used only in functions compiled for AVX-512.
    unsafe {
        for (t, x) in x.iter().enumerate() {
            let mut largest = _mm512_setzero_si512();
            for x in x.as_chunks::<LANES>().0 {
                let magnitude =
                    _mm512_and_si512(_mm512_loadu_si512(x.as_ptr().cast()), _mm512_set1_epi32(0x7fff_ffff));
                largest = _mm512_max_epu32(largest, magnitude);
            }
            (to.scales.0[t], inverse[t]) = scale_of(f32::from_bits(_mm512_reduce_max_epu32(largest)));
        }
        let scales = _mm512_load_ps(to.scales.0.as_ptr());
        let mut before = _mm512_setzero_si512();
        for group in 0..COLUMNS / LANES {
            let mut square = [_mm512_setzero_si512(); 16];
            for t in 0..TOKENS {
                let x = _mm512_loadu_ps(x[t].as_ptr().add(LANES * group));
                let x = _mm512_mul_ps(x, _mm512_set1_ps(inverse[t]));
                square[t] = _mm512_maskz_cvtps_epi32(_mm512_cmp_ps_mask::<_CMP_ORD_Q>(x, x), x);
            }
            let columns = transpose(&square);
            let mut sum = columns[0];
            for column in &columns[1..] {
                sum = _mm512_add_epi32(sum, *column);
            }
            let activation = |sum| _mm512_mul_ps(scales, _mm512_cvtepi32_ps(sum));
            _mm512_store_ps(to.sixteens[group].0.as_mut_ptr(), activation(sum));
            if group % 2 == 1 {
                let pair = activation(_mm512_add_epi32(before, sum));
                _mm512_store_ps(to.thirty_twos[group / 2].0.as_mut_ptr(), pair);
            }
            before = sum;
            L::lay(&columns, group, &mut to.lines);
        }
    }
}

/// What the nibbles of IQ4 stand for, as [`super::superblock::open`] takes it.
#[inline(always)]
pub(super) fn levels(codes: &[u8; 16]) -> [[i16; 16]; 2] {
    let mut out = [[0; 16]; 2];
    // SAFETY: sixteen bytes are a register, sixteen numbers one of twice its width; used only in functions compiled for
    // AVX-512.
    unsafe {
        let levels = _mm_xor_si128(_mm_loadu_si128(LEVELS.as_ptr().cast()), _mm_set1_epi8(-128));
        let codes = _mm_loadu_si128(codes.as_ptr().cast());
        let low = _mm_set1_epi8(15);
        let lower = _mm_shuffle_epi8(levels, _mm_and_si128(codes, low));
        let upper = _mm_shuffle_epi8(levels, _mm_and_si128(_mm_srli_epi16::<4>(codes), low));
        _mm256_storeu_si256(out[0].as_mut_ptr().cast(), _mm256_cvtepi8_epi16(lower));
        _mm256_storeu_si256(out[1].as_mut_ptr().cast(), _mm256_cvtepi8_epi16(upper));
    }
    out
}

/// As [`super::superblock::open_in_rows`].
#[inline(always)]
pub(super) fn open_in_rows(coding: Super, block: &[u8], r: usize, tile: &mut RowTile) {
    // SAFETY: a row's eight lines are 512 bytes on a boundary of 64, which are 256 numbers, the lower byte first as this
    // processor has them, whatever they hold.
    let whole = unsafe { &mut *tile.lines[8 * r..][..8].as_mut_ptr().cast::<[i16; COLUMNS]>() };
    let factors = open(coding, block, whole, levels);
    tile.set(r, factors);
}

/// What [`super::superblock::scatter`] defines.
#[inline(always)]
pub(super) fn scatter(sums: &[Lane], out: &mut ArrayViewMut2<'_, f32>) {
    let (tokens, rows) = out.dim();
    let row_tiles = rows.div_ceil(ROWS);
    let tiles = sums.as_chunks::<ROWS>().0;
    for (token_tile, tiles) in tiles.chunks_exact(row_tiles).enumerate() {
        let here = (tokens - token_tile * TOKENS).min(TOKENS);
        // Each token's row is on another page, and none of it in a cache.
        for t in (token_tile + 1) * TOKENS..tokens.min((token_tile + 2) * TOKENS) {
            for first in (0..rows).step_by(ROWS) {
                let at: *const i8 = out.row(t).as_ptr().wrapping_add(first).cast();
                // SAFETY: a prefetch changes nothing, wherever it points.
                unsafe { _mm_prefetch::<_MM_HINT_ET0>(at) }
            }
        }
        for (row_tile, tile) in tiles.iter().enumerate() {
            // SAFETY: a lane group is a register; used only in functions compiled for AVX-512.
            unsafe {
                let mut square = [_mm512_setzero_si512(); 16];
                for (r, sums) in square.iter_mut().zip(tile) {
                    *r = _mm512_load_si512(sums.0.as_ptr().cast());
                }
                let width = (rows - row_tile * ROWS).min(ROWS);
                let mask = (u32::MAX >> (32 - width)) as u16;
                for (t, row) in transpose(&square).iter().enumerate().take(here) {
                    let mut out = out.row_mut(token_tile * TOKENS + t);
                    let out = out.as_slice_mut().expect("rows of activations are contiguous");
                    let to = out[row_tile * ROWS..][..width].as_mut_ptr();
                    _mm512_mask_storeu_epi32(to.cast(), mask, *row);
                }
            }
        }
    }
}

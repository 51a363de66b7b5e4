//! AVX-512 with AMX: tiles of sixteen rows times sixteen tokens, four products of bytes added to each sum at a time.
//!
//! A weight's whole number is two signed digits of eight bits, an activation's is three. Products of digits that weigh the
//! same share a tile of sums, so that there are four.

use std::arch::asm;
use std::arch::x86_64::*;

use instructions::{Amx, Configured};

use super::avx512::Avx512;
use super::avx512_tiles::{Fours, fix, levels};
use super::fixed::{COLUMNS, TOKENS, TokenTile};
use super::lane::Lane;
use super::superblock::{Add, ROWS, RowTile, Super, add, finish, open};
use super::{Table, avx512, table};

table!(@functions [#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]]
    fix_tokens(x: &[[f32; COLUMNS]; TOKENS], to: &mut TokenTile) = fix::<Fours>;
    open_row(coding: Super, block: &[u8], r: usize, tile: &mut RowTile) = open_planes;
    add_superblock(rows: &[RowTile], tokens: &[TokenTile], minima: usize, sums: &mut [Lane]) = add::<InTiles>;
);

const TABLE: Table = Table { name: "amx", fix_tokens, open_row, add_superblock, ..avx512::TABLE };

/// The table, where the processor has what it is compiled for and the system lets this process use its tiles.
pub(super) fn detect() -> Option<&'static Table> {
    avx512::detect().and(Amx::detect()).map(|_| &TABLE)
}

#[inline(always)]
fn open_planes(coding: Super, block: &[u8], r: usize, tile: &mut RowTile) {
    let mut whole = [0; COLUMNS];
    tile.set(r, open(coding, block, &mut whole, levels));
    in_planes(&whole, r, &mut tile.lines);
}

/// Lines `[4, 2, 16]`: 64 columns, the high digit and the low one, rows.
#[inline(always)]
fn in_planes(whole: &[i16; COLUMNS], r: usize, lines: &mut [[u8; 64]; 128]) {
    for (whole, lines) in whole.as_chunks::<64>().0.iter().zip(lines.as_chunks_mut::<{ 2 * ROWS }>().0) {
        for (half, whole) in whole.as_chunks::<32>().0.iter().enumerate() {
            // SAFETY: 32 numbers are a register, their digits half of one, within lines of 64 bytes; used only in functions
            // compiled for AVX-512.
            unsafe {
                let whole = _mm512_loadu_si512(whole.as_ptr().cast());
                let high = _mm512_srai_epi16::<8>(_mm512_add_epi16(whole, _mm512_set1_epi16(128)));
                let store = |line: &mut [u8; 64], digits| {
                    _mm256_storeu_si256(
                        line[32 * half..][..32].as_mut_ptr().cast(),
                        _mm512_cvtepi16_epi8(digits),
                    );
                };
                store(&mut lines[r], high);
                store(&mut lines[ROWS + r], whole);
            }
        }
    }
}

/// Sums of products of digits, of rows by tokens: those of weight 2²⁴, 2¹⁶, 2⁸ and 1.
#[repr(C, align(64))]
struct Planes([[[i32; 16]; ROWS]; 4]);

/// This thread's tiles, in use.
struct Tiles {
    _configured: Configured,
}

impl Tiles {
    fn configure() -> Tiles {
        let amx = Amx::detect().expect("the table is only handed out where there is AMX");
        Tiles { _configured: amx.configure() }
    }

    /// `planes` of a superblock.
    #[inline(always)]
    fn multiply(&self, w: &RowTile, x: &TokenTile, planes: &mut Planes) {
        macro_rules! columns {
            ($w:literal, $x:literal) => {
                concat!(
                    "tileloadd tmm4, [{w} + {line}*1 + ",
                    $w,
                    "]\n",
                    "tileloadd tmm6, [{x} + {line}*1 + ",
                    $x,
                    "]\n",
                    "tdpbssd tmm0, tmm4, tmm6\n",
                    "tileloadd tmm5, [{w} + {line}*1 + ",
                    $w,
                    " + 1024]\n",
                    "tdpbssd tmm1, tmm5, tmm6\n",
                    "tileloadd tmm7, [{x} + {line}*1 + ",
                    $x,
                    " + 4096]\n",
                    "tdpbssd tmm2, tmm5, tmm7\n",
                    "tileloadd tmm6, [{x} + {line}*1 + ",
                    $x,
                    " + 8192]\n",
                    "tdpbssd tmm3, tmm5, tmm6\n",
                    "tdpbssd tmm1, tmm4, tmm7\n",
                    "tdpbssd tmm2, tmm4, tmm6\n",
                )
            };
        }
        // SAFETY: the tiles are configured as sixteen lines of 64 bytes, 64 apart: a tile is 1024 bytes. `w` has 8 such
        // tiles, `x` 12 and `planes` 4.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                columns!("0", "0"),
                columns!("2048", "1024"),
                columns!("4096", "2048"),
                columns!("6144", "3072"),
                "tilestored [{planes} + {line}*1], tmm0",
                "tilestored [{planes} + {line}*1 + 1024], tmm1",
                "tilestored [{planes} + {line}*1 + 2048], tmm2",
                "tilestored [{planes} + {line}*1 + 3072], tmm3",
                w = in(reg) w.lines.as_ptr(),
                x = in(reg) x.lines.as_ptr(),
                planes = in(reg) planes.0.as_mut_ptr(),
                line = in(reg) 64usize,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, preserves_flags),
            );
        }
    }
}

struct InTiles;

impl Add for InTiles {
    /// While a tile's products are on their way, the one before is finished.
    #[inline(always)]
    fn add<const MINIMA: usize>(rows: &[RowTile], tokens: &[TokenTile], sums: &mut [Lane]) {
        let tiles = Tiles::configure();
        let mut planes = [const { Planes([[[0; 16]; ROWS]; 4]) }; 2];
        let mut turn = 0;
        let mut before: Option<(&RowTile, &TokenTile, &mut [Lane; ROWS])> = None;
        for (x, sums) in tokens.iter().zip(sums.chunks_exact_mut(rows.len() * ROWS)) {
            for (w, sums) in rows.iter().zip(sums.as_chunks_mut::<ROWS>().0) {
                tiles.multiply(w, x, &mut planes[turn]);
                turn = 1 - turn;
                if let Some((w, x, sums)) = before.replace((w, x, sums)) {
                    finish_tile::<MINIMA>(&planes[turn], w, x, sums);
                }
            }
        }
        if let Some((w, x, sums)) = before {
            finish_tile::<MINIMA>(&planes[1 - turn], w, x, sums);
        }
    }
}

#[inline(always)]
fn finish_tile<const MINIMA: usize>(planes: &Planes, w: &RowTile, x: &TokenTile, sums: &mut [Lane; ROWS]) {
    for (r, sum) in sums.iter_mut().enumerate() {
        finish(total(planes, r), w, r, x, MINIMA, sum);
    }
}

/// A row's sums, put together from their planes and rounded once.
#[inline(always)]
fn total(planes: &Planes, r: usize) -> Avx512 {
    // SAFETY: a row of a plane is a register; used only in functions compiled for AVX-512. Neither half of the planes
    // fills more than 31 bits.
    unsafe {
        let plane = |p: usize| _mm512_load_si512(planes.0[p][r].as_ptr().cast());
        let high = _mm512_add_epi32(_mm512_slli_epi32::<8>(plane(0)), plane(1));
        let low = _mm512_add_epi32(_mm512_slli_epi32::<8>(plane(2)), plane(3));
        avx512::joined::<16>(high, low)
    }
}

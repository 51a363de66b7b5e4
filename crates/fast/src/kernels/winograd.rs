//! AVX-512 where registers are added twice as often as multiplied (Zen 4 and later): in most columns two additions take the
//! place of every second multiplication.
//!
//! By Winograd's identity for inner products (1968), `x₀w₀ + x₁w₁ = (x₀ + w₁)(x₁ + w₀) − x₀x₁ − w₀w₁`; what is taken away
//! belongs to a token or to a row alone and is worked out once for all that it meets. In whole numbers that changes no
//! bit. Sums may leave 32 bits on the way; they return, since the wanted one fits.

use std::arch::asm;
use std::arch::x86_64::*;

use super::avx512::{Avx512, joined};
use super::fixed::{COLUMNS, TokenTile};
use super::lane::Lane;
use super::superblock::{Add, ROWS, RowTile, TILES, TOGETHER, add, finish};
use super::{Table, avx512, table};

table!(@functions [#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]]
    add_superblock(rows: &[RowTile], tokens: &[TokenTile], minima: usize, sums: &mut [Lane]) = add::<Winograd>;
);

const TABLE: Table = Table { name: "winograd", add_superblock, ..avx512::TABLE };

/// The table, where the processor has what it is compiled for.
pub(super) fn detect() -> Option<&'static Table> {
    avx512::detect().map(|_| &TABLE)
}

/// Whether this processor gains by it. AMD's add in all four parts of their vector unit and multiply in two; Intel's with
/// two such parts do either in both, and would wait for the additions.
pub(super) fn pays() -> bool {
    let vendor = __cpuid(0);
    [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD"
}

/// Pairs of columns that a step multiplies.
const STEP: usize = 8;
/// So many of them by the identity, two pairs at a time; the rest as they are, while additions keep the other parts busy.
const EXCHANGED: usize = 6;

/// Sixteen tokens' pairs of 16-bit numbers, or the first eight's.
trait Words: Copy {
    fn load(line: &[u8; 64]) -> Self;
    fn splat(sum: i32) -> Self;
    /// A row's two weights.
    #[inline(always)]
    fn pair(weights: [u8; 4]) -> Self {
        Self::splat(i32::from_le_bytes(weights))
    }
    /// Each 16-bit number.
    fn plus(self, other: Self) -> Self;
    /// Adds a pair's two products to each 32-bit sum.
    fn add_pairs(self, a: Self, b: Self) -> Self;
    /// Each 32-bit sum.
    fn minus(self, other: Self) -> Self;
    /// Sums of sixteen tokens; of the upper eight they are 0 if there are none.
    fn sums(self) -> __m512i;
}

macro_rules! words {
    ($register:ty, $class:ident, $load:ident, $splat:ident, $plus:ident, $add_pairs:ident, $minus:ident, $sums:expr) => {
        /// Left to itself, the compiler makes two instructions of one where it thinks that sums wait for each other.
        #[inline]
        #[target_feature(enable = "avx512f,avx512vl,avx512vnni")]
        fn $add_pairs(mut sums: $register, a: $register, b: $register) -> $register {
            // SAFETY: nothing but the register is written.
            unsafe {
                asm!(
                    "vpdpwssd {sums}, {a}, {b}",
                    sums = inout($class) sums, a = in($class) a, b = in($class) b,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
            sums
        }

        impl Words for $register {
            #[inline(always)]
            fn load(line: &[u8; 64]) -> Self {
                // SAFETY: a line is no shorter than a register; used only in functions compiled for AVX-512 with VNNI, as all here.
                unsafe { $load(line.as_ptr().cast()) }
            }
            #[inline(always)]
            fn splat(sum: i32) -> Self {
                // SAFETY: as in `load`.
                unsafe { $splat(sum) }
            }
            #[inline(always)]
            fn plus(self, other: Self) -> Self {
                // SAFETY: as in `load`.
                unsafe { $plus(self, other) }
            }
            #[inline(always)]
            fn add_pairs(self, a: Self, b: Self) -> Self {
                // SAFETY: as in `load`.
                unsafe { $add_pairs(self, a, b) }
            }
            #[inline(always)]
            fn minus(self, other: Self) -> Self {
                // SAFETY: as in `load`.
                unsafe { $minus(self, other) }
            }
            #[inline(always)]
            fn sums(self) -> __m512i {
                $sums(self)
            }
        }
    };
}
words!(
    __m512i,
    zmm_reg,
    _mm512_loadu_si512,
    _mm512_set1_epi32,
    _mm512_add_epi16,
    sixteen,
    _mm512_sub_epi32,
    std::convert::identity
);
words!(
    __m256i,
    ymm_reg,
    _mm256_loadu_si256,
    _mm256_set1_epi32,
    _mm256_add_epi16,
    eight,
    _mm256_sub_epi32,
    // SAFETY: as in `load`.
    |lower| unsafe { _mm512_zextsi256_si512(lower) }
);

struct Winograd;

impl Add for Winograd {
    #[inline(always)]
    fn add<const MINIMA: usize>(rows: &[RowTile], tokens: &[TokenTile], sums: &mut [Lane]) {
        let mut own = [[0; ROWS]; TILES];
        for (own, w) in own[..rows.len()].iter_mut().zip(rows) {
            *own = of_rows(w);
        }
        for (x, sums) in tokens.iter().zip(sums.chunks_exact_mut(rows.len() * ROWS)) {
            if x.is_half() {
                add_tile::<__m256i, MINIMA>(rows, &own, x, sums);
            } else {
                add_tile::<__m512i, MINIMA>(rows, &own, x, sums);
            }
        }
    }
}

#[inline(always)]
fn add_tile<W: Words, const MINIMA: usize>(
    rows: &[RowTile],
    own: &[[i32; ROWS]; TILES],
    x: &TokenTile,
    sums: &mut [Lane],
) {
    let tokens = of_tokens::<W>(x);
    for ((w, own), sums) in rows.iter().zip(own).zip(sums.as_chunks_mut::<ROWS>().0) {
        for first in (0..ROWS).step_by(TOGETHER) {
            let mut products = [tokens; TOGETHER];
            for r in 0..TOGETHER {
                let own = W::splat(own[first + r]);
                products[r] = [tokens[0].minus(own), tokens[1].minus(own)];
            }
            multiply(w, first, x, &mut products);
            for r in 0..TOGETHER {
                let [high, low] = products[r];
                // SAFETY: used only in functions compiled for AVX-512.
                let whole: Avx512 = unsafe { joined::<12>(high.sums(), low.sums()) };
                finish(whole, w, first + r, x, MINIMA, &mut sums[first + r]);
            }
        }
    }
}

/// Adds some rows' products with the high and the low digits of the tokens' numbers.
#[inline(always)]
fn multiply<W: Words>(w: &RowTile, first: usize, x: &TokenTile, sums: &mut [[W; 2]; TOGETHER]) {
    let mut rows = [&[[0u8; 4]; 0] as &[[u8; 4]]; TOGETHER];
    for (r, row) in rows.iter_mut().enumerate() {
        *row = w.lines[8 * (first + r)..][..8].as_flattened().as_chunks().0;
    }
    let (high, low) = x.lines.split_at(COLUMNS / 2);
    for step in (0..COLUMNS / 2).step_by(STEP) {
        for k in (step..step + EXCHANGED).step_by(2) {
            let (x_high, x_low) = (W::load(&high[k]), W::load(&low[k]));
            let (next_high, next_low) = (W::load(&high[k + 1]), W::load(&low[k + 1]));
            for r in 0..TOGETHER {
                let (w, next) = (W::pair(rows[r][k]), W::pair(rows[r][k + 1]));
                sums[r][0] = sums[r][0].add_pairs(x_high.plus(next), next_high.plus(w));
                sums[r][1] = sums[r][1].add_pairs(x_low.plus(next), next_low.plus(w));
            }
        }
        for k in step + EXCHANGED..step + STEP {
            let (x_high, x_low) = (W::load(&high[k]), W::load(&low[k]));
            for r in 0..TOGETHER {
                let w = W::pair(rows[r][k]);
                sums[r][0] = sums[r][0].add_pairs(w, x_high);
                sums[r][1] = sums[r][1].add_pairs(w, x_low);
            }
        }
    }
}

/// Less the sums of `x₀x₁`, of the high digits and of the low ones.
#[inline(always)]
fn of_tokens<W: Words>(x: &TokenTile) -> [W; 2] {
    // Several sums each, so that one waits while another adds.
    let mut sums = [[W::splat(0); EXCHANGED / 2]; 2];
    let (high, low) = x.lines.split_at(COLUMNS / 2);
    for step in (0..COLUMNS / 2).step_by(STEP) {
        for (lines, sums) in [high, low].into_iter().zip(&mut sums) {
            for (sum, k) in sums.iter_mut().zip((step..).step_by(2)) {
                *sum = sum.add_pairs(W::load(&lines[k]), W::load(&lines[k + 1]));
            }
        }
    }
    let mut less = [W::splat(0); 2];
    for (less, sums) in less.iter_mut().zip(sums) {
        for sum in sums {
            *less = less.minus(sum);
        }
    }
    less
}

/// The sums of `w₀w₁` of each row.
#[inline(always)]
fn of_rows(w: &RowTile) -> [i32; ROWS] {
    /// The first of every two pairs that are exchanged, of a line's.
    const FIRSTS: __mmask16 = {
        let (mut firsts, mut pair) = (0, 0);
        while pair < 16 {
            if pair % STEP < EXCHANGED {
                firsts |= 1 << pair;
            }
            pair += 2;
        }
        firsts
    };
    let mut sums = [0; ROWS];
    for (sum, row) in sums.iter_mut().zip(w.lines.as_chunks::<8>().0) {
        // SAFETY: 64 bytes are a register; used only in functions compiled for AVX-512 with VNNI.
        unsafe {
            let mut lanes = _mm512_setzero_si512();
            for line in row {
                let pairs = _mm512_loadu_si512(line.as_ptr().cast());
                let nexts = _mm512_shuffle_epi32::<0b10_11_00_01>(pairs);
                lanes = _mm512_dpwssd_epi32(lanes, _mm512_maskz_mov_epi32(FIRSTS, pairs), nexts);
            }
            *sum = _mm512_reduce_add_epi32(lanes);
        }
    }
    sums
}

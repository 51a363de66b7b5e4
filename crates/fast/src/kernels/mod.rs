//! Everything that is compiled once for each instruction set, and the one home of `unsafe` in this crate.
//!
//! [`Table`] lists the functions; `scalar` is the definition that the others are tested against. A table is only handed
//! out if the processor can run it, which is what every call of a function compiled for an instruction set relies on.

#[cfg(target_arch = "x86_64")]
mod amx;
pub(crate) mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx2_rows;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_grids;
#[cfg(target_arch = "x86_64")]
mod avx512_rows;
#[cfg(target_arch = "x86_64")]
mod avx512_tiles;
#[cfg(target_arch = "x86_64")]
mod avx512_units;
pub(crate) mod digits;
pub(crate) mod fixed;
mod grids;
pub(crate) mod lane;
pub(crate) mod plain;
mod scalar;
mod short_blocks;
pub(crate) mod superblock;
pub(crate) mod team;
mod ternary;
#[cfg(test)]
mod tests;
pub(crate) mod tile;
#[cfg(target_arch = "x86_64")]
mod winograd;

use ndarray::ArrayViewMut2;

use attention::{Cache, Queries, Room};
use digits::{Chunk, Coding, Digits, Layout};
use fixed::{COLUMNS, TOKENS, TokenTile};
use lane::Lane;
use plain::DeltaHead;
use superblock::{RowTile, Super};
use tile::{Panel, TOGETHER, Tokens};

/// Quantized rows times a token's digits, a sum each.
pub(crate) type Rows = fn(&[&[u8]], Digits<'_>, &mut [f32]);
/// Rows of plain numbers times a token.
pub(crate) type Numbers = fn([&[u8]; TOGETHER], &[Lane]) -> [f32; TOGETHER];

#[allow(clippy::type_complexity, reason = "signatures as they are in the modules")]
/// The functions of one instruction set. Their meaning is that of the same names in `plain`, `tile` and `attention`.
pub(crate) struct Table {
    name: &'static str,
    /// Tokens of a tile of [`Table::product`].
    pub tile_tokens: usize,
    pub product: fn(&Panel<'_>, Tokens<'_>, &mut ArrayViewMut2<'_, f32>, &mut Vec<Lane>),
    pub row_f32: Numbers,
    pub row_f16: Numbers,
    pub row_bf16: Numbers,
    pub rows_q4_0: Rows,
    pub rows_q8_0: Rows,
    pub rows_q2_k: Rows,
    pub rows_q3_k: Rows,
    pub rows_q4_k: Rows,
    pub rows_q5_k: Rows,
    pub rows_q6_k: Rows,
    pub rows_iq4_nl: Rows,
    pub rows_iq4_xs: Rows,
    pub rows_q4_1: Rows,
    pub rows_q5_0: Rows,
    pub rows_q5_1: Rows,
    pub rows_mxfp4: Rows,
    pub rows_nvfp4: Rows,
    pub rows_q1_0: Rows,
    pub rows_q2_0: Rows,
    pub rows_tq1_0: Rows,
    pub rows_tq2_0: Rows,
    pub rows_iq1_s: Rows,
    pub rows_iq1_m: Rows,
    pub rows_iq2_xxs: Rows,
    pub rows_iq2_xs: Rows,
    pub rows_iq2_s: Rows,
    pub rows_iq3_xxs: Rows,
    pub rows_iq3_s: Rows,
    pub pack: fn(&[f32], Layout, &mut [Chunk], &mut [Lane]),
    pub fix_tokens: fn(&[[f32; COLUMNS]; TOKENS], &mut TokenTile),
    pub open_row: fn(Super, &[u8], usize, &mut RowTile),
    pub add_superblock: fn(&[RowTile], &[TokenTile], usize, &mut [Lane]),
    pub scatter: fn(&[Lane], &mut ArrayViewMut2<'_, f32>),
    pub dot: fn(&[f32], &[f32]) -> f32,
    pub rms_norm: fn(&[f32], &[f32], f64, &mut [f32]),
    pub gated_norm: fn(&[f32], &[f32], f64, &[f32], &mut [f32]),
    pub l2_norm: fn(&mut [f32], f64),
    pub silu_product: fn(&[f32], &mut [f32]),
    pub sigmoid_product: fn(&[f32], &[f32], &mut [f32]),
    pub add: fn(&[f32], &[f32], &mut [f32]),
    pub add_scaled: fn(&mut [f32], f32, &[f32]),
    pub convolve: fn(&[&[f32]], &[&[f32]], &mut [f32]),
    pub delta_rule: fn(&DeltaHead<'_>, &mut [f64], &mut [f32]),
    pub attend: fn(&Queries<'_>, &Cache<'_, [f32]>, &mut Room, &mut [&mut [f32]]),
    pub attend_f16: fn(&Queries<'_>, &Cache<'_, [u8]>, &mut Room, &mut [&mut [f32]]),
}

impl Table {
    pub(crate) fn rows(&self, coding: Coding) -> Rows {
        match coding {
            Coding::Q4_0 => self.rows_q4_0,
            Coding::Q8_0 => self.rows_q8_0,
            Coding::Q2K => self.rows_q2_k,
            Coding::Q3K => self.rows_q3_k,
            Coding::Q4K => self.rows_q4_k,
            Coding::Q5K => self.rows_q5_k,
            Coding::Q6K => self.rows_q6_k,
            Coding::Iq4Nl => self.rows_iq4_nl,
            Coding::Iq4Xs => self.rows_iq4_xs,
            Coding::Q4_1 => self.rows_q4_1,
            Coding::Q5_0 => self.rows_q5_0,
            Coding::Q5_1 => self.rows_q5_1,
            Coding::Mxfp4 => self.rows_mxfp4,
            Coding::Nvfp4 => self.rows_nvfp4,
            Coding::Q1_0 => self.rows_q1_0,
            Coding::Q2_0 => self.rows_q2_0,
            Coding::Tq1_0 => self.rows_tq1_0,
            Coding::Tq2_0 => self.rows_tq2_0,
            Coding::Iq1S => self.rows_iq1_s,
            Coding::Iq1M => self.rows_iq1_m,
            Coding::Iq2Xxs => self.rows_iq2_xxs,
            Coding::Iq2Xs => self.rows_iq2_xs,
            Coding::Iq2S => self.rows_iq2_s,
            Coding::Iq3Xxs => self.rows_iq3_xxs,
            Coding::Iq3S => self.rows_iq3_s,
        }
    }

    /// For encodings of plain numbers that need no decoding worth the name.
    pub(crate) fn numbers(&self, encoding: codec::Encoding) -> Option<Numbers> {
        match encoding {
            codec::Encoding::F32 => Some(self.row_f32),
            codec::Encoding::F16 => Some(self.row_f16),
            codec::Encoding::BF16 => Some(self.row_bf16),
            _ => None,
        }
    }
}

/// Compiles the functions of `plain`, `tile` and `attention` for an instruction set and makes their table: lanes, rows
/// and tokens of a tile, columns of the delta rule, queries and lane groups of values in attention.
macro_rules! table {
    ($name:literal, $(#[$feature:meta])* $lanes:ty, $rows:literal x $tokens:literal, $columns:literal,
        $queries:literal x $groups:literal,
        fix = $fix:expr, open = $open_row:expr, scatter = $scatter:expr, $($rows_of:ident = $row:expr),* $(,)?) => {
        table!(@functions [$(#[$feature])*]
            product(w: &Panel<'_>, x: Tokens<'_>, out: &mut ArrayViewMut2<'_, f32>, sums: &mut Vec<Lane>)
                = tile::product::<$lanes, $rows, $tokens>;
            $($rows_of(rows: &[&[u8]], x: Digits<'_>, y: &mut [f32]) = digits::each, |row, x| $row(row, x);)*
            row_f32(rows: [&[u8]; TOGETHER], x: &[Lane]) -> [f32; TOGETHER] = tile::numbers::<$lanes, tile::F32>;
            row_f16(rows: [&[u8]; TOGETHER], x: &[Lane]) -> [f32; TOGETHER] = tile::numbers::<$lanes, tile::F16>;
            row_bf16(rows: [&[u8]; TOGETHER], x: &[Lane]) -> [f32; TOGETHER] = tile::numbers::<$lanes, tile::Bf16>;
            pack(x: &[f32], layout: Layout, chunks: &mut [Chunk], minus: &mut [Lane]) = digits::pack;
            fix_tokens(x: &[[f32; COLUMNS]; TOKENS], to: &mut TokenTile) = $fix;
            open_row(coding: Super, block: &[u8], r: usize, tile: &mut RowTile) = $open_row;
            add_superblock(rows: &[RowTile], tokens: &[TokenTile], minima: usize, sums: &mut [Lane])
                = superblock::add::<superblock::InRows<$lanes>>;
            scatter(sums: &[Lane], out: &mut ArrayViewMut2<'_, f32>) = $scatter;
            dot(a: &[f32], b: &[f32]) -> f32 = tile::dot::<$lanes>;
            rms_norm(x: &[f32], gain: &[f32], eps: f64, y: &mut [f32]) = plain::rms_norm;
            gated_norm(x: &[f32], gain: &[f32], eps: f64, z: &[f32], y: &mut [f32]) = plain::gated_norm;
            l2_norm(x: &mut [f32], scale: f64) = plain::l2_norm;
            silu_product(gate: &[f32], y: &mut [f32]) = plain::silu_product;
            sigmoid_product(x: &[f32], gate: &[f32], y: &mut [f32]) = plain::sigmoid_product;
            add(a: &[f32], b: &[f32], y: &mut [f32]) = plain::add;
            add_scaled(y: &mut [f32], scale: f32, x: &[f32]) = plain::add_scaled;
            convolve(rows: &[&[f32]], taps: &[&[f32]], y: &mut [f32]) = plain::convolve;
            delta_rule(head: &DeltaHead<'_>, state: &mut [f64], out: &mut [f32])
                = plain::delta_rule::<$lanes, $columns>;
            attend(queries: &Queries<'_>, cache: &Cache<'_, [f32]>, room: &mut Room, out: &mut [&mut [f32]])
                = attention::attend::<$lanes, $queries, $groups, [f32]>;
            attend_f16(queries: &Queries<'_>, cache: &Cache<'_, [u8]>, room: &mut Room, out: &mut [&mut [f32]])
                = attention::attend::<$lanes, $queries, $groups, [u8]>;
        );

        pub(super) const TABLE: Table = Table {
            name: $name,
            tile_tokens: $tokens,
            $($rows_of,)* row_f32, row_f16, row_bf16, pack, fix_tokens, open_row, add_superblock, scatter,
            product, dot, rms_norm, gated_norm, l2_norm, silu_product, sigmoid_product, add, add_scaled, convolve,
            delta_rule, attend, attend_f16,
        };
    };
    (@functions $features:tt
        $($function:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? = $body:expr $(, $more:expr)?;)*) => {
        $(table!(@function $features $function($($argument: $type),*) $(-> $result)? = $body $(, $more)?);)*
    };
    (@function [$(#[$feature:meta])*]
        $function:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? = $body:expr $(, $more:expr)?) => {
        fn $function($($argument: $type),*) $(-> $result)? {
            $(#[$feature])*
            fn compiled($($argument: $type),*) $(-> $result)? {
                $body($($argument),* $(, $more)?)
            }
            #[allow(unused_unsafe, reason = "the scalar table needs no instruction set")]
            // SAFETY: the table that holds this function is only handed out where the processor has the features.
            unsafe { compiled($($argument),*) }
        }
    };
}
use table;

/// Asks the second-level cache for the line at an address, which may be any.
#[inline(always)]
fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing, wherever it points.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// An instruction set that the kernels are compiled for, which this processor has.
#[derive(Clone, Copy)]
pub struct Kernels(&'static Table);

impl Kernels {
    /// Every instruction set that this processor can run, slowest first.
    pub fn all() -> Vec<Kernels> {
        let mut all = vec![Kernels(&scalar::TABLE)];
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(avx2::detect().map(Kernels));
            let mut registers = [winograd::detect(), avx512::detect()];
            if winograd::pays() {
                registers.reverse();
            }
            all.extend(registers.into_iter().flatten().map(Kernels));
            all.extend(amx::detect().map(Kernels));
        }
        all
    }

    /// The fastest, or the one that `ETALON_KERNELS` names if this processor can run it.
    pub fn detect() -> Kernels {
        let all = Kernels::all();
        let fastest = all[all.len() - 1];
        match std::env::var("ETALON_KERNELS") {
            Ok(name) => all.into_iter().find(|k| k.name() == name).unwrap_or(fastest),
            Err(_) => fastest,
        }
    }

    /// As `ETALON_KERNELS` spells it.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    pub(crate) fn table(self) -> &'static Table {
        self.0
    }
}

impl std::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

//! Instructions that safe code lacks, behind safe functions: sums of products of whole numbers on a processor's tiles
//! (AMX), which are exact and the same in any order, and prefetching. Nothing here rounds.
#![deny(unsafe_code)]

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
#[path = "no_amx.rs"]
mod amx;
mod digits;
mod prefetch;

pub use amx::{Amx, Configured};
pub use digits::{LEFT, LOWEST, MOST_STEPS, ORDERS, RIGHT};
pub use prefetch::prefetch;

/// Bytes in a line of a tile.
pub const LINE: usize = 64;

/// Lines of a tile.
pub const LINES: usize = 16;

/// Sixteen lines of bytes: numbers of sixteen rows, 64 columns each; or, as the right operand, of 64 rows and sixteen
/// columns, four rows a line, a column's four together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Tile(pub [[i8; LINE]; LINES]);

/// Sixteen lines of sums: those of a left tile's rows by a right tile's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Sums(pub [[i32; LINES]; LINES]);

impl Tile {
    /// All zeros.
    pub const ZERO: Tile = Tile([[0; LINE]; LINES]);
}

impl Sums {
    /// All zeros.
    pub const ZERO: Sums = Sums([[0; LINES]; LINES]);
}

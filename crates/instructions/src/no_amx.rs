//! Processors and systems without tiles.

use crate::{LEFT, ORDERS, RIGHT, Sums, Tile};

/// Leave to use tiles, which nobody has here.
#[derive(Clone, Copy, Debug)]
pub enum Amx {}

/// Tiles in use, which nobody has here.
#[derive(Debug)]
pub enum Configured {}

impl Amx {
    /// None.
    pub fn detect() -> Option<Amx> {
        None
    }

    /// Never called.
    pub fn configure(self) -> Configured {
        match self {}
    }
}

impl Configured {
    /// Never called.
    pub fn multiply(
        &mut self,
        _: &[[Tile; LEFT]],
        _: &[[Tile; RIGHT]],
        _: &mut [Sums; ORDERS],
        _: impl FnMut(),
    ) {
        match *self {}
    }
}

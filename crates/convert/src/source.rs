//! Where the rows of weights come from.

use codec::Encoding;
use model::layout::Role;
use model::{Place, Tiling};

use crate::form::Held;

/// Something that has weights.
pub trait Source: Sync {
    /// The rows of a weight; `None` if it has no such weight.
    fn weight(&self, place: Place, role: Role) -> Option<Box<dyn Rows + '_>>;
}

/// A weight, by rows in canonical order.
pub trait Rows: Send + Sync {
    /// As what values its rows come.
    fn held(&self) -> Held;

    /// Reads canonical row `row`, with its columns in canonical order. `scratch` is working space, of any length.
    fn read(&self, row: usize, out: &mut [f32], scratch: &mut Vec<f32>);

    /// The bytes of canonical row `row` where they lie, if it lies anywhere and its values are all that they say.
    fn stored(&self, _row: usize) -> Option<StoredRow<'_>> {
        None
    }
}

/// A row as it lies in a file.
#[derive(Clone, Copy)]
pub struct StoredRow<'a> {
    /// The bytes of the whole tensor.
    pub tensor: &'a [u8],
    /// Where in them the row starts.
    pub start: usize,
    /// How many of them it has.
    pub len: usize,
    /// What they are.
    pub encoding: Encoding,
    /// In which order they have the columns; `None` is the canonical one.
    pub columns: Option<Tiling>,
}

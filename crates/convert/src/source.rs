//! Where the rows of weights come from.

use model::Place;
use model::layout::Role;

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
}

//! Offers named activations to a tap.

use ndarray::{Array2, ArrayView2};
use trace::{Extent, Tap, TapError, ValuesRef, View};

/// A tap, and the module path that the names offered to it begin with.
pub(crate) struct Points<'t> {
    tap: &'t mut dyn Tap,
    prefix: String,
}

impl<'t> Points<'t> {
    pub(crate) fn new(tap: &'t mut dyn Tap, prefix: String) -> Points<'t> {
        Points { tap, prefix }
    }

    /// Offers a record, which is made only for a tap that wants it.
    pub(crate) fn offer<'v>(
        &mut self,
        name: &str,
        shape: &[usize],
        extent: Extent,
        values: impl FnOnce() -> std::borrow::Cow<'v, [f32]>,
    ) -> Result<(), TapError> {
        let name = format!("{}{name}", self.prefix);
        if !self.tap.wants(&name) {
            return Ok(());
        }
        self.tap.record(&name, View { shape, values: ValuesRef::F32(&values()), extent })
    }

    /// One row a token.
    pub(crate) fn rows(&mut self, name: &str, rows: &Array2<f32>) -> Result<(), TapError> {
        self.shaped(name, rows, rows.shape())
    }

    /// One row a token, of more axes than one.
    pub(crate) fn shaped(&mut self, name: &str, rows: &Array2<f32>, shape: &[usize]) -> Result<(), TapError> {
        self.offer(name, shape, Extent::Tokens, || slice(rows).into())
    }

    /// One row of whole numbers a token.
    pub(crate) fn indices(&mut self, name: &str, rows: ArrayView2<'_, i64>) -> Result<(), TapError> {
        let name = format!("{}{name}", self.prefix);
        if !self.tap.wants(&name) {
            return Ok(());
        }
        let values = ValuesRef::I64(rows.as_slice().expect("made in standard layout"));
        self.tap.record(&name, View { shape: rows.shape(), values, extent: Extent::Tokens })
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.tap.wants(&format!("{}{name}", self.prefix))
    }
}

/// The values of rows, row-major.
pub(crate) fn slice(rows: &Array2<f32>) -> &[f32] {
    rows.as_slice().expect("activations are made in standard layout")
}

/// The values of rows, row-major.
pub(crate) fn slice_mut(rows: &mut Array2<f32>) -> &mut [f32] {
    rows.as_slice_mut().expect("activations are made in standard layout")
}

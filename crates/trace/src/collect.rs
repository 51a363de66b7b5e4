//! Keeps what a pass records in memory.

use std::collections::HashMap;

use crate::tap::{Extent, Tap, TapError, View, ViewError};
use crate::tensor::Tensor;
use crate::{GlobError, Globs, Trace};

/// A tap that keeps the points its patterns match.
pub struct Collect {
    globs: Globs,
    tokens: Option<Vec<i64>>,
    points: Vec<(String, Extent, Tensor)>,
    index: HashMap<String, usize>,
}

impl Collect {
    /// Keeps the points that any of `patterns` matches (see [`Globs`]).
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Collect, GlobError> {
        Ok(Collect { globs: Globs::new(patterns)?, tokens: None, points: Vec::new(), index: HashMap::new() })
    }

    /// Keeps every point.
    pub fn all() -> Collect {
        Collect::new(&["*"]).expect("`*` is a glob")
    }

    /// Says which tokens the pass runs on; the trace will carry them.
    pub fn with_tokens(mut self, tokens: Vec<i64>) -> Collect {
        self.tokens = Some(tokens);
        self
    }

    /// The trace recorded so far, points in the order in which they first came.
    pub fn into_trace(self) -> Trace {
        let points = self.points.into_iter().map(|(name, _, tensor)| (name, tensor)).collect();
        Trace::from_tensors(self.tokens, points)
    }

    fn merge(&mut self, name: &str, view: View<'_>) -> Result<(), ViewError> {
        view.check()?;
        let Some(&at) = self.index.get(name) else {
            self.index.insert(name.to_owned(), self.points.len());
            let tensor = Tensor { shape: view.shape.to_vec(), values: view.values.to_values() };
            self.points.push((name.to_owned(), view.extent, tensor));
            return Ok(());
        };
        let (_, extent, held) = &mut self.points[at];
        let changed = || ViewError::Changed { before: held.shape.clone(), now: view.shape.to_vec() };
        if *extent != view.extent || held.shape.len() != view.shape.len() {
            return Err(changed());
        }
        match view.extent {
            Extent::State => {
                held.shape = view.shape.to_vec();
                held.values = view.values.to_values();
            }
            Extent::Tokens => {
                if held.shape[1..] != view.shape[1..] || !held.values.extend(view.values) {
                    return Err(ViewError::Changed { before: held.shape.clone(), now: view.shape.to_vec() });
                }
                held.shape[0] += view.shape[0];
            }
        }
        Ok(())
    }
}

impl Tap for Collect {
    fn wants(&self, name: &str) -> bool {
        self.globs.matches(name)
    }

    fn record(&mut self, name: &str, view: View<'_>) -> Result<(), TapError> {
        self.merge(name, view).map_err(|e| TapError::new(name, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{Values, ValuesRef};

    fn f32s<'a>(shape: &'a [usize], values: &'a [f32], extent: Extent) -> View<'a> {
        View { shape, values: ValuesRef::F32(values), extent }
    }

    #[test]
    fn token_rows_append_and_states_replace() {
        let mut tap = Collect::all().with_tokens(vec![5, 6, 7]);
        tap.record("x", f32s(&[2, 2], &[1., 2., 3., 4.], Extent::Tokens)).unwrap();
        tap.record("s", f32s(&[1], &[1.], Extent::State)).unwrap();
        tap.record("x", f32s(&[1, 2], &[5., 6.], Extent::Tokens)).unwrap();
        tap.record("s", f32s(&[1], &[2.], Extent::State)).unwrap();
        let trace = tap.into_trace();
        assert_eq!(trace.names().collect::<Vec<_>>(), ["x", "s"]);
        assert_eq!(trace.tokens(), Some(&[5, 6, 7][..]));
        let x = trace.get("x").unwrap();
        assert_eq!(x, Tensor { shape: vec![3, 2], values: Values::F32(vec![1., 2., 3., 4., 5., 6.]) });
        assert_eq!(trace.info("x").unwrap().shape, [3, 2]);
        assert_eq!(trace.get("s").unwrap().values, Values::F32(vec![2.]));
        assert!(trace.get("y").unwrap_err().to_string().contains("`y`"));
    }

    #[test]
    fn only_matching_points_are_wanted() {
        let tap = Collect::new(&["*.mlp"]).unwrap();
        assert!(tap.wants("model.layers.0.mlp"));
        assert!(!tap.wants("model.layers.0"));
    }

    #[test]
    fn records_that_change_their_kind_are_refused() {
        let mut tap = Collect::all();
        tap.record("x", f32s(&[1, 2], &[1., 2.], Extent::Tokens)).unwrap();
        let wider = f32s(&[1, 3], &[1., 2., 3.], Extent::Tokens);
        let state = f32s(&[1, 2], &[1., 2.], Extent::State);
        let doubles = View { shape: &[1, 2], values: ValuesRef::F64(&[1., 2.]), extent: Extent::Tokens };
        for view in [wider, state, doubles] {
            let error = tap.record("x", view).unwrap_err();
            assert_eq!(error.point, "x");
            assert!(error.to_string().contains("[1, 2]"), "{error}");
        }
        assert_eq!(tap.into_trace().get("x").unwrap().shape, [1, 2]);
    }
}

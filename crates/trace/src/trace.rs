//! A finished set of named tensors.

use std::collections::HashMap;

use crate::Error;
use crate::tensor::{Tensor, Values};

/// Element type of a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum Dtype {
    F16,
    BF16,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    Bool,
}

/// What is known of a tensor without reading its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointInfo {
    /// Lengths of the axes, outermost first.
    pub shape: Vec<usize>,
    /// Element type as stored.
    pub dtype: Dtype,
}

/// Named tensors in execution order, with the tokens they belong to.
#[derive(Debug)]
pub struct Trace {
    names: Vec<String>,
    infos: HashMap<String, PointInfo>,
    tokens: Option<Vec<i64>>,
    held: HashMap<String, Tensor>,
}

impl Trace {
    /// A trace held in memory; `points` in execution order.
    pub fn from_tensors(tokens: Option<Vec<i64>>, points: Vec<(String, Tensor)>) -> Trace {
        let names = points.iter().map(|(name, _)| name.clone()).collect();
        let info = |t: &Tensor| PointInfo {
            shape: t.shape.clone(),
            dtype: match t.values {
                Values::F32(_) => Dtype::F32,
                Values::F64(_) => Dtype::F64,
                Values::I64(_) => Dtype::I64,
            },
        };
        let infos = points.iter().map(|(name, t)| (name.clone(), info(t))).collect();
        Trace { names, infos, tokens, held: points.into_iter().collect() }
    }

    /// The points' names in execution order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// Shape and element type of a point; `None` if the trace does not hold it.
    pub fn info(&self, name: &str) -> Option<&PointInfo> {
        self.infos.get(name)
    }

    /// The values of a point.
    pub fn get(&self, name: &str) -> Result<Tensor, Error> {
        let missing = || Error::NoSuchPoint { name: name.to_owned(), available: self.names.len() };
        self.held.get(name).cloned().ok_or_else(missing)
    }

    /// The token ids the values belong to, if the trace says.
    pub fn tokens(&self) -> Option<&[i64]> {
        self.tokens.as_deref()
    }
}

//! Memory for eight values at a time.

use std::ops::{Deref, DerefMut};

use crate::dot::{LANES, Lane};

/// Lane groups that begin where cache lines do, so that no load takes two.
#[derive(Default)]
pub(crate) struct Lanes {
    values: Vec<f64>,
    start: usize,
    len: usize,
}

impl Lanes {
    /// Bytes in a cache line, which is a lane group.
    const LINE: usize = size_of::<Lane>();

    pub(crate) fn zeros(len: usize) -> Lanes {
        let values = vec![0.0; (len + 1) * LANES];
        let start = values.as_ptr().align_offset(Self::LINE);
        Lanes { values, start, len }
    }

    /// Makes room for `len` groups, of any content.
    pub(crate) fn resize(&mut self, len: usize) {
        if self.values.len() < (len + 1) * LANES {
            *self = Lanes::zeros(len);
        }
        self.len = len;
    }
}

impl Deref for Lanes {
    type Target = [Lane];

    fn deref(&self) -> &[Lane] {
        self.values[self.start..][..self.len * LANES].as_chunks().0
    }
}

impl DerefMut for Lanes {
    fn deref_mut(&mut self) -> &mut [Lane] {
        self.values[self.start..][..self.len * LANES].as_chunks_mut().0
    }
}

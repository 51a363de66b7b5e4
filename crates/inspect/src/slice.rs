//! A part of a tensor, chosen as in Python: `0:4,:8`, `3`, `::2,-1`.

use std::ops::Range;

use format::{TensorInfo, TensorSource};

use crate::error::Error;

/// Which entries of each axis, in PyTorch's order. Axes that are not named are whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    text: String,
    axes: Vec<Axis>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Axis {
    /// One entry; the axis goes.
    At(i64),
    Range {
        start: Option<i64>,
        end: Option<i64>,
        step: u64,
    },
}

/// Values that were picked, in PyTorch's order.
#[derive(Clone, Debug, PartialEq)]
pub struct Picked {
    /// Outermost first, without the axes of which one entry was picked.
    pub shape: Vec<usize>,
    /// The same, with the axes of which only both ends are here shortened to [`EDGES`] twice.
    pub held: Vec<usize>,
    /// The values that are held.
    pub values: Vec<f32>,
}

/// Entries at both ends of an axis that an outline holds.
pub const EDGES: usize = 3;
/// Rows of which [`Slice::places`] gives positions.
const PLACES: usize = 16;
/// An outline is made of more values than this, as in PyTorch.
const OUTLINED: usize = 1000;

impl Slice {
    /// Everything.
    pub fn all() -> Slice {
        Slice { text: String::new(), axes: Vec::new() }
    }

    /// Parses a slice as Python writes it, in brackets or not.
    pub fn parse(text: &str) -> Result<Slice, Error> {
        let fail =
            |why: &str| Error::Slice { slice: text.to_owned(), shape: "any shape".into(), why: why.into() };
        let inside = text.trim();
        let inside = inside.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(inside);
        let number = |part: &str| match part.trim() {
            "" => Ok(None),
            part => part.parse::<i64>().map(Some).map_err(|_| fail("expected whole numbers, such as 0:4,:8")),
        };
        let axis = |part: &str| -> Result<Axis, Error> {
            let pieces: Vec<&str> = part.split(':').collect();
            match pieces[..] {
                [at] => number(at)?
                    .map(Axis::At)
                    .ok_or_else(|| fail("an axis is empty; a colon stands for all of it")),
                [start, end] => Ok(Axis::Range { start: number(start)?, end: number(end)?, step: 1 }),
                [start, end, step] => match number(step)?.unwrap_or(1) {
                    step @ 1.. => {
                        Ok(Axis::Range { start: number(start)?, end: number(end)?, step: step as u64 })
                    }
                    _ => Err(fail("a step must be above zero")),
                },
                _ => Err(fail("more than two colons on one axis")),
            }
        };
        let axes = inside.split(',').map(axis).collect::<Result<_, _>>()?;
        Ok(Slice { text: text.to_owned(), axes })
    }

    /// The entries picked on each axis of a tensor of this shape, and whether the axis stays.
    fn resolve(&self, dims: &[u64]) -> Result<Vec<(Vec<u64>, bool)>, Error> {
        let fail = |why: String| Error::Slice { slice: self.text.clone(), shape: format!("{dims:?}"), why };
        if self.axes.len() > dims.len() {
            return Err(fail(format!("{} axes, the tensor has {}", self.axes.len(), dims.len())));
        }
        let mut picked = Vec::with_capacity(dims.len());
        for (at, &dim) in dims.iter().enumerate() {
            let len = i64::try_from(dim).map_err(|_| fail("too long an axis".to_owned()))?;
            let from_end = |n: i64| if n < 0 { n.saturating_add(len) } else { n };
            picked.push(match self.axes.get(at) {
                None => ((0..dim).collect(), true),
                Some(&Axis::At(n)) => {
                    let index = from_end(n);
                    if !(0..len).contains(&index) {
                        return Err(fail(format!("entry {n} of axis {at}, which has {dim}")));
                    }
                    (vec![index as u64], false)
                }
                Some(&Axis::Range { start, end, step }) => {
                    let bound =
                        |n: Option<i64>, otherwise: i64| n.map_or(otherwise, from_end).clamp(0, len) as u64;
                    let range: Range<u64> = bound(start, 0)..bound(end, len);
                    (range.step_by(usize::try_from(step).unwrap_or(usize::MAX)).collect(), true)
                }
            });
        }
        Ok(picked)
    }

    /// Picks values of a tensor. Only the rows that are needed are decoded. Of more than a thousand values an `outline`
    /// holds both ends of each axis.
    ///
    /// # Errors
    /// A slice that does not fit the tensor.
    pub fn pick(&self, source: &dyn TensorSource, info: &TensorInfo, outline: bool) -> Result<Picked, Error> {
        let dims = info.shape.dims();
        let elements = info.shape.elements().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        // The axes of an empty tensor can be longer than anything that could be walked.
        if elements == 0 {
            let shape: Vec<usize> =
                dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(usize::MAX)).collect();
            return Ok(Picked { held: shape.clone(), shape, values: Vec::new() });
        }
        let mut picked = self.resolve(dims)?;
        let lengths = |picked: &[(Vec<u64>, bool)]| -> Vec<usize> {
            picked.iter().filter(|(_, stays)| *stays).map(|(at, _)| at.len()).collect()
        };
        let shape = lengths(&picked);
        if outline && shape.iter().product::<usize>() > OUTLINED {
            for (at, _) in picked.iter_mut().filter(|(at, _)| at.len() > 2 * EDGES) {
                at.drain(EDGES..at.len() - EDGES);
            }
        }
        let held = lengths(&picked);
        let row_len = info.shape.row_len() as usize;
        let row_bytes = info.size as usize / (elements / row_len);
        let bytes = source.bytes(info);
        // A scalar has one row of one value.
        let (inner, outer) =
            picked.split_last().map_or((&[0][..], &[][..]), |((inner, _), outer)| (&inner[..], outer));
        let mut rows = vec![0u64];
        for ((at, _), &dim) in outer.iter().zip(dims) {
            rows = rows.iter().flat_map(|row| at.iter().map(move |i| row * dim + i)).collect();
        }
        let mut values = Vec::with_capacity(rows.len() * inner.len());
        let mut row_values = vec![0.0; row_len];
        for row in rows {
            let start = row as usize * row_bytes;
            let decoded =
                bytes.get(start..start + row_bytes).map(|row| info.encoding.decode(row, &mut row_values));
            if let Some(Ok(())) = decoded {
                values.extend(inner.iter().map(|&i| row_values[i as usize]));
            }
        }
        Ok(Picked { shape, held, values })
    }
}

impl Slice {
    /// Positions in the tensor of the first values that are picked, at most `PLACES` rows of them.
    ///
    /// # Errors
    /// A slice that does not fit the shape.
    pub fn places(&self, dims: &[u64]) -> Result<Vec<u64>, Error> {
        if dims.contains(&0) {
            return Ok(Vec::new());
        }
        let mut places = vec![0u64];
        for ((at, _), &dim) in self.resolve(dims)?.iter().zip(dims) {
            places = places
                .iter()
                .take(PLACES)
                .flat_map(|place| at.iter().map(move |i| place.saturating_mul(dim).saturating_add(*i)))
                .collect();
        }
        Ok(places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(slice: &str, dims: &[u64]) -> Result<Vec<(Vec<u64>, bool)>, Error> {
        Slice::parse(slice)?.resolve(dims)
    }

    #[test]
    fn slices_mean_what_python_means() {
        for (slice, first, stays) in [
            ("1:3", vec![1, 2], true),
            (":2", vec![0, 1], true),
            ("-2:", vec![3, 4], true),
            ("::2", vec![0, 2, 4], true),
            ("1:-1:2", vec![1, 3], true),
            ("[3]", vec![3], false),
            ("-1", vec![4], false),
            (":99", vec![0, 1, 2, 3, 4], true),
            ("4:1", vec![], true),
        ] {
            let found = picked(slice, &[5, 2]).unwrap();
            assert_eq!((&found[0].0, found[0].1), (&first, stays), "{slice}");
            assert_eq!(found[1], (vec![0, 1], true));
        }
        for wrong in ["", "a", "1:2:3:4", "::0", "::-1", "5", "-6", "0,0,0", ","] {
            assert!(picked(wrong, &[5, 2]).is_err(), "{wrong}");
        }
    }
}

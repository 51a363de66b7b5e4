//! Makes the bytes of tensors out of rows, on all threads, while what is done already is being written.
//!
//! Rows whose bytes the source has as they are to be are not decoded: long runs of them go from the mapping to the
//! sink, short ones are copied.

use std::ops::Range;

use codec::Encoding;
use rayon::prelude::*;

use crate::error::Error;
use crate::source::{Rows, Source, StoredRow};
use crate::target::{Part, Target};

/// Bytes made between two writes. Two such pieces are held at a time, whatever the size of the model.
const BATCH_BYTES: usize = 8 << 20;
/// Values that a thread makes at a time, in whole rows.
const PIECE_VALUES: usize = 1 << 15;
/// From this length on a run of stored rows is written from where it lies.
const RUN_BYTES: usize = 1 << 16;

/// What takes the bytes: a tensor's name, and what comes after the bytes it has so far.
pub type Sink<'a> = &'a mut (dyn FnMut(&str, &[u8]) -> Result<(), format::Error> + Send);

/// Bytes done, bytes in all.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// A tensor to be, and how it is to be encoded.
pub type Encoded = (Target, Encoding);

/// What encodes whole rows: the tensor, the number of the first one, their values, their bytes.
///
/// It is called for disjoint rows on several threads at once, in no order.
pub type Encode<'a> = &'a (dyn Fn(&Encoded, usize, &[f32], &mut [u8]) -> Result<(), Error> + Sync);

/// Encodes without importance weights.
///
/// # Errors
/// Values that the encoding does not hold.
pub fn plainly((target, encoding): &Encoded, _: usize, values: &[f32], out: &mut [u8]) -> Result<(), Error> {
    encoding.encode(values, None, out).map_err(|error| Error::Encode { tensor: target.name.clone(), error })
}

/// The bytes that tensors will have.
pub fn total_bytes(tensors: &[Encoded]) -> u64 {
    tensors.iter().map(|(target, encoding)| (row_bytes(target, *encoding) * target.rows()) as u64).sum()
}

/// Makes every tensor and hands it on, in order, as [`plainly`] encodes it.
///
/// # Errors
/// A weight that the source does not have, values that an encoding does not hold, or what the sink says.
pub fn run(
    tensors: &[Encoded],
    source: &dyn Source,
    sink: Sink<'_>,
    progress: Progress<'_>,
) -> Result<(), Error> {
    run_with(tensors, source, &plainly, sink, progress)
}

/// The same as `encode` encodes it, where the source does not have the very bytes.
///
/// # Errors
/// A weight that the source does not have, or what `encode` or the sink say.
pub fn run_with(
    tensors: &[Encoded],
    source: &dyn Source,
    encode: Encode<'_>,
    sink: Sink<'_>,
    progress: Progress<'_>,
) -> Result<(), Error> {
    let mut output =
        Output { sink, progress, ready: None, spare: Vec::new(), done: 0, total: total_bytes(tensors) };
    for tensor in tensors {
        let (target, encoding) = tensor;
        let rows = TargetRows::new(target, source)?;
        let row_bytes = row_bytes(target, *encoding);
        let batch_rows = (BATCH_BYTES / row_bytes).max(1);
        let mut start = 0;
        while start < target.rows() {
            let end = target.rows().min(start + batch_rows);
            if let Some(run) = rows.run(start..end, *encoding).filter(|run| run.len() >= RUN_BYTES) {
                start += run.len() / row_bytes;
                output.stored(&target.name, run)?;
                continue;
            }
            // Up to the next long run.
            let long = |&row: &usize| rows.run(row..end, *encoding).is_some_and(|run| run.len() >= RUN_BYTES);
            let end = rows.breaks(start + 1..end, *encoding).find(long).unwrap_or(end);
            let make = |out: &mut [u8]| make(tensor, &rows, start, encode, out);
            output.made(&target.name, (end - start) * row_bytes, make)?;
            start = end;
        }
    }
    output.finish()
}

/// Bytes of a row. Encodings are chosen so that rows have whole blocks.
fn row_bytes(target: &Target, encoding: Encoding) -> usize {
    match encoding.byte_len(target.cols() as u64) {
        Some(bytes) => bytes as usize,
        None => unreachable!("{}: rows of {} in {}", target.name, target.cols(), encoding.name()),
    }
}

/// What is made, and what is being written meanwhile.
struct Output<'a, 't> {
    sink: Sink<'a>,
    progress: Progress<'a>,
    ready: Option<(&'t str, Vec<u8>)>,
    spare: Vec<u8>,
    done: u64,
    total: u64,
}

impl<'t> Output<'_, 't> {
    /// Writes what is ready while `make` fills so many bytes, which are ready then.
    fn made(
        &mut self,
        name: &'t str,
        len: usize,
        make: impl FnOnce(&mut [u8]) -> Result<(), Error> + Send,
    ) -> Result<(), Error> {
        let mut batch = std::mem::take(&mut self.spare);
        batch.resize(len, 0);
        let (sink, ready) = (&mut *self.sink, &self.ready);
        let (written, made) = rayon::join(
            || ready.as_ref().map_or(Ok(()), |(name, bytes)| sink(name, bytes)),
            || make(&mut batch),
        );
        written?;
        made?;
        if let Some((_, bytes)) = self.ready.replace((name, batch)) {
            self.wrote(bytes.len());
            self.spare = bytes;
        }
        Ok(())
    }

    fn stored(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.flush()?;
        (self.sink)(name, bytes)?;
        self.wrote(bytes.len());
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        if let Some((name, bytes)) = self.ready.take() {
            (self.sink)(name, &bytes)?;
            self.wrote(bytes.len());
            self.spare = bytes;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), Error> {
        self.flush()
    }

    fn wrote(&mut self, bytes: usize) {
        self.done += bytes as u64;
        (self.progress)(self.done, self.total);
    }
}

/// Fills `out` with encoded rows from `start` on.
fn make(
    tensor: &Encoded,
    rows: &TargetRows<'_>,
    start: usize,
    encode: Encode<'_>,
    out: &mut [u8],
) -> Result<(), Error> {
    let (target, encoding) = tensor;
    let (cols, row_bytes) = (target.cols(), row_bytes(target, *encoding));
    let piece_rows = (PIECE_VALUES / cols).max(1);
    out.par_chunks_mut(piece_rows * row_bytes).enumerate().try_for_each_init(
        || (Vec::new(), Vec::new()),
        |(values, scratch), (piece, out)| {
            let first = start + piece * piece_rows;
            let all = first..first + out.len() / row_bytes;
            if all.clone().all(|row| rows.stored(row, *encoding).is_some()) {
                for (row, out) in all.zip(out.chunks_exact_mut(row_bytes)) {
                    if let Some(stored) = rows.stored(row, *encoding) {
                        out.copy_from_slice(&stored.tensor[stored.start..][..stored.len]);
                    }
                }
                return Ok(());
            }
            values.resize(all.len() * cols, 0.0);
            for (row, values) in all.zip(values.chunks_exact_mut(cols)) {
                rows.read(row, values, scratch);
            }
            encode(tensor, first, values, out)
        },
    )
}

/// The rows of a tensor to be, as its file is to hold them, out of any source.
pub struct TargetRows<'a> {
    target: &'a Target,
    weights: Vec<Box<dyn Rows + 'a>>,
}

impl<'a> TargetRows<'a> {
    /// The rows of `target`.
    ///
    /// # Errors
    /// A weight that the source does not have.
    pub fn new(target: &'a Target, source: &'a dyn Source) -> Result<TargetRows<'a>, Error> {
        let weights = target.parts.iter().map(|part| {
            source.weight(target.place, part.role).ok_or_else(|| Error::NoWeight {
                tensor: target.name.clone(),
                role: format!("{:?}", part.role),
            })
        });
        Ok(TargetRows { target, weights: weights.collect::<Result<_, _>>()? })
    }

    /// Reads a row, `target.cols()` values. `scratch` is working space, of any length.
    pub fn read(&self, row: usize, out: &mut [f32], scratch: &mut Vec<f32>) {
        let (part, weight, canonical) = self.weight(row);
        weight.read(canonical, out, scratch);
        weight.held().convert(part.form.held(), out);
        part.form.columns_to_stored(out, scratch);
    }

    /// The row where it lies in the source, if its bytes there are those of this tensor in `encoding`.
    pub fn stored(&self, row: usize, encoding: Encoding) -> Option<StoredRow<'_>> {
        let (part, weight, canonical) = self.weight(row);
        if weight.held() != part.form.held() {
            return None;
        }
        let same =
            |stored: &StoredRow<'_>| stored.encoding == encoding && stored.columns == part.form.columns();
        weight.stored(canonical).filter(same)
    }

    /// The bytes of as many rows from the first one on as lie in the source one behind the other, as they are to be.
    pub fn run(&self, rows: Range<usize>, encoding: Encoding) -> Option<&[u8]> {
        let first = self.stored(rows.start, encoding)?;
        let next = self.breaks(rows.start + 1..rows.end, encoding).next().unwrap_or(rows.end);
        Some(&first.tensor[first.start..][..(next - rows.start) * first.len])
    }

    /// Those rows that do not lie behind the one before them.
    fn breaks(&self, rows: Range<usize>, encoding: Encoding) -> impl Iterator<Item = usize> {
        let mut before = rows.start.checked_sub(1).and_then(|row| self.stored(row, encoding));
        rows.filter(move |&row| {
            let here = self.stored(row, encoding);
            let follows = match (&before, &here) {
                (Some(before), Some(here)) => {
                    std::ptr::eq(before.tensor, here.tensor) && before.start + before.len == here.start
                }
                // Neither can be copied.
                (None, None) => true,
                _ => false,
            };
            before = here;
            !follows
        })
    }

    fn weight(&self, row: usize) -> (&Part, &dyn Rows, usize) {
        let (at, canonical) = self.target.canonical_part(row);
        (&self.target.parts[at], self.weights[at].as_ref(), canonical)
    }
}

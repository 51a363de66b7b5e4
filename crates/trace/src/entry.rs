//! A stored tensor: where its bytes lie, what they mean, and reading them from front to back.

use std::io::{self, Read};
use std::sync::Arc;

use flate2::read::DeflateDecoder;

use crate::Error;
use crate::dtype::{Dtype, Endian};
use crate::error::Place;
use crate::manifest::Manifest;
use crate::npy::Header;
use crate::source::{Range, Source};
use crate::tensor::{Tensor, Values, elements};

/// How many bytes are read and converted at a time.
const CHUNK: usize = 1 << 20;

/// A stretch of bytes that may be compressed.
#[derive(Clone, Debug)]
pub(crate) struct Stretch {
    pub(crate) source: Arc<Source>,
    /// Where the stored bytes start in the source.
    pub(crate) start: u64,
    /// How many bytes are stored.
    pub(crate) stored: u64,
    /// How many bytes they stand for.
    pub(crate) size: u64,
    pub(crate) deflated: bool,
    /// CRC-32 of the bytes they stand for, where the container has one.
    pub(crate) crc: Option<u32>,
}

/// A tensor in a file.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) place: Place,
    pub(crate) stretch: Stretch,
    /// Bytes of the stretch before the data. The rest is exactly the data; who makes an entry checks that.
    pub(crate) skip: u64,
    pub(crate) dtype: Dtype,
    pub(crate) endian: Endian,
    pub(crate) fortran: bool,
    pub(crate) shape: Vec<usize>,
}

/// What a file that holds a whole trace turns out to hold.
#[derive(Debug)]
pub(crate) struct Contents {
    /// The arrays by name, in the order of the file.
    pub(crate) arrays: Vec<(String, Entry)>,
    pub(crate) manifest: Option<Manifest>,
}

impl Stretch {
    /// All bytes of `source`, as they are.
    pub(crate) fn whole(source: Source) -> Stretch {
        let len = source.len();
        Stretch { source: Arc::new(source), start: 0, stored: len, size: len, deflated: false, crc: None }
    }

    pub(crate) fn open(&self) -> Content {
        let range = self.source.range(self.start, self.stored);
        let bytes = if self.deflated {
            Bytes::Deflated(Box::new(DeflateDecoder::new(range)))
        } else {
            Bytes::Plain(range)
        };
        Content { bytes, left: self.size, expected: self.crc, crc: crc32fast::Hasher::new() }
    }
}

/// A reader of a [`Stretch`]. Gives exactly the declared number of bytes, or fails; checks the CRC at the end.
#[derive(Debug)]
pub(crate) struct Content {
    bytes: Bytes,
    left: u64,
    expected: Option<u32>,
    crc: crc32fast::Hasher,
}

#[derive(Debug)]
enum Bytes {
    Plain(Range),
    Deflated(Box<DeflateDecoder<Range>>),
}

impl Read for Bytes {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Bytes::Plain(range) => range.read(out),
            Bytes::Deflated(decoder) => decoder.read(out),
        }
    }
}

impl Read for Content {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(out.len());
        if most == 0 {
            return Ok(0);
        }
        let n = self.bytes.read(&mut out[..most])?;
        if n == 0 {
            return Err(invalid(format!("ends {} bytes early", self.left)));
        }
        self.left -= n as u64;
        if let Some(expected) = self.expected {
            self.crc.update(&out[..n]);
            if self.left == 0 {
                if self.bytes.read(&mut [0])? != 0 {
                    return Err(invalid("holds more bytes than it declares".to_owned()));
                }
                let found = self.crc.clone().finalize();
                if found != expected {
                    return Err(invalid(format!("CRC-32 is {found:08x}, expected {expected:08x}")));
                }
            }
        }
        Ok(n)
    }
}

fn invalid(fault: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, fault)
}

impl Entry {
    /// The array in a `.npy` file or member.
    pub(crate) fn npy(stretch: Stretch, place: Place) -> Result<Entry, Error> {
        let (header, skip) = Header::read(&mut stretch.open(), stretch.size, &place)?;
        let Header { dtype, endian, fortran, shape } = header;
        Ok(Entry { place, stretch, skip, dtype, endian, fortran, shape })
    }

    /// A reader of the values in row-major order.
    pub(crate) fn reader(&self) -> Result<Reader, Error> {
        if self.fortran {
            return Ok(Reader::Held { values: self.read()?.values, at: 0 });
        }
        let mut content = self.stretch.open();
        let skipped = io::copy(&mut (&mut content).take(self.skip), &mut io::sink());
        skipped.map_err(|e| self.place.malformed(e.to_string()))?;
        Ok(Reader::Streamed {
            content,
            place: self.place.clone(),
            dtype: self.dtype,
            endian: self.endian,
            left: elements(&self.shape).unwrap_or(0),
        })
    }

    /// All values.
    pub(crate) fn read(&self) -> Result<Tensor, Error> {
        let plain = Entry { fortran: false, ..self.clone() };
        let values = plain.reader()?.next(elements(&self.shape).unwrap_or(0))?;
        let values = match values {
            values if !self.fortran => values,
            Values::F32(v) => Values::F32(row_major(&v, &self.shape)),
            Values::F64(v) => Values::F64(row_major(&v, &self.shape)),
            Values::I64(v) => Values::I64(row_major(&v, &self.shape)),
        };
        Ok(Tensor { shape: self.shape.clone(), values })
    }
}

/// `values` of an array of `shape` whose first axis varies fastest, rearranged so that the last one does.
fn row_major<T: Copy>(values: &[T], shape: &[usize]) -> Vec<T> {
    let mut strides = Vec::with_capacity(shape.len());
    let mut stride = 1;
    for &axis in shape {
        strides.push(stride);
        stride *= axis;
    }
    let mut index = vec![0; shape.len()];
    let mut at = 0;
    let mut out = Vec::with_capacity(values.len());
    for _ in 0..values.len() {
        out.push(values[at]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
    out
}

/// Gives a tensor's values from front to back, in pieces.
#[derive(Debug)]
pub(crate) enum Reader {
    Streamed { content: Content, place: Place, dtype: Dtype, endian: Endian, left: usize },
    Held { values: Values, at: usize },
}

impl Reader {
    /// The next `n` values; fewer only at the end.
    pub(crate) fn next(&mut self, n: usize) -> Result<Values, Error> {
        match self {
            Reader::Held { values, at } => {
                let end = at.saturating_add(n).min(values.len());
                let piece = values.as_ref().slice(*at..end).to_values();
                *at = end;
                Ok(piece)
            }
            Reader::Streamed { content, place, dtype, endian, left } => {
                let n = n.min(*left);
                let mut values = dtype.widened();
                let mut bytes = Vec::new();
                // Memory grows with the bytes that come, not with those that are declared.
                let mut missing = n * dtype.size();
                while missing > 0 {
                    let most = missing.min(CHUNK);
                    bytes.resize(most, 0);
                    content.read_exact(&mut bytes).map_err(|e| place.malformed(e.to_string()))?;
                    dtype.decode(*endian, &bytes, &mut values).map_err(|integer| {
                        place.unsupported(format!("the integer {integer} is over {}", i64::MAX))
                    })?;
                    missing -= most;
                }
                *left -= n;
                Ok(values)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn npy(header: &Header, data: &[u8]) -> Vec<u8> {
        [header.to_bytes(0).unwrap(), data.to_vec()].concat()
    }

    fn entry(bytes: Vec<u8>) -> Entry {
        let source = Source::memory("x.npy", bytes);
        let place = source.place();
        Entry::npy(Stretch::whole(source), place).unwrap()
    }

    #[test]
    fn fortran_order_is_transposed() {
        let header = Header { fortran: true, ..Header::plain(Dtype::U8, &[2, 3, 2]) };
        // Element [i, j, k] has the value 100 i + 10 j + k; i varies fastest in the file.
        let data: Vec<u8> = (0..12).map(|n| 100 * (n % 2) + 10 * (n / 2 % 3) + n / 6).collect();
        let tensor = entry(npy(&header, &data)).read().unwrap();
        let expected: Vec<i64> = (0..12).map(|n| 100 * (n / 6) + 10 * (n / 2 % 3) + n % 2).collect();
        assert_eq!(tensor, Tensor { shape: vec![2, 3, 2], values: Values::I64(expected) });
    }

    #[test]
    fn a_damaged_stretch_is_refused() {
        let data = vec![7u8; 3 * CHUNK];
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&data).unwrap();
        let packed = encoder.finish().unwrap();
        let sound = Stretch {
            start: 0,
            stored: packed.len() as u64,
            size: data.len() as u64,
            deflated: true,
            crc: Some(crc32fast::hash(&data)),
            source: Arc::new(Source::memory("x", packed)),
        };
        let read = |stretch: &Stretch| {
            let mut out = Vec::new();
            stretch.open().read_to_end(&mut out).map(|_| out).map_err(|e| e.to_string())
        };
        assert_eq!(read(&sound).unwrap(), data);
        let crc = Stretch { crc: Some(1), ..sound.clone() };
        assert!(read(&crc).unwrap_err().contains("expected 00000001"));
        let longer = Stretch { size: sound.size + 1, ..sound.clone() };
        assert!(read(&longer).unwrap_err().contains("1 bytes early"));
        let shorter = Stretch { size: sound.size - 1, ..sound.clone() };
        assert!(read(&shorter).unwrap_err().contains("more bytes than it declares"));
        let cut = Stretch { stored: sound.stored - 9, ..sound };
        assert!(read(&cut).is_err());
    }

    proptest! {
        #[test]
        fn pieces_are_the_whole(
            shape in proptest::collection::vec(0usize..6, 0..4),
            fortran: bool,
            pieces in proptest::collection::vec(0usize..50, 1..8),
        ) {
            let header = Header { fortran, ..Header::plain(Dtype::I16, &shape) };
            let n = elements(&shape).unwrap();
            let data: Vec<u8> = (0..n as i16).flat_map(i16::to_le_bytes).collect();
            let entry = entry(npy(&header, &data));
            let whole = entry.read().unwrap().values;
            let mut reader = entry.reader().unwrap();
            let mut joined = Dtype::I16.widened();
            for piece in pieces.into_iter().chain([n]) {
                joined.extend(reader.next(piece).unwrap().as_ref());
            }
            prop_assert_eq!(joined, whole);
        }
    }
}

//! The header of a `.npy` file: element type, byte order, axis order and shape, as a Python dictionary.
//!
//! Only the plain dictionary that numpy writes is read, by a parser that cannot recurse: a header is input from
//! outside, and a general reader of Python literals can be made to overflow its stack.

use std::io::Read;

use crate::Error;
use crate::dtype::{Dtype, Endian};
use crate::error::Place;
use crate::tensor::elements;

pub(crate) const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// A dictionary of a plain array is some 100 bytes long; numpy itself refuses more than 10,000.
const MAX_TEXT: usize = 10_000;

/// As many axes as numpy allows.
const MAX_AXES: usize = 64;

/// Headers end at a multiple of this many bytes, so that data can be mapped.
const ALIGNMENT: usize = 64;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Header {
    pub(crate) dtype: Dtype,
    pub(crate) endian: Endian,
    /// Whether the first axis varies fastest.
    pub(crate) fortran: bool,
    pub(crate) shape: Vec<usize>,
}

impl Header {
    /// A header as this crate writes it: little-endian, last axis fastest.
    pub(crate) fn plain(dtype: Dtype, shape: &[usize]) -> Header {
        Header { dtype, endian: Endian::Little, fortran: false, shape: shape.to_vec() }
    }

    /// Reads a header and checks it against `total`, the length of the file or member it starts. Returns it with
    /// its own length; the data are the rest, exactly.
    pub(crate) fn read(input: &mut dyn Read, total: u64, place: &Place) -> Result<(Header, u64), Error> {
        let mut take = |n: usize, what: &str| {
            let mut bytes = Vec::new();
            let got = (&mut *input).take(n as u64).read_to_end(&mut bytes);
            got.map_err(|e| place.malformed(format!("{what} cannot be read: {e}")))?;
            if bytes.len() == n { Ok(bytes) } else { Err(place.malformed(format!("ends within {what}"))) }
        };
        let start = take(8, "the magic number and version")?;
        if start[..6] != *MAGIC {
            return Err(place.malformed(format!(
                "does not start with numpy's magic number, but with {}",
                start[..6].escape_ascii()
            )));
        }
        let field = match start[6] {
            1 => 2,
            2 | 3 => 4,
            other => {
                return Err(place.malformed(format!("has format version {other}; 1, 2 and 3 are known")));
            }
        };
        let length = take(field, "the header's length")?;
        let length = length.iter().rev().fold(0usize, |n, &b| n << 8 | usize::from(b));
        if length > MAX_TEXT {
            return Err(place.malformed(format!(
                "declares a header of {length} bytes; a plain array's is under {MAX_TEXT}"
            )));
        }
        let text = take(length, "the header")?;
        let header = Dictionary { text: &text, at: 0, place }.parse()?;

        let consumed = (start.len() + field + length) as u64;
        let data = total.saturating_sub(consumed);
        let needed = elements(&header.shape).and_then(|n| n.checked_mul(header.dtype.size()));
        if needed.map(|n| n as u64) != Some(data) {
            return Err(place.malformed(format!(
                "{} values of shape {:?} need {} bytes, but {data} follow the header",
                header.dtype.name(),
                header.shape,
                needed.map_or("more than any file's".to_owned(), |n| n.to_string()),
            )));
        }
        Ok((header, consumed))
    }

    /// The header's bytes, at least `length` of them, so that a header can be written over a longer one.
    /// `None` for a type that `.npy` files lack.
    pub(crate) fn to_bytes(&self, length: usize) -> Option<Vec<u8>> {
        let order = if self.endian == Endian::Little { '<' } else { '>' };
        let order = if self.dtype.size() == 1 { '|' } else { order };
        let code = self.dtype.npy_code()?;
        let fortran = if self.fortran { "True" } else { "False" };
        let shape: String = self.shape.iter().map(|d| format!("{d}, ")).collect();
        // Python needs the comma after a single axis and allows it after several.
        let shape = if self.shape.len() > 1 { shape.trim_end_matches(", ") } else { shape.trim_end() };
        let text = format!("{{'descr': '{order}{code}', 'fortran_order': {fortran}, 'shape': ({shape}), }}");
        let fixed = MAGIC.len() + 2 + 2;
        let total = (fixed + text.len() + 1).next_multiple_of(ALIGNMENT).max(length);
        let mut bytes = Vec::with_capacity(total);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[1, 0]);
        bytes.extend_from_slice(&u16::try_from(total - fixed).ok()?.to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
        bytes.resize(total - 1, b' ');
        bytes.push(b'\n');
        Some(bytes)
    }
}

/// A cursor over `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`.
struct Dictionary<'a> {
    text: &'a [u8],
    at: usize,
    place: &'a Place,
}

impl<'a> Dictionary<'a> {
    fn parse(mut self) -> Result<Header, Error> {
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        self.expect(b'{')?;
        while !self.accept(b'}') {
            let key = self.string()?;
            self.expect(b':')?;
            let repeated = match key {
                "descr" => descr.replace(self.descr()?).is_some(),
                "fortran_order" => fortran.replace(self.boolean()?).is_some(),
                "shape" => shape.replace(self.shape()?).is_some(),
                other => return Err(self.fault(&format!("key `{other}` is unknown"))),
            };
            if repeated {
                return Err(self.fault(&format!("key `{key}` appears twice")));
            }
            if !self.accept(b',') {
                self.expect(b'}')?;
                break;
            }
        }
        if self.peek().is_some() {
            return Err(self.fault("text follows the dictionary"));
        }
        let missing = |key| self.fault(&format!("key `{key}` is missing"));
        let (dtype, endian) = descr.ok_or_else(|| missing("descr"))?;
        let fortran = fortran.ok_or_else(|| missing("fortran_order"))?;
        Ok(Header { dtype, endian, fortran, shape: shape.ok_or_else(|| missing("shape"))? })
    }

    fn fault(&self, fault: &str) -> Error {
        self.place.malformed(format!("header, character {}: {fault}", self.at))
    }

    /// The next byte that is not a space, without taking it.
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn accept(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), Error> {
        if self.accept(byte) {
            return Ok(());
        }
        let found = self.peek().map_or("the end".to_owned(), |b| format!("`{}`", b.escape_ascii()));
        Err(self.fault(&format!("expected `{}`, found {found}", byte as char)))
    }

    fn take_while(&mut self, wanted: impl Fn(&u8) -> bool) -> &'a str {
        let rest = &self.text[self.at..];
        let taken = &rest[..rest.iter().position(|b| !wanted(b)).unwrap_or(rest.len())];
        // Callers want ASCII; anything else becomes a fault where it is compared.
        let text = std::str::from_utf8(taken).unwrap_or_default();
        self.at += taken.len();
        text
    }

    fn string(&mut self) -> Result<&'a str, Error> {
        let quote = if self.peek() == Some(b'"') { b'"' } else { b'\'' };
        self.expect(quote)?;
        let text = self.take_while(|b| *b != quote && *b != b'\\' && b.is_ascii());
        self.expect(quote)?;
        Ok(text)
    }

    fn boolean(&mut self) -> Result<bool, Error> {
        self.peek();
        match self.take_while(u8::is_ascii_alphabetic) {
            "True" => Ok(true),
            "False" => Ok(false),
            other => Err(self.fault(&format!("`fortran_order` is `{other}`, expected True or False"))),
        }
    }

    fn shape(&mut self) -> Result<Vec<usize>, Error> {
        let mut shape = Vec::new();
        self.expect(b'(')?;
        while !self.accept(b')') {
            self.peek();
            let digits = self.take_while(u8::is_ascii_digit);
            let axis = digits.parse().map_err(|_| self.fault("expected the length of an axis"))?;
            // Python 2 wrote long integers.
            self.accept(b'L');
            shape.push(axis);
            if shape.len() > MAX_AXES {
                return Err(self.fault(&format!("more than {MAX_AXES} axes")));
            }
            if !self.accept(b',') {
                self.expect(b')')?;
                break;
            }
        }
        Ok(shape)
    }

    fn descr(&mut self) -> Result<(Dtype, Endian), Error> {
        if self.peek() == Some(b'[') {
            let what = "is a structured array; save each field as an array of its own";
            return Err(self.place.unsupported(what));
        }
        let descr = self.string()?;
        let (endian, code) = match descr.split_at_checked(1) {
            Some(("<" | "|", code)) => (Endian::Little, code),
            Some((">", code)) => (Endian::Big, code),
            _ => (Endian::Little, descr),
        };
        if let Some(dtype) = Dtype::from_npy_code(code) {
            return Ok((dtype, endian));
        }
        let advice = match code {
            "O" => "holds pickled Python objects, which are never read; save plain arrays",
            "V2" => {
                "holds two-byte records, as numpy stores bfloat16; save as float32 or in a .safetensors file"
            }
            _ => "a trace holds real numbers and integers of up to 64 bits; convert the array",
        };
        Err(self.place.unsupported(format!("element type `{descr}`: {advice}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with_text(version: u8, text: &str, data: usize) -> Vec<u8> {
        let mut bytes = [MAGIC.as_slice(), &[version, 0]].concat();
        match version {
            1 => bytes.extend((text.len() as u16).to_le_bytes()),
            _ => bytes.extend((text.len() as u32).to_le_bytes()),
        }
        bytes.extend(text.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    fn read(bytes: &[u8]) -> Result<(Header, u64), Error> {
        Header::read(&mut &bytes[..], bytes.len() as u64, &Place::file("x.npy"))
    }

    const TEXT: &str = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n";

    #[test]
    fn all_versions_and_spellings_are_read() {
        let expected = Header::plain(Dtype::F32, &[2, 3]);
        for version in [1, 2, 3] {
            assert_eq!(read(&with_text(version, TEXT, 24)).unwrap().0, expected);
        }
        for text in [
            r#"{"shape":(2L,3L),"fortran_order":False,"descr":"<f4"}"#,
            " { 'descr' : '<f4' , 'fortran_order' : False , 'shape' : ( 2 , 3 , ) } ",
        ] {
            assert_eq!(read(&with_text(1, text, 24)).unwrap().0, expected, "{text}");
        }
        let scalar = "{'descr': '>i2', 'fortran_order': True, 'shape': ()}";
        let (header, _) = read(&with_text(1, scalar, 2)).unwrap();
        let expected = Header { dtype: Dtype::I16, endian: Endian::Big, fortran: true, shape: vec![] };
        assert_eq!(header, expected);
    }

    #[test]
    fn faults_are_named() {
        for (from, to, fault) in [
            ("'descr': '<f4', ", "", "`descr` is missing"),
            ("False", "false", "expected True or False"),
            ("'shape'", "'shapes'", "`shapes` is unknown"),
            ("(2, 3)", "[2, 3]", "expected `(`, found `[`"),
            ("(2, 3)", "(2, -3)", "length of an axis"),
            ("(2, 3)", "(2, 99999999999999999999999)", "length of an axis"),
            ("(2, 3)", "(4294967296, 4294967296)", "more than any file's"),
            ("(2, 3)", "(2, 4)", "need 32 bytes, but 24 follow"),
            ("(2, 3)", "(2,, 3)", "length of an axis"),
            ("}", "} x", "text follows"),
            ("}", "", "expected"),
            (", }", ", 'descr': '<f4'}", "`descr` appears twice"),
            ("'<f4'", "'|O'", "pickled"),
            ("'<f4'", "'<V2'", "bfloat16"),
            ("'<f4'", "'<c8'", "`<c8`"),
            ("'<f4'", "''", "``"),
            ("'<f4'", "[('a', '<f4')]", "structured"),
        ] {
            let text = TEXT.replacen(from, to, 1);
            assert_ne!(text, TEXT);
            let error = read(&with_text(1, &text, 24)).unwrap_err().to_string();
            assert!(error.contains(fault) && error.starts_with("x.npy: "), "{text}: {error}");
        }
        let mut bytes = with_text(1, TEXT, 24);
        bytes[6] = 9;
        assert!(read(&bytes).unwrap_err().to_string().contains("version 9"));
        bytes[0] = 0;
        assert!(read(&bytes).unwrap_err().to_string().contains("magic"));
        let huge = [&MAGIC[..], &[2, 0, 0xff, 0xff, 0xff, 0xff]].concat();
        assert!(read(&huge).unwrap_err().to_string().contains("4294967295 bytes"));
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = with_text(1, TEXT, 24);
        assert!(read(&bytes).is_ok());
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn numpy_readers_accept_our_headers_and_we_accept_theirs() {
        use npyz::WriterBuilder;

        for shape in [vec![], vec![7], vec![2, 3], vec![2, 3, 4]] {
            let header = Header::plain(Dtype::F32, &shape);
            let mut bytes = header.to_bytes(0).unwrap();
            assert_eq!(bytes.len() % ALIGNMENT, 0);
            bytes.resize(bytes.len() + 4 * shape.iter().product::<usize>(), 0);
            let theirs = npyz::NpyFile::new(&bytes[..]).unwrap();
            assert_eq!(theirs.shape(), shape.iter().map(|&d| d as u64).collect::<Vec<_>>());
            assert_eq!(theirs.dtype().descr(), "'<f4'");
            assert_eq!(theirs.into_vec::<f32>().unwrap().len(), shape.iter().product::<usize>());
        }
        let mut bytes = Vec::new();
        let options = npyz::WriteOptions::new().default_dtype().shape(&[2, 3]).order(npyz::Order::Fortran);
        let mut writer = options.writer(&mut bytes).begin_nd().unwrap();
        writer.extend([1i32; 6]).unwrap();
        writer.finish().unwrap();
        let (header, _) = read(&bytes).unwrap();
        assert!(header.fortran);
        assert_eq!((header.dtype, header.shape), (Dtype::I32, vec![2, 3]));
    }

    #[test]
    fn a_header_fits_over_one_with_more_rows() {
        let long = Header::plain(Dtype::F64, &[1_000_000, 3]).to_bytes(0).unwrap();
        let short = Header::plain(Dtype::F64, &[1, 3]).to_bytes(long.len()).unwrap();
        assert_eq!(short.len(), long.len());
    }

    proptest! {
        #[test]
        fn written_headers_read_back(shape in proptest::collection::vec(0usize..5, 0..6), fortran: bool, big: bool) {
            let endian = if big { Endian::Big } else { Endian::Little };
            let header = Header { dtype: Dtype::U16, endian, fortran, shape };
            let mut bytes = header.to_bytes(0).unwrap();
            let length = bytes.len();
            bytes.resize(length + 2 * elements(&header.shape).unwrap(), 0);
            prop_assert_eq!(read(&bytes).unwrap(), (header, length as u64));
        }

        #[test]
        fn arbitrary_headers_do_not_panic(text in "[{}()'\":,<>fiL0-9A-Za-z ]{0,80}", version in 0u8..5) {
            let _ = read(&with_text(version, &text, 8));
        }
    }
}

//! Arrays: read out of a file one element at a time, or gathered to be written.

use super::cursor::{ByteOrder, Cursor, Fault};
use super::defect::Defect;
use super::value::{Element, Value, ValueType};

/// An array as it lies in the file. Making one costs nothing; its elements are parsed as they are asked for.
#[derive(Clone, Copy)]
pub struct ArrayView<'a> {
    element: ValueType,
    len: u64,
    bytes: &'a [u8],
    /// Where `bytes` starts in the file.
    base: u64,
    order: ByteOrder,
}

impl<'a> ArrayView<'a> {
    /// Reads an array and moves the cursor behind it.
    pub(super) fn read(cursor: &mut Cursor<'a>) -> Result<ArrayView<'a>, Fault> {
        let mut behind = cursor.clone();
        ValueType::Array.skip(&mut behind, u8::MAX, u8::MAX)?;
        let size = behind.offset() - cursor.offset();
        let mut whole = Cursor::new(cursor.take(size)?, behind.offset() - size, cursor.order);
        ArrayView::read_rest(&mut whole)
    }

    /// Reads an array that is known to end where the cursor's bytes do.
    pub(super) fn read_rest(cursor: &mut Cursor<'a>) -> Result<ArrayView<'a>, Fault> {
        let element = ValueType::read(cursor)?;
        let len = cursor.length(element.least_bytes())?;
        let base = cursor.offset();
        let bytes = cursor.take(cursor.remaining())?;
        Ok(ArrayView { element, len, bytes, base, order: cursor.order })
    }

    /// The type of every element.
    pub fn element_type(&self) -> ValueType {
        self.element
    }

    /// The number of elements.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends the array as a little-endian file has it.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Result<(), Defect> {
        encode_head(self.element, self.len, out);
        match self.order {
            ByteOrder::Little => out.extend_from_slice(self.bytes),
            ByteOrder::Big => self.elements().try_for_each(|element| element?.encode(out))?,
        }
        Ok(())
    }

    /// The elements in order. An error, a string that is no UTF-8, ends the iteration.
    pub fn elements(&self) -> Elements<'a> {
        let cursor = Cursor::new(self.bytes, self.base, self.order);
        Elements { cursor, element: self.element, next: 0, len: self.len }
    }
}

/// The same elements in the same byte order, wherever they lie.
impl PartialEq for ArrayView<'_> {
    fn eq(&self, other: &Self) -> bool {
        (self.element, self.len, self.order, self.bytes)
            == (other.element, other.len, other.order, other.bytes)
    }
}

impl std::fmt::Debug for ArrayView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}; {}]", self.element.name(), self.len)
    }
}

/// The elements of an array, parsed one by one.
#[derive(Clone)]
pub struct Elements<'a> {
    cursor: Cursor<'a>,
    element: ValueType,
    next: u64,
    len: u64,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<Value<'a>, Defect>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.len {
            return None;
        }
        let index = self.next;
        let value = Value::read(self.element, &mut self.cursor);
        self.next = if value.is_ok() { index + 1 } else { self.len };
        Some(value.map_err(|fault| fault.field(format!("array element {index}"))))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.len - self.next).ok();
        (0, left)
    }
}

/// An array that is gathered to be written.
///
/// Collect it from numbers, booleans or strings, all of one type; [`Array::nest`] makes one of arrays.
#[derive(Clone, PartialEq, Debug)]
pub struct Array {
    element: ValueType,
    len: u64,
    /// The elements, little-endian.
    bytes: Vec<u8>,
}

impl Array {
    /// An array of arrays.
    pub fn nest(arrays: &[Array]) -> Array {
        let mut bytes = Vec::new();
        for inner in arrays {
            encode_head(inner.element, inner.len, &mut bytes);
            bytes.extend_from_slice(&inner.bytes);
        }
        Array { element: ValueType::Array, len: arrays.len() as u64, bytes }
    }

    /// The array as a value.
    pub fn view(&self) -> ArrayView<'_> {
        let Array { element, len, ref bytes } = *self;
        ArrayView { element, len, bytes, base: 0, order: ByteOrder::Little }
    }
}

impl<T: Element> FromIterator<T> for Array {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Array {
        let mut array = Array { element: T::TYPE, len: 0, bytes: Vec::new() };
        for value in values {
            value.encode(&mut array.bytes);
            array.len += 1;
        }
        array
    }
}

impl<'a> From<&'a Array> for Value<'a> {
    fn from(array: &'a Array) -> Value<'a> {
        Value::Array(array.view())
    }
}

fn encode_head(element: ValueType, len: u64, out: &mut Vec<u8>) {
    element.id().encode(out);
    len.encode(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_give_back_what_was_collected() {
        let words: Array = ["a", "", "žluť"].into_iter().collect();
        let back: Vec<_> = words.view().elements().map(|e| e.unwrap().as_str().unwrap()).collect();
        assert_eq!(back, ["a", "", "žluť"]);

        let nested = Array::nest(&[words.clone(), [1i32, -2].into_iter().collect()]);
        let inner: Vec<_> = nested.view().elements().map(|e| e.unwrap().as_array().unwrap()).collect();
        assert_eq!(inner[0], words.view());
        let numbers: Vec<_> = inner[1].elements().map(Result::unwrap).collect();
        assert_eq!(numbers, [Value::I32(1), Value::I32(-2)]);
        assert_eq!(
            (inner[1].len(), inner[1].element_type(), inner[1].is_empty()),
            (2, ValueType::I32, false)
        );
    }

    #[test]
    fn a_string_that_is_no_utf8_ends_the_iteration_with_its_place() {
        let mut words: Array = ["ab", "cd", "ef"].into_iter().collect();
        words.bytes[8 + 2 + 8 + 1] = 0xff;
        let mut elements = words.view().elements();
        assert_eq!(elements.next().unwrap().unwrap(), Value::String("ab"));
        let defect = elements.next().unwrap().unwrap_err();
        assert_eq!((defect.field.as_str(), defect.offset), ("array element 1", 10));
        assert!(elements.next().is_none());
    }

    #[test]
    fn big_endian_arrays_are_written_little_endian() {
        let mut file = ValueType::Array.id().to_be_bytes().to_vec();
        file.extend(1u64.to_be_bytes());
        file.extend(ValueType::U16.id().to_be_bytes());
        file.extend(2u64.to_be_bytes());
        file.extend([0x12, 0x34, 0x00, 0x01]);
        let view = ArrayView::read(&mut Cursor::new(&file, 0, ByteOrder::Big)).unwrap();
        let mut out = Vec::new();
        view.encode(&mut out).unwrap();
        let own = Array::nest(&[[0x1234u16, 1].into_iter().collect()]);
        let mut expected = Vec::new();
        own.view().encode(&mut expected).unwrap();
        assert_eq!(out, expected);
    }
}

//! Arrays: read one element at a time, out of the file.

use super::cursor::{ByteOrder, Cursor, Fault};
use super::defect::Defect;
use super::value::{Value, ValueType};

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

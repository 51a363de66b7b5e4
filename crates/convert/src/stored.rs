//! The weights of an open checkpoint.

use codec::Encoding;
use model::layout::Role;
use model::{Checkpoint, Place, Slot};

use crate::form::{Form, Held};
use crate::source::{Rows, Source, StoredRow};

/// How a checkpoint holds a weight.
pub(crate) fn form_of(checkpoint: &Checkpoint, slot: &Slot) -> Form {
    Form::new(slot.spec, slot.stored, checkpoint.config())
}

impl Source for Checkpoint {
    fn weight(&self, place: Place, role: Role) -> Option<Box<dyn Rows + '_>> {
        let slot = self.layout().slot(place, role)?;
        let form = form_of(self, slot);
        let tensors = slot.tensors.iter().map(|&i| {
            let info = &self.source().tensors()[i];
            (self.source().bytes(info), info.encoding)
        });
        if form.cols() > 1 {
            let tensors = tensors.map(|(bytes, encoding)| InFile::new(bytes, encoding, form.cols()));
            return Some(Box::new(Matrix { tensors: tensors.collect::<Option<_>>()?, form }));
        }
        let mut values = vec![0.0; form.rows()];
        for (bytes, encoding) in tensors {
            encoding.decode(bytes, &mut values).ok()?;
        }
        Some(Box::new(Vector { values, form }))
    }
}

/// One of the tensors that hold a matrix.
struct InFile<'a> {
    bytes: &'a [u8],
    encoding: Encoding,
    row_bytes: usize,
}

impl<'a> InFile<'a> {
    /// `None` if rows are no whole blocks.
    fn new(bytes: &'a [u8], encoding: Encoding, cols: usize) -> Option<InFile<'a>> {
        let row_bytes = usize::try_from(encoding.byte_len(cols as u64)?).ok()?;
        Some(InFile { bytes, encoding, row_bytes })
    }
}

/// A weight that is decoded as it is read.
struct Matrix<'a> {
    tensors: Vec<InFile<'a>>,
    form: Form,
}

impl Rows for Matrix<'_> {
    fn held(&self) -> Held {
        self.form.held()
    }

    fn read(&self, row: usize, out: &mut [f32], scratch: &mut Vec<f32>) {
        let (tensor, row) = self.form.stored(row);
        let InFile { bytes, encoding, row_bytes } = self.tensors[tensor];
        if let Err(error) = encoding.decode(&bytes[row * row_bytes..][..row_bytes], out) {
            unreachable!("the checkpoint's tensors have their shapes' bytes: {error}");
        }
        self.form.columns_to_canonical(out, scratch);
    }

    fn stored(&self, row: usize) -> Option<StoredRow<'_>> {
        let (tensor, row) = self.form.stored(row);
        let InFile { bytes, encoding, row_bytes } = self.tensors[tensor];
        let columns = self.form.columns();
        Some(StoredRow { tensor: bytes, start: row * row_bytes, len: row_bytes, encoding, columns })
    }
}

/// A weight of single values, decoded as a whole: it is small, and blocks would not end where rows do.
struct Vector {
    values: Vec<f32>,
    form: Form,
}

impl Rows for Vector {
    fn held(&self) -> Held {
        self.form.held()
    }

    fn read(&self, row: usize, out: &mut [f32], _: &mut Vec<f32>) {
        let (_, row) = self.form.stored(row);
        out[0] = self.values[row];
    }
}

//! The weights of an open checkpoint.

use codec::Encoding;
use model::layout::Role;
use model::{Checkpoint, FP8_BLOCK, Place, Slot};

use crate::form::{Form, Held};
use crate::source::{Rows, Source, StoredRow};

/// How a checkpoint holds a weight.
pub(crate) fn form_of(checkpoint: &Checkpoint, slot: &Slot) -> Form {
    let form = Form::new(slot.spec, slot.stored, checkpoint.config());
    // MLX adds the 1 when it converts.
    match form.held() {
        Held::LessOne if checkpoint.layout().mlx => form.with_held(Held::Plain),
        _ => form,
    }
}

impl Source for Checkpoint {
    fn weight(&self, place: Place, role: Role) -> Option<Box<dyn Rows + '_>> {
        let slot = self.layout().slot(place, role)?;
        let form = form_of(self, slot);
        if form.cols() > 1 {
            let tensors = slot.tensors.iter().map(|&i| InFile::new(self, i, form.cols()));
            return Some(Box::new(Matrix { tensors: tensors.collect::<Option<_>>()?, form }));
        }
        let mut values = vec![0.0; form.rows()];
        for &i in &slot.tensors {
            let info = &self.source().tensors()[i];
            info.encoding.decode(self.source().bytes(info), &mut values).ok()?;
        }
        Some(Box::new(Vector { values, form }))
    }
}

/// One of the tensors that hold a matrix.
struct InFile<'a> {
    bytes: &'a [u8],
    encoding: Encoding,
    row_bytes: usize,
    scales: Option<Scales>,
}

/// A factor for each block of an FP8 tensor.
struct Scales {
    factors: Vec<f32>,
    /// Rows of one matrix, of which the tensor may hold several.
    rows: usize,
    /// Blocks side by side.
    blocks: usize,
}

impl<'a> InFile<'a> {
    /// `None` if rows are no whole blocks.
    fn new(checkpoint: &'a Checkpoint, tensor: usize, cols: usize) -> Option<InFile<'a>> {
        let source = checkpoint.source();
        let info = &source.tensors()[tensor];
        let row_bytes = usize::try_from(info.encoding.byte_len(cols as u64)?).ok()?;
        let scales = match checkpoint.layout().scales.get(&tensor) {
            None => None,
            Some(&scale) => {
                let scale = &source.tensors()[scale];
                let mut factors = vec![0.0; usize::try_from(scale.shape.elements()?).ok()?];
                scale.encoding.decode(source.bytes(scale), &mut factors).ok()?;
                let rows = info.shape.dims().iter().rev().nth(1).map_or(1, |rows| *rows as usize);
                Some(Scales { factors, rows, blocks: cols.div_ceil(FP8_BLOCK) })
            }
        };
        Some(InFile { bytes: source.bytes(info), encoding: info.encoding, row_bytes, scales })
    }

    fn read(&self, row: usize, out: &mut [f32]) {
        if let Err(error) = self.encoding.decode(&self.bytes[row * self.row_bytes..][..self.row_bytes], out) {
            unreachable!("the checkpoint's tensors have their shapes' bytes: {error}");
        }
        if let Some(Scales { factors, rows, blocks }) = &self.scales {
            let line = row / rows * rows.div_ceil(FP8_BLOCK) + row % rows / FP8_BLOCK;
            let factors = &factors[line * blocks..][..*blocks];
            for (values, factor) in out.chunks_mut(FP8_BLOCK).zip(factors) {
                values.iter_mut().for_each(|value| *value *= factor);
            }
        }
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
        self.tensors[tensor].read(row, out);
        self.form.columns_to_canonical(out, scratch);
    }

    fn stored(&self, row: usize) -> Option<StoredRow<'_>> {
        let (tensor, row) = self.form.stored(row);
        let InFile { bytes, encoding, row_bytes, scales: None } = self.tensors[tensor] else { return None };
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

//! What llama.cpp's converter computes where we compute otherwise, for those who want its very bytes.

use codec::Encoding;
use format::TensorInfo;
use half::f16;
use model::layout::Role;
use model::{Checkpoint, Place, Use};

use crate::form::Held;
use crate::source::{Rows, Source};

/// A checkpoint whose gains and rates, where they are in F16, are computed in F16.
pub(crate) struct AsLlamaCpp<'a>(pub(crate) &'a Checkpoint);

impl Source for AsLlamaCpp<'_> {
    fn weight(&self, place: Place, role: Role) -> Option<Box<dyn Rows + '_>> {
        let AsLlamaCpp(checkpoint) = *self;
        let rows = checkpoint.weight(place, role)?;
        let slot = checkpoint.layout().slot(place, role)?;
        let is_half = |&i: &usize| checkpoint.source().tensors()[i].encoding == Encoding::F16;
        let computed = rows.held() != Held::Plain && slot.tensors.iter().all(is_half);
        Some(if computed { Box::new(InHalves(rows)) } else { rows })
    }
}

/// Values that leave their form through an operation on halves.
struct InHalves<'a>(Box<dyn Rows + 'a>);

impl Rows for InHalves<'_> {
    fn held(&self) -> Held {
        Held::Plain
    }

    fn read(&self, row: usize, out: &mut [f32], scratch: &mut Vec<f32>) {
        self.0.read(row, out, scratch);
        self.0.held().convert(Held::Plain, out);
        out.iter_mut().for_each(|value| *value = in_half(*value));
    }
}

/// The nearest half, as an f32.
pub(crate) fn in_half(value: f32) -> f32 {
    f16::from_f32(value).to_f32()
}

/// The type that its `--outtype auto` takes: that of the first matrix in 16 bits, by file and name; F16 where none is.
pub(crate) fn dtype(source: &Checkpoint) -> Encoding {
    let files = source.source().files();
    let in_16_bits = |(info, used): &(&TensorInfo, &Use)| {
        matches!(used, Use::Slots(_))
            && info.shape.dims().len() > 1
            && matches!(info.encoding, Encoding::F16 | Encoding::BF16)
    };
    let tensors = source.source().tensors().iter().zip(&source.layout().uses).filter(in_16_bits);
    let first = tensors.min_by_key(|(info, _)| (files[info.file].file_name(), info.name.as_str()));
    first.map_or(Encoding::F16, |(info, _)| info.encoding)
}

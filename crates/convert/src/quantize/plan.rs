//! What will be made of every tensor, before any is made.

use std::collections::BTreeMap;
use std::path::Path;

use codec::Encoding;
use format::{Limits, Metadata};
use serde::{Deserialize, Serialize};

use super::choose::Described;
use super::error::Error;

/// What will be made of every tensor, in the order of the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The recipe's name.
    pub recipe: String,
    /// `general.file_type`; none for that of the source.
    pub file_type: Option<u32>,
    /// The tensors.
    pub tensors: Vec<Planned>,
}

/// A tensor to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Planned {
    /// Its name.
    pub name: String,
    /// Outermost dimension first.
    pub shape: Vec<u64>,
    /// What it is.
    #[serde(with = "name")]
    pub from: Encoding,
    /// What it will be.
    #[serde(with = "name")]
    pub to: Encoding,
    /// Bytes it will take.
    pub bytes: u64,
    /// Why.
    pub why: String,
    /// What it would have been if its rows were whole blocks of that.
    #[serde(default, with = "optional_name", skip_serializing_if = "Option::is_none")]
    pub fallback_from: Option<Encoding>,
    /// Whether importance weighs its errors.
    pub weighed: bool,
}

impl Planned {
    pub(super) fn new(
        tensor: &Described,
        to: Encoding,
        why: String,
        fallback_from: Option<Encoding>,
        weighed: bool,
    ) -> Result<Planned, Error> {
        let (name, cols) = (tensor.name.clone(), tensor.shape.row_len());
        let bytes = tensor.shape.elements().filter(|_| cols.is_multiple_of(to.block_len() as u64));
        let Some(bytes) = bytes.and_then(|elements| to.byte_len(elements)) else {
            return Err(Error::NoFallback { tensor: name, encoding: to, cols });
        };
        if to != tensor.encoding && (!to.is_encodable() || to.ggml_id().is_none()) {
            let what = format!("tensor {name:?}: {to} cannot be made for a GGUF file");
            return Err(Error::Request { what });
        }
        let shape = tensor.shape.dims().to_vec();
        Ok(Planned { name, shape, from: tensor.encoding, to, bytes, why, fallback_from, weighed })
    }

    /// The number of its values.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

impl Plan {
    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.bytes).sum()
    }

    /// Values of all tensors.
    pub fn elements(&self) -> u64 {
        self.tensors.iter().map(Planned::elements).sum()
    }

    /// Bits of a weight on average, over all tensors.
    pub fn bits_per_weight(&self) -> f64 {
        self.bytes() as f64 * 8.0 / self.elements().max(1) as f64
    }

    /// Tensors that get something else because of the length of their rows.
    pub fn fallbacks(&self) -> impl Iterator<Item = &Planned> {
        self.tensors.iter().filter(|tensor| tensor.fallback_from.is_some())
    }
}

/// The encodings that a plan gives, and the number of its file type: a plan in JSON, or a GGUF file to be like.
///
/// # Errors
/// A file that is neither.
pub fn read(path: &Path) -> Result<(BTreeMap<String, Encoding>, Option<u32>), Error> {
    let failed = |what: String| Error::File { path: path.to_owned(), what };
    let mut magic = [0; 4];
    let gguf = std::fs::File::open(path)
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut magic))
        .is_ok_and(|()| &magic == b"GGUF");
    if gguf {
        let source = format::open(path, &Limits::default())?;
        let file_type = match source.metadata() {
            Metadata::Gguf(keys) => keys.get_u64("general.file_type").ok().and_then(|n| n.try_into().ok()),
            Metadata::Safetensors(_) => None,
        };
        return Ok((source.tensors().iter().map(|t| (t.name.clone(), t.encoding)).collect(), file_type));
    }
    let text = std::fs::read_to_string(path).map_err(|error| failed(format!("cannot be read: {error}")))?;
    let plan: Plan = serde_json::from_str(&text)
        .map_err(|error| failed(format!("expected a plan as --plan writes it, or a GGUF file: {error}")))?;
    let mut given = BTreeMap::new();
    for tensor in plan.tensors {
        if let Some(_twice) = given.insert(tensor.name.clone(), tensor.to) {
            return Err(failed(format!("tensor {:?} stands there twice", tensor.name)));
        }
    }
    Ok((given, plan.file_type))
}

mod name {
    use codec::Encoding;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(encoding: &Encoding, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(encoding.name())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Encoding, D::Error> {
        let name = String::deserialize(deserializer)?;
        Encoding::from_name(&name).ok_or_else(|| D::Error::custom(format!("{name:?} is no encoding")))
    }
}

mod optional_name {
    use codec::Encoding;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(encoding: &Option<Encoding>, serializer: S) -> Result<S::Ok, S::Error> {
        match encoding {
            Some(encoding) => super::name::serialize(encoding, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Encoding>, D::Error> {
        #[derive(Deserialize)]
        struct Named(#[serde(with = "super::name")] Encoding);
        Ok(Option::<Named>::deserialize(deserializer)?.map(|Named(encoding)| encoding))
    }
}

//! The best choice of encodings for a size: what each would lose is measured on rows of the weights themselves.
//!
//! A tensor's loss is Σw(x−y)²/Σwx² times the number of its values, w being importance, or 1 without: tensors of any scale
//! can be added up. The sum is made small for a number of bytes by a Lagrange multiplier, and what is then left of the bytes
//! goes to whatever gains most.

use std::collections::BTreeMap;
use std::path::Path;

use codec::Encoding;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::choose::{Described, Wishes, needs_importance};
use super::error::Error;
use super::importance::Importance;
use super::input::{Input, row_bytes};
use super::kind::kept;
use super::loss::Loss;
use super::plan::Planned;
use super::run::Tensor;

/// What tensors may become, where their rows are whole blocks.
const CANDIDATES: &[Encoding] = &[
    Encoding::Iq2Xs,
    Encoding::Q2K,
    Encoding::Iq3Xxs,
    Encoding::Q3K,
    Encoding::Iq3S,
    Encoding::Iq4Xs,
    Encoding::Iq4Nl,
    Encoding::Q4K,
    Encoding::Q5_0,
    Encoding::Q5K,
    Encoding::Q6K,
    Encoding::Q8_0,
];
/// Values of a tensor that are measured.
const SAMPLED_VALUES: u64 = 1 << 16;
/// In so many places, spread evenly.
const PLACES: u64 = 16;
/// Bytes of each tensor that tell one source from another.
const TELLING_BYTES: usize = 4096;

/// What each tensor would lose in each encoding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Losses {
    /// A hash of what was measured.
    pub of: String,
    /// By tensor, as the source calls it, and name of the encoding. In f32, which comes back from JSON as it went: another
    /// run chooses from the same numbers.
    pub tensors: BTreeMap<String, BTreeMap<String, f32>>,
}

impl Losses {
    /// Nothing measured yet, of this source under this importance.
    pub(super) fn new(source: &dyn format::TensorSource, importance: Option<&Importance>) -> Losses {
        let mut digest = Sha256::new();
        for info in source.tensors() {
            digest.update(format!("{} {} {} ", info.name, info.shape, info.encoding));
            let bytes = source.bytes(info);
            digest.update(&bytes[..bytes.len().min(TELLING_BYTES)]);
        }
        for (name, weights) in importance.into_iter().flat_map(Importance::iter) {
            digest.update(name);
            weights.iter().for_each(|w| digest.update(w.to_le_bytes()));
        }
        let of = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Losses { of, tensors: BTreeMap::new() }
    }

    /// Goes on where another run left off: takes over what `path` holds if that is of the same source.
    pub(super) fn resume(&mut self, path: &Path) -> Result<(), Error> {
        let failed = |what: String| Error::File { path: path.to_owned(), what };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(format!("cannot be read: {error}"))),
        };
        let found: Losses = serde_json::from_str(&text)
            .map_err(|error| failed(format!("expected measured losses: {error}; remove it to start anew")))?;
        if found.of == self.of {
            self.tensors = found.tensors;
        }
        Ok(())
    }

    /// Keeps what is measured so far, whole.
    pub(super) fn keep(&self, path: &Path) -> Result<(), Error> {
        let failed = |what: String| Error::File { path: path.to_owned(), what };
        let write = || {
            let (mut file, _claim) = format::file_beside(path)?;
            serde_json::to_writer(&mut file, self)?;
            file.persist(path)?;
            std::io::Result::Ok(())
        };
        write().map_err(|error| failed(format!("cannot be written: {error}")))
    }

    /// Measures a tensor that is not in the table yet.
    pub(super) fn measure(
        &mut self,
        tensor: &Described,
        input: &Input<'_>,
        importance: Option<&Importance>,
    ) -> Result<(), Error> {
        if self.tensors.contains_key(&tensor.original) {
            return Ok(());
        }
        let weights = importance.and_then(|importance| importance.get(&tensor.original));
        let mut losses = BTreeMap::new();
        for to in candidates(tensor, weights.is_some()) {
            let planned = Planned::new(tensor, to, String::new(), None, weights.is_some())?;
            let rows = input.rows(&tensor.original)?;
            let tensor = Tensor { planned: &planned, rows, importance: weights };
            let loss = sample(&tensor)?.relative() * planned.elements() as f64;
            losses.insert(to.name().to_owned(), loss as f32);
        }
        self.tensors.insert(tensor.original.clone(), losses);
        Ok(())
    }
}

/// What it may become. What it is already comes without loss.
fn candidates(tensor: &Described, weighed: bool) -> Vec<Encoding> {
    let cols = tensor.shape.row_len();
    let fits = |to: &&Encoding| {
        cols.is_multiple_of(to.block_len() as u64)
            && **to != tensor.encoding
            && (weighed || !needs_importance(&tensor.name, **to, ""))
    };
    CANDIDATES.iter().filter(fits).copied().collect()
}

/// Encodes rows from several places.
fn sample(tensor: &Tensor<'_>) -> Result<Loss, Error> {
    let cols = tensor.planned.shape.last().copied().unwrap_or(1).max(1);
    let rows = tensor.planned.elements() / cols;
    let wanted = (SAMPLED_VALUES / cols).clamp(1, rows.max(1));
    let places = PLACES.min(wanted);
    let each = wanted / places;
    let mut out = vec![0; each as usize * row_bytes(tensor.planned.to, cols as usize)];
    let mut loss = Loss::default();
    for place in 0..places {
        let first = (rows - each) * place / places.max(1);
        loss.add(&tensor.make_rows(first as usize, &mut out)?);
    }
    Ok(loss)
}

/// A way to make a tensor.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Way {
    to: Encoding,
    bytes: u64,
    loss: f64,
}

/// Chooses an encoding for every tensor, so that all of them take at most `budget` bytes.
///
/// # Errors
/// A budget that nothing fits.
pub(super) fn allocate(
    tensors: &[Described],
    losses: &Losses,
    wishes: &Wishes,
    budget: u64,
) -> Result<BTreeMap<String, Encoding>, Error> {
    let ways: Vec<Vec<Way>> =
        tensors.iter().map(|tensor| ways(tensor, losses, wishes)).collect::<Result<_, _>>()?;
    let choice = choose(&ways, budget)?;
    Ok(tensors.iter().zip(choice).map(|(tensor, way)| (tensor.name.clone(), way.to)).collect())
}

fn ways(tensor: &Described, losses: &Losses, wishes: &Wishes) -> Result<Vec<Way>, Error> {
    let way = |to: Encoding, loss: f64| {
        let bytes = Planned::new(tensor, to, String::new(), None, false)?.bytes;
        Ok::<_, Error>(Way { to, bytes, loss })
    };
    let stays = way(tensor.encoding, 0.0)?;
    let quantized = tensor.encoding.block_len() > 1 && !wishes.allow_requantize;
    if quantized || kept(&tensor.name, &tensor.shape).is_some() {
        return Ok(vec![stays]);
    }
    if let Some((_, to)) = wishes.tensor_types.iter().find(|(pattern, _)| pattern.is_match(&tensor.name)) {
        return Ok(vec![way(*to, 0.0)?]);
    }
    let measured = losses.tensors.get(&tensor.original).into_iter().flatten();
    let mut ways = vec![stays];
    for (name, loss) in measured {
        if let Some(to) = Encoding::from_name(name) {
            ways.push(way(to, (*loss).into())?);
        }
    }
    Ok(ways)
}

/// For each multiplier the cheapest way of each tensor; the least multiplier that fits, then whatever still does.
fn choose(ways: &[Vec<Way>], budget: u64) -> Result<Vec<Way>, Error> {
    let at = |multiplier: f64| -> Vec<Way> {
        let cost = |way: &Way| way.loss + multiplier * way.bytes as f64;
        let cheapest = |ways: &Vec<Way>| {
            let better = |best: Way, way: &Way| if cost(way) < cost(&best) { *way } else { best };
            ways.iter().fold(ways[0], better)
        };
        ways.iter().map(cheapest).collect()
    };
    let bytes = |choice: &[Way]| choice.iter().map(|way| way.bytes).sum::<u64>();
    let smallest: Vec<Way> = ways
        .iter()
        .map(|ways| {
            ways.iter().fold(ways[0], |least, way| if way.bytes < least.bytes { *way } else { least })
        })
        .collect();
    if bytes(&smallest) > budget {
        return Err(Error::TooSmall { budget, least: bytes(&smallest) });
    }
    // A loss is at most about one a value, a way takes at least a bit.
    let (mut low, mut high) = (1e-12_f64, 1e3_f64);
    let mut choice = smallest;
    for _ in 0..100 {
        let middle = (low * high).sqrt();
        let tried = at(middle);
        if bytes(&tried) <= budget {
            high = middle;
            choice = tried;
        } else {
            low = middle;
        }
    }
    loop {
        let left = budget - bytes(&choice);
        let mut best: Option<(usize, Way, f64)> = None;
        for (i, (now, ways)) in choice.iter().zip(ways).enumerate() {
            for way in
                ways.iter().filter(|way| way.loss < now.loss && way.bytes <= now.bytes.saturating_add(left))
            {
                let gain = (now.loss - way.loss) / (way.bytes.saturating_sub(now.bytes).max(1)) as f64;
                if best.is_none_or(|(_, _, most)| gain > most) {
                    best = Some((i, *way, gain));
                }
            }
        }
        match best {
            Some((i, way, _)) => choice[i] = way,
            None => return Ok(choice),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(bytes: u64, loss: f64) -> Way {
        Way { to: Encoding::Q8_0, bytes, loss }
    }

    /// Against all choices there are.
    #[test]
    fn bytes_go_where_they_gain_most() {
        let ways = vec![
            vec![way(16, 0.0), way(8, 0.1), way(4, 2.0), way(2, 9.0)],
            vec![way(32, 0.0), way(16, 0.01), way(8, 0.1), way(4, 0.5)],
            vec![way(8, 0.0), way(4, 5.0), way(2, 20.0)],
            vec![way(3, 0.0)],
        ];
        for budget in 11..=59 {
            let choice = choose(&ways, budget).unwrap();
            let (bytes, loss): (u64, f64) =
                choice.iter().fold((0, 0.0), |(b, l), way| (b + way.bytes, l + way.loss));
            assert!(bytes <= budget);
            let mut best = f64::INFINITY;
            for a in &ways[0] {
                for b in &ways[1] {
                    for c in &ways[2] {
                        if a.bytes + b.bytes + c.bytes + 3 <= budget {
                            best = best.min(a.loss + b.loss + c.loss);
                        }
                    }
                }
            }
            // A multiplier finds the convex hull, which is not quite all there is.
            assert!(loss <= 1.5 * best + 3.0, "{budget}: {loss} instead of {best}");
        }
        assert!(matches!(choose(&ways, 10), Err(Error::TooSmall { least: 11, .. })));
        assert_eq!(choose(&ways, 59).unwrap().iter().map(|way| way.loss).sum::<f64>(), 0.0);
    }
}

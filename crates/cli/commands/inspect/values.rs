//! Values of one tensor.

use std::path::{Path, PathBuf};

use codec::{Anatomy, Point};
use format::TensorInfo;
use inspect::{EDGES, Picked, Slice, Subject};
use serde::Serialize;

use super::{Args, shape};
use crate::commands::Outcome;
use crate::render::Style;

#[derive(Serialize)]
struct Shown {
    name: String,
    encoding: &'static str,
    shape: Vec<u64>,
    /// Of the slice.
    sliced: Vec<usize>,
    /// Outermost first; of a large slice both ends of each axis, unless it is JSON.
    values: Vec<f32>,
    #[serde(skip)]
    held: Vec<usize>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    blocks: Vec<Block>,
}

#[derive(Serialize)]
struct Block {
    /// Index of its first value in the tensor.
    first: u64,
    factors: Vec<(&'static str, f32)>,
    groups: Vec<Codes>,
}

#[derive(Serialize)]
struct Codes {
    scale: f32,
    minimum: f32,
    codes: Vec<Option<i16>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    points: Vec<StoredPoint>,
}

/// A point of the encoding's lattice.
#[derive(Serialize)]
struct StoredPoint {
    index: u16,
    /// One for each value, as `+-++`; absent where the grid itself has negative coordinates.
    #[serde(skip_serializing_if = "Option::is_none")]
    signs: Option<String>,
}

#[derive(Serialize)]
struct Saved {
    name: String,
    shape: Vec<usize>,
    path: PathBuf,
}

/// Blocks that are taken apart at most.
const BLOCKS: usize = 4;

pub(super) fn run(subject: &Subject, name: &str, args: &Args) -> anyhow::Result<Outcome> {
    let slice = args.slice.as_deref().map_or(Ok(Slice::all()), Slice::parse)?;
    let info = find(subject, name)?;
    let source = subject.source();
    if let Some(path) = &args.save {
        let picked = slice.pick(source, info, false)?;
        return save(info, picked, path, args.force);
    }
    // --json is a global flag; whoever wants all values of a large tensor saves them.
    let picked = slice.pick(source, info, true)?;
    let blocks = if args.raw { blocks(subject, info, &slice)? } else { Vec::new() };
    let Picked { shape, held, values } = picked;
    let shown = Shown {
        name: info.name.clone(),
        encoding: info.encoding.name(),
        shape: info.shape.dims().to_vec(),
        sliced: shape,
        values,
        held,
        blocks,
    };
    Ok(Outcome::fine(shown, text))
}

fn find<'s>(subject: &'s Subject, name: &str) -> anyhow::Result<&'s TensorInfo> {
    let source = subject.source();
    if let Some(info) = source.tensor(name) {
        return Ok(info);
    }
    let nearest = source
        .tensors()
        .iter()
        .filter(|info| info.name.contains(name))
        .min_by_key(|info| info.name.len())
        .map(|info| info.name.clone());
    Err(inspect::Error::NoTensor { path: subject.path().to_owned(), name: name.to_owned(), nearest }.into())
}

fn save(info: &TensorInfo, picked: Picked, path: &Path, force: bool) -> anyhow::Result<Outcome> {
    let header = npy_header(&picked.shape);
    let mut bytes = Vec::with_capacity(header.len() + picked.values.len() * 4);
    bytes.extend(header);
    picked.values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
    crate::file::write(path, &bytes, force)?;
    let saved = Saved { name: info.name.clone(), shape: picked.shape, path: path.to_owned() };
    Ok(Outcome::fine(saved, |saved, _| {
        format!("{}: {} {:?} as float32\n", saved.path.display(), saved.name, saved.shape)
    }))
}

/// Version 1 of the format: magic, length, a Python dictionary, padded to 64 bytes.
fn npy_header(shape: &[usize]) -> Vec<u8> {
    let dims: String = shape.iter().map(|dim| format!("{dim},")).collect();
    let mut dictionary = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({dims}), }}");
    while !(10 + dictionary.len() + 1).is_multiple_of(64) {
        dictionary.push(' ');
    }
    dictionary.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((dictionary.len() as u16).to_le_bytes());
    bytes.extend(dictionary.as_bytes());
    bytes
}

/// The blocks that the first values of the slice lie in.
fn blocks(subject: &Subject, info: &TensorInfo, slice: &Slice) -> anyhow::Result<Vec<Block>> {
    let (len, size) = (info.encoding.block_len() as u64, info.encoding.block_bytes());
    anyhow::ensure!(len > 1, "{}: {} has no blocks; its values are plain numbers", info.name, info.encoding);
    let bytes = subject.source().bytes(info);
    let mut places: Vec<u64> =
        slice.places(info.shape.dims())?.into_iter().map(|place| place / len).collect();
    places.dedup();
    let anatomy = |block: u64| -> Option<Block> {
        let start = usize::try_from(block).ok()?.checked_mul(size)?;
        let anatomy = info.encoding.anatomy(bytes.get(start..start + size)?)?;
        let groups = groups(&anatomy);
        Some(Block { first: block * len, factors: anatomy.factors, groups })
    };
    Ok(places.into_iter().take(BLOCKS).filter_map(anatomy).collect())
}

/// Scales, each with the codes and the points under it.
fn groups(anatomy: &Anatomy) -> Vec<Codes> {
    let parts = anatomy.groups.len().max(1);
    let mut codes = anatomy.codes.chunks((anatomy.codes.len() / parts).max(1));
    let mut points = anatomy.points.chunks((anatomy.points.len() / parts).max(1));
    let dim = anatomy.codes.len() / anatomy.points.len().max(1);
    let stored = |point: &Point| StoredPoint {
        index: point.index,
        signs: point
            .minuses
            .map(|minuses| (0..dim).map(|i| if minuses >> i & 1 == 1 { '-' } else { '+' }).collect()),
    };
    let group = |group: &codec::Group| Codes {
        scale: group.scale,
        minimum: group.minimum,
        codes: codes.next().unwrap_or_default().to_vec(),
        points: points.next().unwrap_or_default().iter().map(stored).collect(),
    };
    anatomy.groups.iter().map(group).collect()
}

fn text(shown: &Shown, style: &Style) -> String {
    let sliced: Vec<u64> = shown.sliced.iter().map(|&dim| dim as u64).collect();
    let mut lines = vec![format!(
        "{}  {} {}{}",
        style.bold(&shown.name),
        shown.encoding,
        shape(&shown.shape),
        if sliced == shown.shape { String::new() } else { format!(", slice {}", shape(&sliced)) }
    )];
    for block in &shown.blocks {
        let factors: Vec<String> =
            block.factors.iter().map(|(name, value)| format!("{name} = {value:e}")).collect();
        lines.push(format!("block at value {}: {}", block.first, factors.join(", ")));
        for Codes { scale, minimum, codes, points } in &block.groups {
            let codes = codes.iter().map(|code| code.map_or("·".to_owned(), |code| code.to_string()));
            let minimum = if *minimum == 0.0 { String::new() } else { format!(" minimum {minimum:e}") };
            lines.push(format!("  scale {scale:e}{minimum}  {}", codes.collect::<Vec<_>>().join(" ")));
            let points = points.iter().map(|point| match &point.signs {
                Some(signs) => format!("{} {signs}", point.index),
                None => point.index.to_string(),
            });
            let points = points.collect::<Vec<_>>().join(", ");
            lines.extend((!points.is_empty()).then(|| format!("    points {points}")));
        }
    }
    lines.push(nested(shown));
    lines.join("\n") + "\n"
}

/// Values in brackets, as torch prints them.
fn nested(shown: &Shown) -> String {
    let finite: Vec<f32> = shown.values.iter().copied().filter(|v| v.is_finite() && *v != 0.0).collect();
    let largest = finite.iter().fold(0f32, |a, v| a.max(v.abs()));
    let smallest = finite.iter().fold(f32::INFINITY, |a, v| a.min(v.abs()));
    // torch's own rule.
    let scientific = largest > 0.0 && (largest / smallest > 1000.0 || largest > 1e8 || smallest < 1e-4);
    let texts: Vec<String> = shown
        .values
        .iter()
        .map(|value| if scientific { format!("{value:.4e}") } else { format!("{value:.4}") })
        .collect();
    let width = texts.iter().map(String::len).max().unwrap_or(0);
    let mut out = String::new();
    if shown.sliced.contains(&0) {
        return "[]".to_owned();
    }
    brackets(shown, &texts, width, 0, 0, &mut out);
    out
}

fn brackets(shown: &Shown, texts: &[String], width: usize, axis: usize, at: usize, out: &mut String) {
    let Some(&held) = shown.held.get(axis) else {
        out.push_str(&format!("{:>width$}", texts[at]));
        return;
    };
    let last = axis + 1 == shown.held.len();
    let inner: usize = shown.held[axis + 1..].iter().product();
    let cut = held < shown.sliced[axis];
    out.push('[');
    for i in 0..held {
        if i > 0 {
            out.push_str(if last { ", " } else { ",\n" });
            if !last {
                out.push_str(&" ".repeat(axis + 1));
            }
        }
        if cut && i == EDGES {
            out.push_str(if last { "..., " } else { "...,\n" });
            if !last {
                out.push_str(&" ".repeat(axis + 1));
            }
        }
        brackets(shown, texts, width, axis + 1, at + i * inner, out);
    }
    out.push(']');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(sliced: &[usize], held: &[usize]) -> Shown {
        let values = (0..held.iter().product::<usize>()).map(|i| i as f32 - 1.0).collect();
        Shown {
            name: "t".into(),
            encoding: "F32",
            shape: Vec::new(),
            sliced: sliced.to_vec(),
            values,
            held: held.to_vec(),
            blocks: Vec::new(),
        }
    }

    #[test]
    fn values_stand_as_torch_prints_them() {
        assert_eq!(nested(&shown(&[2, 2], &[2, 2])), "[[-1.0000,  0.0000],\n [ 1.0000,  2.0000]]");
        assert_eq!(nested(&shown(&[], &[])), "-1.0000");
        assert_eq!(nested(&shown(&[0], &[0])), "[]");
        let cut = nested(&shown(&[2000], &[6]));
        assert_eq!(cut, "[-1.0000,  0.0000,  1.0000, ...,  2.0000,  3.0000,  4.0000]");
    }

    #[test]
    fn headers_of_npy_files_are_aligned() {
        for shape in [&[][..], &[3], &[2, 3, 400_000]] {
            let header = npy_header(shape);
            assert!(header.len().is_multiple_of(64) && header.ends_with(b"\n"), "{shape:?}");
        }
    }
}

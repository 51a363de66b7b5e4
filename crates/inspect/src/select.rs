//! Which tensors are looked at, and in which order.

use std::cmp::Ordering;

use globset::{GlobBuilder, GlobMatcher};
use regex::Regex;

use crate::error::Error;
use crate::tensor_row::TensorRow;

/// By what tensors are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum Key {
    Name,
    Encoding,
    Layer,
    Elements,
    Bytes,
    Offset,
}

/// Which tensors are looked at: those that all of its parts admit.
#[derive(Default)]
pub struct Selection {
    globs: Vec<GlobMatcher>,
    expressions: Vec<Regex>,
    layers: Vec<(usize, usize)>,
    encodings: Vec<String>,
    order: Option<Key>,
    reverse: bool,
}

impl Selection {
    /// Admits names that match this glob (`*` also crosses dots) or another one given.
    pub fn with_glob(mut self, pattern: &str) -> Result<Selection, Error> {
        let glob = GlobBuilder::new(pattern).build().map_err(|e| Error::Pattern {
            pattern: pattern.to_owned(),
            kind: "glob",
            why: e.kind().to_string(),
        })?;
        self.globs.push(glob.compile_matcher());
        Ok(self)
    }

    /// Admits names in which this expression is found, or another one given.
    pub fn with_regex(mut self, pattern: &str) -> Result<Selection, Error> {
        let expression = Regex::new(pattern).map_err(|e| Error::Pattern {
            pattern: pattern.to_owned(),
            kind: "regular expression",
            why: e.to_string(),
        })?;
        self.expressions.push(expression);
        Ok(self)
    }

    /// Admits these layers: `0,4-7`.
    pub fn with_layers(mut self, list: &str) -> Result<Selection, Error> {
        for part in list.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            match (first.trim().parse(), last.trim().parse()) {
                (Ok(first), Ok(last)) if first <= last => self.layers.push((first, last)),
                _ => return Err(Error::Layers { found: list.to_owned() }),
            }
        }
        Ok(self)
    }

    /// Admits this encoding, or another one given.
    pub fn with_encoding(mut self, name: &str) -> Selection {
        self.encodings.push(name.to_owned());
        self
    }

    /// Orders by this; without it tensors stand as in the file.
    pub fn sorted(mut self, key: Key) -> Selection {
        self.order = Some(key);
        self
    }

    /// Turns the order round.
    pub fn reversed(mut self, reverse: bool) -> Selection {
        self.reverse = reverse;
        self
    }

    /// Whether every tensor is admitted.
    pub fn is_all(&self) -> bool {
        self.globs.is_empty()
            && self.expressions.is_empty()
            && self.layers.is_empty()
            && self.encodings.is_empty()
    }

    fn admits(&self, row: &TensorRow) -> bool {
        let any = |none: bool, any: bool| none || any;
        any(self.globs.is_empty(), self.globs.iter().any(|glob| glob.is_match(&row.name)))
            && any(self.expressions.is_empty(), self.expressions.iter().any(|e| e.is_match(&row.name)))
            && any(
                self.encodings.is_empty(),
                self.encodings.iter().any(|e| e.eq_ignore_ascii_case(row.encoding)),
            )
            && any(
                self.layers.is_empty(),
                row.layer
                    .is_some_and(|l| self.layers.iter().any(|(first, last)| (first..=last).contains(&&l))),
            )
    }

    /// Where those of the rows that are admitted stand among them, in order. No row is kept.
    pub fn places(&self, rows: impl Iterator<Item = TensorRow>) -> Vec<usize> {
        let admitted = rows.enumerate().filter(|(_, row)| self.admits(row));
        let mut ranked: Vec<(Rank, usize)> =
            admitted.map(|(place, row)| (Rank::of(row, self.order), place)).collect();
        ranked.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut places: Vec<usize> = ranked.into_iter().map(|(_, place)| place).collect();
        if self.reverse {
            places.reverse();
        }
        places
    }
}

/// What a tensor's place in an order depends on.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Alike,
    Name(Natural),
    Encoding(&'static str),
    Number(u64),
    Place(usize, u64),
}

impl Rank {
    fn of(row: TensorRow, order: Option<Key>) -> Rank {
        match order {
            None => Rank::Alike,
            Some(Key::Name) => Rank::Name(Natural(row.name)),
            Some(Key::Encoding) => Rank::Encoding(row.encoding),
            // What is in no layer comes last.
            Some(Key::Layer) => Rank::Number(row.layer.map_or(u64::MAX, |layer| layer as u64)),
            Some(Key::Elements) => Rank::Number(row.elements),
            Some(Key::Bytes) => Rank::Number(row.bytes),
            Some(Key::Offset) => Rank::Place(row.file, row.offset),
        }
    }
}

/// A name as texts and numbers by turns, so that `blk.10` comes after `blk.9`.
#[derive(PartialEq, Eq)]
struct Natural(String);

impl Natural {
    fn parts(&self) -> impl Iterator<Item = (&str, u64)> {
        let mut rest = self.0.as_str();
        std::iter::from_fn(move || {
            let text = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let digits = rest[text..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |n| text + n);
            let part = (&rest[..text], rest[text..digits].parse().unwrap_or(u64::MAX));
            let any = !rest.is_empty();
            rest = &rest[digits..];
            any.then_some(part)
        })
    }
}

impl Ord for Natural {
    fn cmp(&self, other: &Natural) -> Ordering {
        self.parts().cmp(other.parts()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Natural {
    fn partial_cmp(&self, other: &Natural) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, encoding: &'static str, bytes: u64) -> TensorRow {
        TensorRow {
            name: name.to_owned(),
            encoding,
            shape: vec![bytes],
            ne: vec![bytes],
            elements: bytes,
            bytes,
            offset: 0,
            file: 0,
            layer: crate::class::layer_of_name(name),
            class: crate::Class::Other,
            status: None,
            roles: Vec::new(),
            steps: String::new(),
            there: Vec::new(),
        }
    }

    fn names(selection: &Selection) -> Vec<String> {
        let rows = [
            row("output.weight", "Q6_K", 9),
            row("blk.10.ffn_up.weight", "Q4_K", 4),
            row("blk.9.ffn_up.weight", "Q4_K", 5),
            row("blk.9.attn_norm.weight", "F32", 1),
        ];
        let places = selection.places(rows.iter().cloned());
        places.into_iter().map(|place| rows[place].name.clone()).collect()
    }

    #[test]
    fn parts_of_a_selection_narrow_it_together() {
        let all = Selection::default;
        assert_eq!(names(&all()).len(), 4);
        assert_eq!(names(&all().with_glob("*.ffn_*").unwrap()).len(), 2);
        assert_eq!(names(&all().with_regex(r"blk\.\d+\.").unwrap().with_encoding("q4_k")).len(), 2);
        assert_eq!(
            names(&all().with_layers("0-9").unwrap()),
            ["blk.9.ffn_up.weight", "blk.9.attn_norm.weight"]
        );
        assert_eq!(names(&all().with_layers("1,10").unwrap()), ["blk.10.ffn_up.weight"]);
        assert!(names(&all().with_layers("3").unwrap()).is_empty());
        for wrong in ["", "x", "3-1", "1-2-3"] {
            assert!(all().with_layers(wrong).is_err(), "{wrong}");
        }
        assert!(all().with_regex("(").is_err() && all().with_glob("[").is_err());
    }

    #[test]
    fn numbers_in_names_count() {
        let sorted = names(&Selection::default().sorted(Key::Name));
        assert_eq!(
            sorted,
            ["blk.9.attn_norm.weight", "blk.9.ffn_up.weight", "blk.10.ffn_up.weight", "output.weight"]
        );
        let largest = names(&Selection::default().sorted(Key::Bytes).reversed(true));
        assert_eq!(largest[0], "output.weight");
    }
}

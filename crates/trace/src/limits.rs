//! How far a point may be from the reference: the built-in table, and what users put in its place.
//!
//! The measure is Σ(a−b)²/Σb² with b the reference; for choices of experts it is the share of tokens whose sets
//! differ. A point passes when its measure is finite and at most its limit.

use std::path::Path;

use crate::point::LimitClass;
use crate::precision::Precision;
use crate::{Error, GlobError, Globs};

/// One rounding of each value: its relative error is at most the unit roundoff u, so the measure is at most u².
const fn one_rounding(precision: Precision) -> f64 {
    precision.unit_roundoff() * precision.unit_roundoff()
}

/// Double precision against double precision. Accumulated rounding is some 10⁴ u², 1e-28; any difference of
/// definition, however small (an epsilon of 1e-6 in another place), is above 1e-16.
const F64: f64 = 1e-20;

/// Single precision. Transformers' own single-precision runs are 5e-14 to 4.5e-11 from the truth on every kind of
/// point of models with 4 to 9 layers, random and trained (out-projections and norms after the recurrence are
/// worst); two decades more for deeper and wider models.
const F32: f64 = 5e-9;

/// The same for what is computed elementwise or renormalised, at most 5.2e-12 there.
const F32_GATE: f64 = 1e-9;

/// Half precision. Transformers' runs are at most 1e-4 off on dense models; one decade more.
const F16: f64 = 1e-3;

/// bfloat16. Transformers' runs are at most 1e-2 off on random dense models and 1e-4 on a trained one, twice the
/// former; the mistakes this is to find start at 5e-2. Random mixtures of experts do not stay within it (a router
/// that decides otherwise changes everything above it): judge those in single precision.
const BF16: f64 = 2e-2;

/// The built-in limits: a class, then one column for each of [`Precision::ALL`].
pub const TABLE: &[(LimitClass, [f64; 4])] = {
    use LimitClass::*;
    const ROUNDED: [f64; 4] = [
        one_rounding(Precision::F64),
        one_rounding(Precision::F32),
        one_rounding(Precision::F16),
        one_rounding(Precision::BF16),
    ];
    &[
        (Lookup, ROUNDED),
        (Norm, [F64, F32, F16, BF16]),
        (Projection, [F64, F32, F16, BF16]),
        (Gate, [F64, F32_GATE, F16, BF16]),
        (Recurrence, [F64, F32, F16, BF16]),
        (Attention, [F64, F32, F16, BF16]),
        (Routing, [F64, F32_GATE, F16, BF16]),
        // Choices are equal or they are not.
        (Index, [0.0; 4]),
        (Residual, [F64, F32, F16, BF16]),
        (Logits, [F64, F32, F16, BF16]),
    ]
};

/// The built-in limit of a class where the coarser side is of this precision.
pub fn built_in(class: LimitClass, precision: Precision) -> f64 {
    let row = TABLE.iter().find(|(c, _)| *c == class).expect("every class has a row");
    row.1[precision as usize]
}

/// The built-in table with what the user put before it. Later entries win over earlier ones.
#[derive(Clone, Debug)]
pub struct Limits {
    entries: Vec<(String, f64)>,
    globs: Globs,
    /// Stands between the entries and the built-in table.
    rows: Vec<Row>,
    row_globs: Globs,
}

/// A limit of another table than the built-in one.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Of which points; choices of experts stay exact whatever it says.
    pub pattern: String,
    /// The largest measure that passes.
    pub value: f64,
    /// What the limit rests on, for the report: `local Q4_K`.
    pub label: String,
}

/// A limit and where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// The largest measure that passes.
    pub value: f64,
    /// The user's pattern, as its number among the entries; `None` for a table.
    pub entry: Option<usize>,
    /// The label of the table's row, where it is not the built-in table.
    pub label: Option<String>,
}

/// An override that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// No pattern and number.
    #[error("`{text}` is not of the form GLOB=NMSE (as in `*.mlp=1e-6`)")]
    Form {
        /// The text as given.
        text: String,
    },
    /// The number is none, or negative.
    #[error("`{number}` in `{text}` is not a limit: a number of at least 0, or inf to let a point pass")]
    Number {
        /// The part that should be a number.
        number: String,
        /// The text as given.
        text: String,
    },
    /// The pattern cannot be read.
    #[error(transparent)]
    Glob(#[from] GlobError),
    /// A line of a file is one of these.
    #[error("{path}, line {line}: {source}")]
    Line {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        source: Box<LimitError>,
    },
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] Error),
}

impl Default for Limits {
    fn default() -> Limits {
        let none = Globs::new::<&str>(&[]).expect("no pattern is bad");
        Limits { entries: Vec::new(), globs: none.clone(), rows: Vec::new(), row_globs: none }
    }
}

impl Limits {
    /// The built-in table with these patterns and limits before it.
    pub fn new(entries: Vec<(String, f64)>) -> Result<Limits, LimitError> {
        let patterns: Vec<_> = entries.iter().map(|(pattern, _)| pattern).collect();
        let globs = Globs::new(&patterns)?;
        Ok(Limits { entries, globs, ..Limits::default() })
    }

    /// The same with a table that stands before the built-in one, the last row that matches winning.
    ///
    /// # Errors
    /// A pattern that cannot be read.
    pub fn with_rows(self, rows: Vec<Row>) -> Result<Limits, GlobError> {
        let patterns: Vec<_> = rows.iter().map(|row| &row.pattern).collect();
        Ok(Limits { row_globs: Globs::new(&patterns)?, rows, ..self })
    }

    /// Reads one `GLOB=NMSE`, as on a command line.
    pub fn parse_entry(text: &str) -> Result<(String, f64), LimitError> {
        let separator = |c: char| c == '=' || c.is_whitespace();
        let form = || LimitError::Form { text: text.to_owned() };
        let (pattern, number) = text.trim().rsplit_once(separator).ok_or_else(form)?;
        let pattern = pattern.trim_end_matches(separator);
        if pattern.is_empty() || pattern.contains(char::is_whitespace) {
            return Err(form());
        }
        // Found here, a bad pattern is reported with its line.
        Globs::new(&[pattern])?;
        match number.parse() {
            Ok(value) if value >= 0.0 => Ok((pattern.to_owned(), value)),
            _ => Err(LimitError::Number { number: number.to_owned(), text: text.to_owned() }),
        }
    }

    /// Reads a file of one `GLOB NMSE` or `GLOB=NMSE` a line; `#` starts a comment.
    pub fn read_file(path: &Path) -> Result<Vec<(String, f64)>, LimitError> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
        let mut entries = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            if !line.trim().is_empty() {
                entries.push(Limits::parse_entry(line).map_err(|source| LimitError::Line {
                    path: path.display().to_string(),
                    line: at + 1,
                    source: Box::new(source),
                })?);
            }
        }
        Ok(entries)
    }

    /// The limit of a point: the last of the user's patterns that matches its name, else the built-in one. Points
    /// outside the table of points are judged like residuals.
    pub fn of(&self, name: &str, precision: Precision) -> Limit {
        let class = crate::point::parse(name).map_or(LimitClass::Residual, |(_, kind)| kind.class);
        if let Some(entry) = self.globs.last_match(name) {
            return Limit { value: self.entries[entry].1, entry: Some(entry), label: None };
        }
        match self.row_globs.last_match(name).filter(|_| class != LimitClass::Index) {
            Some(row) => {
                let Row { value, label, .. } = &self.rows[row];
                Limit { value: *value, entry: None, label: Some(label.clone()) }
            }
            None => Limit { value: built_in(class, precision), entry: None, label: None },
        }
    }

    /// The user's patterns and limits.
    pub fn entries(&self) -> &[(String, f64)] {
        &self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::point::KINDS;

    #[test]
    fn every_class_in_use_has_one_row_that_grows_with_coarseness() {
        for kind in KINDS {
            assert_eq!(TABLE.iter().filter(|(class, _)| *class == kind.class).count(), 1, "{kind}");
        }
        for (class, row) in TABLE {
            assert!(row.is_sorted(), "{class:?}");
        }
        assert_eq!(built_in(LimitClass::Gate, Precision::F32), F32_GATE);
        assert_eq!(built_in(LimitClass::Logits, Precision::BF16), BF16);
    }

    #[test]
    fn the_last_matching_pattern_wins_over_the_table() {
        let entry = |pattern: &str, value| (pattern.to_owned(), value);
        let limits = Limits::new(vec![entry("*", 1e-3), entry("*.mlp", 1e-5), entry("lm_*", f64::INFINITY)]);
        let limits = limits.unwrap();
        let of = |name| limits.of(name, Precision::F32);
        assert_eq!(of("model.layers.1.mlp"), Limit { value: 1e-5, entry: Some(1), label: None });
        assert_eq!(of("model.layers.1"), Limit { value: 1e-3, entry: Some(0), label: None });
        assert_eq!(of("lm_head").value, f64::INFINITY);
        let plain = Limits::default();
        assert_eq!(plain.of("lm_head", Precision::F64), Limit { value: F64, entry: None, label: None });
        assert_eq!(plain.of("my.own.point", Precision::F32).value, F32);
        assert_eq!(plain.of("model.layers.1.mlp.topk_index", Precision::BF16).value, 0.0);
    }

    #[test]
    fn a_table_stands_between_the_user_and_the_built_in_one() {
        let row =
            |pattern: &str, value| Row { pattern: pattern.into(), value, label: pattern.to_uppercase() };
        let limits = Limits::new(vec![("*.mlp".to_owned(), 1e-5)]).unwrap();
        let limits = limits.with_rows(vec![row("model.*", 1e-7), row("*.mlp*", 1e-6)]).unwrap();
        let of = |name| limits.of(name, Precision::F32);
        assert_eq!(of("model.layers.1.mlp").entry, Some(0));
        assert_eq!(of("model.layers.1.mlp.up_proj").label.as_deref(), Some("*.MLP*"));
        assert_eq!((of("model.norm").value, of("lm_head").value), (1e-7, F32));
        assert_eq!(of("model.layers.1.mlp.topk_index").value, 0.0);
    }

    #[test]
    fn entries_are_read_from_text() {
        for text in ["*.mlp=1e-6", "*.mlp 1e-6", " *.mlp  =\t1e-6 "] {
            assert_eq!(Limits::parse_entry(text).unwrap(), ("*.mlp".to_owned(), 1e-6));
        }
        for (text, fault) in [
            ("1e-6", "form GLOB=NMSE"),
            ("=1e-6", "form GLOB=NMSE"),
            ("a b 1e-6", "form GLOB=NMSE"),
            ("", "form GLOB=NMSE"),
            ("*.mlp=", "is not a limit"),
            ("*.mlp=x", "`x` in `*.mlp=x`"),
            ("*.mlp=-1", "is not a limit"),
            ("*.mlp=NaN", "is not a limit"),
            ("a[b=1", "`a[b` is not a glob"),
        ] {
            let error = Limits::parse_entry(text).expect_err(text).to_string();
            assert!(error.contains(fault), "{text}: {error}");
        }
    }

    #[test]
    fn files_have_comments_and_name_their_faulty_line() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("limits");
        std::fs::write(&path, "# mine\n\n*.mlp 1e-6 # loose\nlm_head = inf\n").unwrap();
        let expected = [("*.mlp".to_owned(), 1e-6), ("lm_head".to_owned(), f64::INFINITY)];
        assert_eq!(Limits::read_file(&path).unwrap(), expected);
        std::fs::write(&path, "a 1\nb\n").unwrap();
        let error = Limits::read_file(&path).unwrap_err().to_string();
        assert!(error.contains("limits, line 2: `b`"), "{error}");
        let missing = Limits::read_file(Path::new("/no/such")).unwrap_err().to_string();
        assert!(missing.contains("cannot read /no/such"), "{missing}");
    }
}

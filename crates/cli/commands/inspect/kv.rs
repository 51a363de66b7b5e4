//! Keys and values.

use std::fmt::{self, Display, Write as _};
use std::io::{self, Write};

use anyhow::Context;
use format::Metadata;
use format::gguf::{ArrayView, Value, ValueType};
use globset::{GlobBuilder, GlobMatcher};
use inspect::Subject;
use serde::ser::{Error, SerializeSeq, SerializeStruct};
use serde::{Serialize, Serializer};

use super::{Each, Sequence};
use crate::commands::Outcome;
use crate::listing::{Form, entries};
use crate::render::{Column, Style};

/// Elements of an array, and characters of a text, that are shown of many.
const ELEMENTS: usize = 6;
const CHARACTERS: usize = 120;
pub(super) const COLUMNS: &[Column] = &[Column::Left("key"), Column::Left("type"), Column::Left("value")];

/// The keys of a checkpoint that are asked for. They may be a million: none is read before it is shown.
struct Keys {
    subject: Subject,
    glob: GlobMatcher,
    full: bool,
}

pub(super) fn run(subjects: Vec<Subject>, pattern: &str, full: bool, form: Form) -> anyhow::Result<Outcome> {
    let glob = GlobBuilder::new(pattern).build();
    let glob = glob.with_context(|| format!("{pattern:?} is no key and no glob"))?.compile_matcher();
    let of = |subject| Keys { subject, glob: glob.clone(), full };
    let all: Vec<Keys> = subjects.into_iter().map(of).collect();
    let mut found = false;
    for (key, value) in all.iter().flat_map(Keys::iter) {
        found = true;
        value.check().with_context(|| format!("key {key:?}"))?;
    }
    anyhow::ensure!(found || pattern == "*", "no key matches {pattern:?}");
    Ok(Outcome::streamed(Each(all), false, move |each: &Each<Keys>, style, out| {
        each.write(|keys| keys.subject.path(), style, out, |keys, out| keys.write(form, style, out))
    }))
}

/// Every key of a checkpoint with its type and its value cut short, for other views.
pub(super) fn shown(subject: &Subject) -> impl Iterator<Item = [String; 3]> {
    let entries = entries_of(subject, false);
    entries.map(|(key, value)| [key.to_owned(), value.r#type().to_string(), value.to_string()])
}

fn entries_of(subject: &Subject, full: bool) -> impl Iterator<Item = (&str, Shown<'_>)> {
    let shown = move |(key, value)| (key, Shown { value, full });
    let (metadata, keys) = match subject.source().metadata() {
        Metadata::Safetensors(map) => (Some(map), None),
        Metadata::Gguf(keys) => (None, Some(keys)),
    };
    let strings = metadata.into_iter().flatten().map(|(key, value)| (key.as_str(), Value::String(value)));
    strings.chain(keys.into_iter().flat_map(|keys| keys.iter())).map(shown)
}

impl Keys {
    fn iter(&self) -> impl Iterator<Item = (&str, Shown<'_>)> {
        entries_of(&self.subject, self.full).filter(|(key, _)| self.glob.is_match(key))
    }

    fn write(&self, form: Form, style: &Style, out: &mut dyn Write) -> io::Result<()> {
        if self.full && form == Form::Text {
            // One key alone is printed bare, for use in other commands.
            let mut found = self.iter();
            if let (Some((_, only)), None) = (found.next(), found.next()) {
                return writeln!(out, "{only}");
            }
        }
        let rows = || self.iter().map(|(key, value)| entries![key, value.r#type(), value]);
        form.write(COLUMNS, rows, style, out)
    }
}

impl Serialize for Keys {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut report = serializer.serialize_struct("Keys", 2)?;
        report.serialize_field("path", self.subject.path())?;
        let described = || self.iter().map(|(key, value)| Described { key, value });
        report.serialize_field("keys", &Sequence(described))?;
        report.end()
    }
}

/// A key in the report: its type, how many elements an array has, and of a long array the first elements.
struct Described<'a> {
    key: &'a str,
    value: Shown<'a>,
}

impl Serialize for Described<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let length = self.value.value.as_array().map(|array| array.len());
        let mut entry = serializer.serialize_struct("Entry", 3 + usize::from(length.is_some()))?;
        entry.serialize_field("key", self.key)?;
        entry.serialize_field("type", &self.value.r#type().to_string())?;
        match length {
            Some(length) => entry.serialize_field("length", &length)?,
            None => entry.skip_field("length")?,
        }
        entry.serialize_field("value", &self.value)?;
        entry.end()
    }
}

/// A value as it is shown: long ones cut short, or whole.
#[derive(Clone, Copy)]
struct Shown<'a> {
    value: Value<'a>,
    full: bool,
}

/// A type as it is shown.
enum Type {
    One(ValueType),
    Array(ValueType, u64),
}

impl Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Type::One(one) => f.write_str(one.name()),
            Type::Array(element, length) => write!(f, "[{}; {length}]", element.name()),
        }
    }
}

impl<'a> Shown<'a> {
    fn r#type(&self) -> Type {
        match self.value {
            Value::Array(array) => Type::Array(array.element_type(), array.len()),
            other => Type::One(other.value_type()),
        }
    }

    fn of(&self, value: Value<'a>) -> Shown<'a> {
        Shown { value, full: self.full }
    }

    /// How many elements are shown.
    fn most(&self) -> usize {
        if self.full { usize::MAX } else { ELEMENTS }
    }

    /// Strings in arrays are read when somebody asks for them: all that will be shown must be readable before the first
    /// line is printed.
    fn check(&self) -> Result<(), format::gguf::Defect> {
        let Value::Array(array) = self.value else { return Ok(()) };
        if !matches!(array.element_type(), ValueType::String | ValueType::Array) {
            return Ok(());
        }
        array.elements().take(self.most()).try_for_each(|element| self.of(element?).check())
    }

    fn array(&self, array: ArrayView<'a>, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_char('[')?;
        let mut shown = 0;
        for element in array.elements().take(self.most()) {
            f.write_str(if shown > 0 { ", " } else { "" })?;
            shown += 1;
            match element.map_err(|_| fmt::Error)? {
                Value::String(string) => write!(f, "{string:?}")?,
                other => write!(f, "{}", self.of(other))?,
            }
        }
        match array.len().saturating_sub(shown) {
            0 => f.write_char(']'),
            rest => write!(f, ", … {rest} more]"),
        }
    }
}

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.value {
            Value::String(string) if self.full => f.write_str(string),
            Value::String(string) => line(string, f),
            Value::Array(array) => self.array(array, f),
            Value::Bool(value) => value.fmt(f),
            Value::F32(value) => value.fmt(f),
            Value::F64(value) => value.fmt(f),
            Value::U64(value) => value.fmt(f),
            other => other.as_i64().ok_or(fmt::Error)?.fmt(f),
        }
    }
}

/// Numbers that JSON lacks become strings.
impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.value {
            Value::String(string) => serializer.serialize_str(string),
            Value::Array(array) => {
                let mut list = serializer.serialize_seq(None)?;
                for element in array.elements().take(self.most()) {
                    list.serialize_element(&self.of(element.map_err(S::Error::custom)?))?;
                }
                list.end()
            }
            Value::Bool(value) => serializer.serialize_bool(value),
            // As short as the file's own precision.
            Value::F32(value) if value.is_finite() => {
                serializer.serialize_f64(value.to_string().parse().unwrap_or(f64::from(value)))
            }
            Value::F64(value) if value.is_finite() => serializer.serialize_f64(value),
            Value::F32(_) | Value::F64(_) => serializer.collect_str(self),
            Value::U64(value) => serializer.serialize_u64(value),
            other => other.as_i64().ok_or_else(|| S::Error::custom("no number"))?.serialize(serializer),
        }
    }
}

/// A text in one line, its start if it is long.
fn line(string: &str, f: &mut fmt::Formatter) -> fmt::Result {
    let start = string.char_indices().nth(CHARACTERS + 1).map_or(string, |(end, _)| &string[..end]);
    let line = start.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'");
    match line.char_indices().nth(CHARACTERS) {
        Some((cut, _)) => write!(f, "{}… ({} bytes)", &line[..cut], string.len()),
        None => f.write_str(&line),
    }
}

//! Keys and values.

use std::path::PathBuf;

use anyhow::Context;
use format::Metadata;
use format::gguf::{ArrayView, Value};
use globset::{GlobBuilder, GlobMatcher};
use inspect::Subject;
use serde::Serialize;
use serde_json::{Map, Value as Json, json};

use super::{Each, Form};
use crate::commands::Outcome;
use crate::render::{Column, Table};

/// Elements of an array, and characters of a text, that are shown of many.
const ELEMENTS: usize = 6;
const CHARACTERS: usize = 120;

#[derive(Serialize)]
struct Keys {
    path: PathBuf,
    keys: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    key: String,
    r#type: String,
    /// How many elements an array has.
    #[serde(skip_serializing_if = "Option::is_none")]
    length: Option<u64>,
    /// Of a long array the first elements.
    value: Json,
    #[serde(skip)]
    shown: String,
}

pub(super) fn run(subjects: &[Subject], pattern: &str, full: bool, form: Form) -> anyhow::Result<Outcome> {
    let glob = GlobBuilder::new(pattern).build();
    let glob = glob.with_context(|| format!("{pattern:?} is no key and no glob"))?.compile_matcher();
    let keys: Vec<Keys> =
        subjects.iter().map(|subject| keys(subject, &glob, full)).collect::<anyhow::Result<_>>()?;
    anyhow::ensure!(
        pattern == "*" || keys.iter().any(|keys| !keys.keys.is_empty()),
        "no key matches {pattern:?}"
    );
    Ok(Outcome::new(Each(keys), false, move |each: &Each<Keys>, style| {
        each.text(
            |keys| &keys.path,
            style,
            |keys| match (form, keys.keys.as_slice()) {
                // One key alone is printed bare, for use in other commands.
                (Form::Text, [only]) if full => vec![only.shown.clone()],
                _ => {
                    let mut table =
                        Table::new(&[Column::Left("key"), Column::Left("type"), Column::Left("value")]);
                    for Entry { key, r#type, shown, .. } in &keys.keys {
                        table.row([key.clone(), r#type.clone(), shown.clone()]);
                    }
                    form.lines(&table, style)
                }
            },
        )
    }))
}

/// Every key with its value cut short, for other views.
pub(super) fn shown(subject: &Subject) -> Vec<[String; 3]> {
    let all = GlobBuilder::new("*").build().map(|glob| keys(subject, &glob.compile_matcher(), false));
    let Ok(Ok(keys)) = all else { return Vec::new() };
    keys.keys.into_iter().map(|entry| [entry.key, entry.r#type, entry.shown]).collect()
}

fn keys(subject: &Subject, glob: &GlobMatcher, full: bool) -> anyhow::Result<Keys> {
    let mut entries = Vec::new();
    match subject.source().metadata() {
        Metadata::Safetensors(map) => {
            for (key, value) in map.iter().filter(|(key, _)| glob.is_match(key)) {
                entries.push(Entry {
                    key: key.clone(),
                    r#type: "string".to_owned(),
                    length: None,
                    value: json!(value),
                    shown: text(value, full),
                });
            }
        }
        Metadata::Gguf(keys) => {
            for (key, value) in keys.iter().filter(|(key, _)| glob.is_match(key)) {
                let (shown, json) = describe(&value, full).with_context(|| format!("key {key:?}"))?;
                let array = value.as_array();
                let r#type = match array {
                    Some(array) => format!("[{}; {}]", array.element_type().name(), array.len()),
                    None => value.value_type().name().to_owned(),
                };
                entries.push(Entry {
                    key: key.to_owned(),
                    r#type,
                    length: array.map(|array| array.len()),
                    value: json,
                    shown,
                });
            }
        }
    }
    Ok(Keys { path: subject.path().to_owned(), keys: entries })
}

/// A value as text and as JSON. Numbers that JSON lacks become strings.
fn describe(value: &Value, full: bool) -> anyhow::Result<(String, Json)> {
    let float = |value: f64, text: String| {
        (text.clone(), serde_json::Number::from_f64(value).map_or(Json::String(text), Json::Number))
    };
    Ok(match *value {
        Value::String(string) => (text(string, full), json!(string)),
        Value::Array(array) => elements(array, full)?,
        Value::Bool(value) => (value.to_string(), json!(value)),
        Value::F32(value) => float(value.to_string().parse().unwrap_or(f64::from(value)), value.to_string()),
        Value::F64(value) => float(value, value.to_string()),
        Value::U64(value) => (value.to_string(), json!(value)),
        ref number => match number.as_i64() {
            Some(number) => (number.to_string(), json!(number)),
            None => (String::new(), Json::Object(Map::new())),
        },
    })
}

fn elements(array: ArrayView, full: bool) -> anyhow::Result<(String, Json)> {
    let most = if full { usize::MAX } else { ELEMENTS };
    let mut texts = Vec::new();
    let mut values = Vec::new();
    for element in array.elements().take(most) {
        let element = element?;
        let (text, json) = describe(&element, full)?;
        texts.push(match element {
            Value::String(string) => format!("{string:?}"),
            _ => text,
        });
        values.push(json);
    }
    let rest = array.len() - values.len() as u64;
    let more = if rest > 0 { format!(", … {rest} more") } else { String::new() };
    Ok((format!("[{}{more}]", texts.join(", ")), Json::Array(values)))
}

/// One line, unless all of it is wanted.
fn text(string: &str, full: bool) -> String {
    if full {
        return string.to_owned();
    }
    let line = string.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'");
    match line.char_indices().nth(CHARACTERS) {
        Some((cut, _)) => format!("{}… ({} bytes)", &line[..cut], string.len()),
        None => line,
    }
}

//! `etalon edit`.

use std::path::PathBuf;

use anyhow::Context;
use eval::Progress;
use format::gguf::{Array, Edit, Value, ValueType};
use format::{Existing, Limits};
use serde::Serialize;

use crate::commands::Outcome;
use crate::render::{Bar, Style};

/// Change keys and names of a GGUF or safetensors file; all else stays as it is, to the byte.
///
/// Of a split GGUF file edit the first part, which has the keys. Changes are made in this order: remove, rename, set.
/// Without any the output is the same file. Keys of a safetensors file are those of its __metadata__, all of them
/// texts; its header is written anew.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  etalon edit in.gguf out.gguf --set general.name=str:'My model' --remove general.url
  etalon edit in.gguf out.gguf --set qwen35.rope.dimension_sections='[i32]:11,11,10,0'
  etalon edit in.gguf out.gguf --chat-template template.jinja
  etalon edit in.gguf out.gguf --rename-tensor blk.0.ssm_dt=blk.0.ssm_dt.bias
  etalon edit in.gguf out.gguf --set tokenizer.ggml.pre=qwen35 --dry-run
  etalon edit in.safetensors out.safetensors --rename-tensor a.weight=b.weight --set format=pt")]
pub struct Args {
    /// A GGUF or safetensors file.
    #[arg(value_name = "IN")]
    pub(super) input: PathBuf,
    /// The file to be.
    #[arg(value_name = "OUT")]
    pub(super) output: PathBuf,
    /// Set a key. TYPE is u8, i8, … u64, i64, f32, f64, bool, str, or one of these in brackets for an array, of which
    /// strings are a JSON list; without a type a key keeps the one it has. May be repeated.
    #[arg(long, value_name = "KEY=TYPE:VALUE")]
    pub(super) set: Vec<String>,
    /// Remove a key; may be repeated.
    #[arg(long, value_name = "KEY")]
    pub(super) remove: Vec<String>,
    /// Give a key another name; may be repeated.
    #[arg(long, value_name = "OLD=NEW")]
    pub(super) rename: Vec<String>,
    /// Give a tensor another name; may be repeated.
    #[arg(long, value_name = "OLD=NEW")]
    pub(super) rename_tensor: Vec<String>,
    /// Set tokenizer.chat_template to the text of a file.
    #[arg(long, value_name = "FILE")]
    pub(super) chat_template: Option<PathBuf>,
    /// Print the changes and write nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Replace OUT if it exists; it may be IN.
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Serialize)]
pub(super) struct Edited {
    pub(super) output: PathBuf,
    pub(super) dry_run: bool,
    pub(super) changes: Vec<Change>,
}

#[derive(Serialize)]
pub(super) struct Change {
    pub(super) what: &'static str,
    pub(super) name: String,
    pub(super) to: String,
}

const CHAT_TEMPLATE: &str = "tokenizer.chat_template";

impl Args {
    pub fn run(self) -> anyhow::Result<Outcome> {
        if super::edit_safetensors::is_safetensors(&self.input)? {
            return super::edit_safetensors::run(&self);
        }
        let mut edit = Edit::open(&self.input, &Limits::default())?;
        let mut changes = Vec::new();
        let mut note =
            |what, name: &str, to: String| changes.push(Change { what, name: name.to_owned(), to });
        for key in &self.remove {
            edit.remove(key)?;
            note("remove", key, String::new());
        }
        for pair in &self.rename {
            let (old, new) = names(pair)?;
            edit.rename(old, new)?;
            note("rename", old, new.to_owned());
        }
        for pair in &self.rename_tensor {
            let (old, new) = names(pair)?;
            edit.rename_tensor(old, new)?;
            note("rename tensor", old, new.to_owned());
        }
        for setting in &self.set {
            let (key, text) = setting
                .split_once('=')
                .with_context(|| format!("--set {setting:?}: expected KEY=TYPE:VALUE"))?;
            let known = edit.value(key).map(|value| Type::of(&value));
            let parsed = Parsed::read(text, known).with_context(|| format!("--set {setting:?}"))?;
            edit.set(key, parsed.value())?;
            note("set", key, text.to_owned());
        }
        if let Some(file) = &self.chat_template {
            let text = std::fs::read_to_string(file);
            let text = text.with_context(|| format!("cannot read {}", file.display()))?;
            edit.set(CHAT_TEMPLATE, text.as_str())?;
            note("set", CHAT_TEMPLATE, file.display().to_string());
        }
        if !self.dry_run {
            let existing = if self.force { Existing::Replace } else { Existing::Refuse };
            let bar = Bar::new();
            bar.begin("copying tensors", edit.tensors().iter().map(|info| info.size).sum());
            edit.write(&self.output, existing, &mut |done, _| bar.reached(done))?;
        }
        Ok(Outcome::fine(Edited { output: self.output, dry_run: self.dry_run, changes }, text))
    }
}

pub(super) fn text(edited: &Edited, style: &Style) -> String {
    let mut lines: Vec<String> = edited
        .changes
        .iter()
        .map(|Change { what, name, to }| format!("{what} {name} {to}").trim_end().to_owned())
        .collect();
    let path = style.bold(&edited.output.display().to_string());
    lines.push(match (edited.dry_run, edited.changes.len()) {
        (true, _) => "nothing was written".to_owned(),
        (false, 0) => format!("{path}: a copy, nothing is changed"),
        (false, 1) => format!("{path}: one change"),
        (false, n) => format!("{path}: {n} changes"),
    });
    lines.join("\n") + "\n"
}

/// Neither keys nor names of tensors hold an equals sign.
pub(super) fn names(pair: &str) -> anyhow::Result<(&str, &str)> {
    pair.split_once('=').with_context(|| format!("{pair:?}: expected OLD=NEW"))
}

/// The type of a value, or of the elements of an array.
#[derive(Clone, Copy)]
struct Type {
    element: ValueType,
    array: bool,
}

impl Type {
    fn of(value: &Value) -> Type {
        match value {
            Value::Array(array) => Type { element: array.element_type(), array: true },
            value => Type { element: value.value_type(), array: false },
        }
    }

    fn from_name(name: &str) -> Option<Type> {
        let inner = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let element = match inner.unwrap_or(name) {
            "str" => ValueType::String,
            name => *ValueType::ALL.iter().find(|t| t.name() == name && **t != ValueType::Array)?,
        };
        Some(Type { element, array: inner.is_some() })
    }
}

/// A value that was read from the command line.
#[derive(Debug)]
enum Parsed {
    Text(String),
    Array(Array),
    Plain(Value<'static>),
}

impl Parsed {
    /// Reads `TYPE:VALUE`, or `VALUE` of a type that is known. Where the text could be either, it names its type.
    fn read(text: &str, known: Option<Type>) -> anyhow::Result<Parsed> {
        let named = text.split_once(':').and_then(|(name, rest)| Some((Type::from_name(name)?, rest)));
        let (kind, text) = match (named, known) {
            (Some(named), _) => named,
            (None, Some(known)) => (known, text),
            (None, None) => anyhow::bail!("a new key needs a type, as in u32:7 or str:text"),
        };
        let expected = |n: usize| format!("element {n} is no {}", kind.element.name());
        if !kind.array {
            return match kind.element {
                ValueType::String => Ok(Parsed::Text(text.to_owned())),
                element => plain(element, text)
                    .map(Parsed::Plain)
                    .with_context(|| format!("{text:?} is no {}", element.name())),
            };
        }
        if kind.element == ValueType::String {
            let strings: Vec<String> =
                serde_json::from_str(text).context("expected a JSON list of strings")?;
            return Ok(Parsed::Array(strings.iter().map(String::as_str).collect()));
        }
        let inside = text.trim();
        let inside = inside.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(inside);
        let parts = inside.split(',').map(str::trim).filter(|part| !part.is_empty());
        let values =
            parts.enumerate().map(|(n, part)| plain(kind.element, part).with_context(|| expected(n)));
        array(kind.element, values.collect::<anyhow::Result<_>>()?).map(Parsed::Array)
    }

    fn value(&self) -> Value<'_> {
        match self {
            Parsed::Text(text) => Value::String(text),
            Parsed::Array(array) => array.into(),
            Parsed::Plain(value) => *value,
        }
    }
}

fn plain(kind: ValueType, text: &str) -> Option<Value<'static>> {
    Some(match kind {
        ValueType::U8 => Value::U8(text.parse().ok()?),
        ValueType::I8 => Value::I8(text.parse().ok()?),
        ValueType::U16 => Value::U16(text.parse().ok()?),
        ValueType::I16 => Value::I16(text.parse().ok()?),
        ValueType::U32 => Value::U32(text.parse().ok()?),
        ValueType::I32 => Value::I32(text.parse().ok()?),
        ValueType::F32 => Value::F32(text.parse().ok()?),
        ValueType::Bool => Value::Bool(text.parse().ok()?),
        ValueType::U64 => Value::U64(text.parse().ok()?),
        ValueType::I64 => Value::I64(text.parse().ok()?),
        ValueType::F64 => Value::F64(text.parse().ok()?),
        ValueType::String | ValueType::Array => return None,
    })
}

fn array(kind: ValueType, values: Vec<Value<'static>>) -> anyhow::Result<Array> {
    macro_rules! gather {
        ($($variant:ident)*) => {
            match kind {
                $(ValueType::$variant => values
                    .into_iter()
                    .filter_map(|value| if let Value::$variant(value) = value { Some(value) } else { None })
                    .collect(),)*
                ValueType::String | ValueType::Array => anyhow::bail!("arrays of {} are not set here", kind.name()),
            }
        };
    }
    Ok(gather!(U8 I8 U16 I16 U32 I32 F32 Bool U64 I64 F64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Parsed {
        Parsed::read(text, None).unwrap()
    }

    #[test]
    fn values_have_the_types_that_are_named() {
        assert_eq!(read("u32:7").value(), Value::U32(7));
        assert_eq!(read("f32:1e-6").value(), Value::F32(1e-6));
        assert_eq!(read("bool:true").value(), Value::Bool(true));
        assert_eq!(read("str:a:b").value(), Value::String("a:b"));
        assert_eq!(read("string:").value(), Value::String(""));
        let sections: Array = [11i32, 11, 10, 0].into_iter().collect();
        for text in ["[i32]:11,11,10,0", "[i32]:[11, 11, 10, 0]"] {
            assert_eq!(read(text).value(), Value::Array(sections.view()));
        }
        let strings: Array = ["a,b", "c"].into_iter().collect();
        assert_eq!(read("[str]:[\"a,b\", \"c\"]").value(), Value::Array(strings.view()));
        let known = |value: Value| Some(Type::of(&value));
        assert_eq!(Parsed::read("7", known(Value::U16(1))).unwrap().value(), Value::U16(7));
        assert_eq!(
            Parsed::read("http://x", known(Value::String(""))).unwrap().value(),
            Value::String("http://x")
        );
        for wrong in ["7", "u8:256", "u32:-1", "bool:1", "[i32]:1,x", "[str]:a", "array:1", "[[i32]]:1"] {
            assert!(Parsed::read(wrong, None).is_err(), "{wrong}");
        }
    }
}

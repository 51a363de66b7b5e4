//! Chat templates: messages to the text that a model was trained on.
//!
//! Templates are Jinja as Transformers runs it: blocks trimmed, loop controls, Python's string methods, `tojson` as
//! Python's `json` prints it, `raise_exception` and `strftime_now`.

use std::collections::BTreeMap;
use std::path::Path;

use format::Metadata;
use minijinja::value::Kwargs;
use minijinja::{Environment, ErrorKind, Output, State, Value};
use model::Checkpoint;
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter};

use crate::Error;

/// The most instructions that rendering takes: templates come with checkpoints, and one that never ends is refused.
/// A thousand messages through a template of this family take some 10⁵.
const FUEL: u64 = 20_000_000;

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// Its text.
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: &str, content: impl Into<String>) -> Message {
        Message { role: role.to_owned(), content: content.into() }
    }
}

/// A template that has been read.
pub struct Template {
    environment: Environment<'static>,
    /// What the checkpoint defines for it: `bos_token`, `eos_token`.
    tokens: Vec<(String, String)>,
}

const NAME: &str = "chat template";

impl Template {
    /// The template of a checkpoint: `chat_template.jinja` or `tokenizer_config.json` of a directory,
    /// `tokenizer.chat_template` of a GGUF file.
    ///
    /// # Errors
    /// There is none, or it is no template.
    pub fn of(checkpoint: &Checkpoint) -> Result<Template, Error> {
        let mut tokens = Vec::new();
        let source = match checkpoint.source().metadata() {
            Metadata::Gguf(keys) => {
                let vocabulary = keys.get_array("tokenizer.ggml.tokens").ok();
                for (name, key) in [
                    ("bos_token", "tokenizer.ggml.bos_token_id"),
                    ("eos_token", "tokenizer.ggml.eos_token_id"),
                ] {
                    let id = keys.get_u64(key).ok().and_then(|id| usize::try_from(id).ok());
                    let element = id.and_then(|id| vocabulary.as_ref()?.elements().nth(id)?.ok());
                    if let Some(text) = element.and_then(|value| value.as_str().map(str::to_owned)) {
                        tokens.push((name.to_owned(), text));
                    }
                }
                keys.get_str("tokenizer.chat_template").ok().map(str::to_owned)
            }
            Metadata::Safetensors(_) => {
                let dir = directory(checkpoint.path());
                let config = crate::ends::json_file(&dir.join("tokenizer_config.json"))?;
                for name in ["bos_token", "eos_token"] {
                    if let Some(text) = config.as_ref().and_then(|config| token_text(&config[name])) {
                        tokens.push((name.to_owned(), text.to_owned()));
                    }
                }
                let file = dir.join("chat_template.jinja");
                match std::fs::read_to_string(&file) {
                    Ok(text) => Some(text),
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                        config.as_ref().and_then(|config| in_config(&config["chat_template"]))
                    }
                    Err(source) => return Err(Error::Read { path: file, source }),
                }
            }
        };
        let source = source.ok_or_else(|| Error::NoTemplate { model: checkpoint.path().to_owned() })?;
        let mut template = Template::new(&source)?;
        template.tokens = tokens;
        Ok(template)
    }

    /// A template from its text.
    ///
    /// # Errors
    /// It is no Jinja, or uses a tag that is not known.
    pub fn new(source: &str) -> Result<Template, Error> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_fuel(Some(FUEL));
        environment.set_formatter(python_text);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", tojson);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_template_owned(NAME, source.to_owned()).map_err(Error::template)?;
        Ok(Template { environment, tokens: Vec::new() })
    }

    /// The text of `messages` ([`Message`], or whatever a template understands), ready for the assistant's answer.
    /// `variables` are what a template takes besides: `enable_thinking`, `tools`.
    ///
    /// # Errors
    /// Whatever the template refuses, and one that does not end.
    pub fn render<M: Serialize + ?Sized>(
        &self,
        messages: &M,
        variables: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<String, Error> {
        let own = self.tokens.iter().map(|(name, text)| (name.clone(), Value::from(text.as_str())));
        let given = variables.iter().map(|(name, value)| (name.clone(), Value::from_serialize(value)));
        let mut context: BTreeMap<String, Value> = own.chain(given).collect();
        context.insert("messages".to_owned(), Value::from_serialize(messages));
        context.entry("add_generation_prompt".to_owned()).or_insert(true.into());
        let template = self.environment.get_template(NAME).map_err(Error::template)?;
        template.render(context).map_err(Error::template)
    }
}

/// `"<s>"`, or an added token as an object.
pub(crate) fn token_text(value: &serde_json::Value) -> Option<&str> {
    value.as_str().or_else(|| value["content"].as_str())
}

/// A template in `tokenizer_config.json`: its text, or a list of named ones of which `default` is meant.
fn in_config(value: &serde_json::Value) -> Option<String> {
    let named = || value.as_array()?.iter().find(|t| t["name"] == "default")?["template"].as_str();
    value.as_str().or_else(named).map(str::to_owned)
}

/// The directory that a checkpoint's small files stand in.
pub(crate) fn directory(path: &Path) -> &Path {
    if path.is_dir() { path } else { path.parent().unwrap_or(Path::new(".")) }
}

/// Prints truth values and nothing as Python does.
fn python_text(out: &mut Output<'_>, _: &State<'_, '_>, value: &Value) -> Result<(), minijinja::Error> {
    match value.as_str() {
        Some(text) => out.write_str(text)?,
        None if value.is_undefined() => {}
        None if value.is_none() => out.write_str("None")?,
        None if *value == Value::from(true) && value.kind() == minijinja::value::ValueKind::Bool => {
            out.write_str("True")?;
        }
        None if value.kind() == minijinja::value::ValueKind::Bool => out.write_str("False")?,
        None => write!(out, "{value}")?,
    }
    Ok(())
}

fn raise_exception(message: String) -> Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
}

/// Now, in this place's time, as C's `strftime` writes it.
fn strftime_now(form: &str) -> Result<String, minijinja::Error> {
    jiff::fmt::strtime::format(form, &jiff::Zoned::now()).map_err(|e| {
        minijinja::Error::new(ErrorKind::InvalidOperation, format!("strftime_now({form:?}): {e}"))
    })
}

/// `json.dumps(value, ensure_ascii=False, indent=indent)`: Python puts a space after commas and colons, and nothing is
/// escaped for HTML.
fn tojson(value: &Value, options: Kwargs) -> Result<Value, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    let _: Option<bool> = options.get("ensure_ascii")?; // text stays as it is, which is what templates ask for
    options.assert_all_used()?;
    let mut out = Vec::new();
    let written = match indent {
        Some(width) => {
            let width = vec![b' '; width.min(16)];
            let form = PrettyFormatter::with_indent(&width);
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, form))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, OneLine)),
    };
    written.map_err(|e| minijinja::Error::new(ErrorKind::BadSerialization, e.to_string()))?;
    Ok(Value::from_safe_string(String::from_utf8_lossy(&out).into_owned()))
}

/// JSON on one line as Python spaces it.
struct OneLine;

impl Formatter for OneLine {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Map, json};

    fn render(source: &str, given: serde_json::Value) -> Result<String, String> {
        let serde_json::Value::Object(mut given) = given else { panic!("{given} is no object") };
        let messages = given.remove("messages").unwrap_or_default();
        Template::new(source).and_then(|t| t.render(&messages, &given)).map_err(|e| e.to_string())
    }

    /// What Jinja makes of conversations, set up as Transformers does: `fixtures/chat/make.py`.
    #[test]
    fn templates_of_the_family_give_what_jinja_gives() {
        let room = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/chat");
        let source = std::fs::read_to_string(room.join("template.jinja")).unwrap();
        let cases: Vec<serde_json::Value> =
            serde_json::from_slice(&std::fs::read(room.join("cases.json")).unwrap()).unwrap();
        assert_eq!(cases.len(), 14);
        for case in cases {
            match (render(&source, case["given"].clone()), case["error"].as_str()) {
                (Ok(text), None) => assert_eq!(text, case["text"], "{}", case["name"]),
                (Err(error), Some(expected)) => {
                    assert!(error.contains(expected), "{}: {error}", case["name"]);
                }
                (found, _) => panic!("{}: {found:?}", case["name"]),
            }
        }
    }

    #[test]
    fn values_print_as_in_python() {
        let given = json!({"x": {"b": [1, 2.0, null], "a": "<é'>"}, "yes": true, "none": null});
        for (source, expected) in [
            ("{{ x | tojson }}", r#"{"b": [1, 2.0, null], "a": "<é'>"}"#),
            ("{{ [] | tojson(indent=2) }}", "[]"),
            ("{{ x.b | tojson(indent=2) }}", "[\n  1,\n  2.0,\n  null\n]"),
            ("{{ x.b | tojson(ensure_ascii=False) }}", "[1, 2.0, null]"),
            ("{{ yes }} {{ not yes }} {{ none }} {{ nothing }}", "True False None "),
            ("{{ x.items() | list | length }}{{ ' a b '.strip().upper() }}", "2A B"),
            ("{% for i in range(3) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}\n{% endfor %}", "0\n1\n"),
        ] {
            assert_eq!(render(source, given.clone()).unwrap(), expected, "{source}");
        }
        let year: i32 = render("{{ strftime_now('%Y') }}", json!({})).unwrap().parse().unwrap();
        assert!(year >= 2024);
    }

    #[test]
    fn bad_templates_are_refused_where_they_are_bad() {
        for (source, part) in [
            ("a\n{% if %}", "line 2"),
            ("{% generation %}", "generation"),
            ("{{ raise_exception('too long') }}", "too long"),
            ("{{ strftime_now('%') }}", "strftime_now"),
            ("{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}", "fuel"),
        ] {
            let error = render(source, json!({})).unwrap_err();
            assert!(error.starts_with("chat template") && error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_configuration_may_name_several() {
        let several = json!([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]);
        assert_eq!(in_config(&several).as_deref(), Some("d"));
        assert_eq!(in_config(&json!("one")).as_deref(), Some("one"));
        assert_eq!(in_config(&json!(null)), None);
        assert_eq!(token_text(&json!({"content": "<s>"})), Some("<s>"));
    }

    /// Both forms of a model have the same template and tokens.
    #[test]
    fn checkpoints_bring_their_template() {
        for model in ["models/dense-text-f32", "gguf-good/dense-text-f32-f32.gguf"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(model);
            let checkpoint = Checkpoint::open(&path, &format::Limits::default()).unwrap();
            let template = Template::of(&checkpoint).unwrap();
            let messages = [Message::new("system", "s"), Message::new("user", "u")];
            let text = template.render(&messages[..], &Map::new()).unwrap();
            assert_eq!(
                text,
                "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n"
            );
            assert_eq!(render_with(&template, "{{ eos_token }}"), "<|im_end|>", "{model}");
            let ends = crate::end_tokens(&checkpoint, None, false).unwrap();
            assert_eq!(ends.into_iter().collect::<Vec<_>>(), [497], "{model}");
        }
    }

    fn render_with(template: &Template, source: &str) -> String {
        let other = Template { tokens: template.tokens.clone(), ..Template::new(source).unwrap() };
        other.render::<[Message]>(&[], &Map::new()).unwrap()
    }
}

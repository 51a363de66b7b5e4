//! The front matter of a model card: the YAML at the head of `README.md`.

use std::fs;
use std::path::Path;

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// The longest card that is read, in bytes.
const CARD_BYTES: u64 = 4 << 20;
/// Lists and maps within each other; those of results go to eight.
const DEPTH: usize = 32;

/// Reads the front matter of `dir/README.md`; empty where there is none. Every scalar comes as its text, but for `null`:
/// a language called `no` is no truth value.
///
/// # Errors
/// What keeps it from being read, in a sentence.
pub(crate) fn front_matter(dir: &Path) -> Result<Map<String, Value>, String> {
    let path = dir.join("README.md");
    let refused =
        |what: String| Err(format!("README.md: {what}: its license, tags and the like are not taken"));
    let Ok(metadata) = path.metadata() else { return Ok(Map::new()) };
    if !metadata.is_file() {
        return Ok(Map::new());
    }
    if metadata.len() > CARD_BYTES {
        return refused(format!("{} bytes are more than the {CARD_BYTES} that are read", metadata.len()));
    }
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => return refused(error.to_string()),
    };
    let mut lines = text.lines();
    if lines.next() != Some("---") {
        return Ok(Map::new());
    }
    // Some cards indent by tabs, which YAML forbids.
    let yaml: String = lines
        .take_while(|line| *line != "---")
        .flat_map(|line| [line, "\n"])
        .collect::<String>()
        .replace('\t', "  ");
    match parsed(&yaml) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(Value::Null) => Ok(Map::new()),
        Ok(_) => refused("the front matter is no map".to_owned()),
        Err(what) => refused(what),
    }
}

/// A list or a map that is not complete yet.
enum Open {
    List(Vec<Value>),
    /// With the key whose value comes next.
    Map(Map<String, Value>, Option<String>),
}

impl Open {
    fn add(&mut self, value: Value) -> Result<(), String> {
        match self {
            Open::List(list) => list.push(value),
            Open::Map(map, key) => match (key.take(), value) {
                (Some(key), value) => {
                    map.insert(key, value);
                }
                (None, Value::String(text)) => *key = Some(text),
                (None, Value::Null) => *key = Some("null".to_owned()),
                (None, _) => return Err("a key of the front matter is a list or a map".to_owned()),
            },
        }
        Ok(())
    }
}

/// Events come one by one, so that nothing recurses; anchors are not repeated, so that nothing multiplies.
fn parsed(yaml: &str) -> Result<Value, String> {
    let (mut open, mut whole) = (Vec::<Open>::new(), Value::Null);
    for event in Parser::new_from_str(yaml) {
        let (event, _) = event.map_err(|error| format!("the front matter is no YAML ({error})"))?;
        let complete = match event {
            Event::Scalar(text, ScalarStyle::Plain, ..)
                if ["", "~", "null", "Null", "NULL"].contains(&text.as_ref()) =>
            {
                Value::Null
            }
            Event::Scalar(text, ..) => Value::String(text.into_owned()),
            Event::SequenceStart(..) | Event::MappingStart(..) if open.len() == DEPTH => {
                return Err(format!("lists and maps are within each other more than {DEPTH} deep"));
            }
            Event::SequenceStart(..) => {
                open.push(Open::List(Vec::new()));
                continue;
            }
            Event::MappingStart(..) => {
                open.push(Open::Map(Map::new(), None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(list)) => Value::Array(list),
                Some(Open::Map(map, _)) => Value::Object(map),
                None => continue,
            },
            Event::Alias(_) => return Err("the front matter repeats itself by an alias (*name)".to_owned()),
            _ => continue,
        };
        match open.last_mut() {
            Some(outer) => outer.add(complete)?,
            None => whole = complete,
        }
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(card: &str) -> Result<Map<String, Value>, String> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("README.md"), card).unwrap();
        front_matter(dir.path())
    }

    #[test]
    fn scalars_are_text() {
        let fields = read(
            "---\nlicense: 'mit'\nlanguage:\n- no\n- en\nversion: 2.0\nname: ~\nx: {a: [1, b]}\n---\n# T\n---\n",
        );
        let expected = serde_json::json!({
            "license": "mit", "language": ["no", "en"], "version": "2.0", "name": null, "x": {"a": ["1", "b"]},
        });
        assert_eq!(Value::Object(fields.unwrap()), expected);
    }

    #[test]
    fn what_is_no_front_matter_is_nothing_or_said() {
        for nothing in ["", "# Title\n", "---\n---\n", " ---\nlicense: mit\n---\n"] {
            assert!(read(nothing).unwrap().is_empty(), "{nothing:?}");
        }
        assert!(front_matter(Path::new("/nowhere")).unwrap().is_empty());
        let deep = "[".repeat(40) + &"]".repeat(40);
        let endless = "[".repeat(100_000);
        let bomb = "a: &a [x, x]\nb: &b [*a, *a]\n";
        for (card, said) in [
            ("- a\n- b\n", "no map"),
            ("a: [1\nb: }\n", "no YAML"),
            (bomb, "alias"),
            (deep.as_str(), "deep"),
            (endless.as_str(), "recursion"),
            ("? [a]\n: b\n", "a key"),
        ] {
            let refused = read(&format!("---\n{card}---\n")).unwrap_err();
            assert!(refused.contains(said) && refused.starts_with("README.md"), "{refused}");
        }
    }
}

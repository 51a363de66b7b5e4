//! The keys of the file to be: those of the source, and what is set after them, as llama-quantize orders them.

use format::gguf::{Array, Draft, KeyValues, Value};

use super::error::Error;

/// An array that has not one element for each layer, though its four may look like it.
const NOT_BY_LAYER: &str = ".rope.dimension_sections";

/// Keys in order. Setting one moves it to the end.
pub struct Keys<'a> {
    entries: Vec<(String, Entry<'a>)>,
}

enum Entry<'a> {
    Stored(Value<'a>),
    Set(Set),
    Array(Array),
}

/// A value that a key is given.
#[derive(Clone, PartialEq, Debug)]
pub enum Set {
    /// A number.
    U32(u32),
    /// A number.
    F32(f32),
    /// True or false.
    Bool(bool),
    /// Text.
    String(String),
}

impl Set {
    /// A key and its value from `KEY=TYPE:VALUE`, TYPE being int, float, bool or str.
    ///
    /// # Errors
    /// What else it is.
    pub fn parse(text: &str) -> Result<(String, Set), Error> {
        let wrong = |what: &str| Error::Request { what: format!("--override-kv {text:?}: {what}") };
        let (key, typed) = text.split_once('=').ok_or_else(|| wrong("expected KEY=TYPE:VALUE"))?;
        let (kind, value) =
            typed.split_once(':').ok_or_else(|| wrong("expected a type: int, float, bool or str"))?;
        let set = match kind {
            // Numbers are stored without sign, as llama-quantize does.
            "int" => {
                value.parse::<i64>().ok().and_then(|n| u32::try_from(n.unsigned_abs()).ok()).map(Set::U32)
            }
            "float" => value.parse::<f64>().ok().map(|x| Set::F32(x as f32)),
            "bool" => value.parse().ok().map(Set::Bool),
            "str" => Some(Set::String(value.to_owned())),
            _ => return Err(wrong("expected a type: int, float, bool or str")),
        };
        match set {
            Some(set) if !key.is_empty() => Ok((key.to_owned(), set)),
            _ => Err(wrong(&format!("{value:?} is no {kind}, or the key is empty"))),
        }
    }
}

impl<'a> Keys<'a> {
    /// Those of an open file, but for what says that it is one of several.
    pub fn of(keys: &'a KeyValues) -> Keys<'a> {
        const SPLIT: [&str; 3] = ["split.no", "split.count", "split.tensors.count"];
        let entries = keys.iter().filter(|(key, _)| !SPLIT.contains(key));
        Keys { entries: entries.map(|(key, value)| (key.to_owned(), Entry::Stored(value))).collect() }
    }

    /// Gives a key a value, at the end.
    pub fn set(&mut self, key: &str, value: Set) {
        self.entries.retain(|(own, _)| own != key);
        self.entries.push((key.to_owned(), Entry::Set(value)));
    }

    /// Text.
    pub fn string(&self, key: &str) -> Option<String> {
        match self.get(key)? {
            Entry::Stored(Value::String(text)) => Some((*text).to_owned()),
            Entry::Set(Set::String(text)) => Some(text.clone()),
            _ => None,
        }
    }

    /// A number; of an array the first.
    pub fn number(&self, key: &str) -> Option<u64> {
        match self.get(key)? {
            Entry::Stored(Value::Array(array)) => array.elements().next()?.ok()?.as_u64(),
            Entry::Stored(value) => value.as_u64(),
            Entry::Set(Set::U32(number)) => Some((*number).into()),
            _ => None,
        }
    }

    /// Leaves layers out: from every array of the architecture that has an element for each, and from their count.
    pub fn prune(&mut self, pruned: &[u64], left: u64) {
        let Some(architecture) = self.string("general.architecture") else { return };
        let count_key = format!("{architecture}.block_count");
        let Some(layers) = self.number(&count_key) else { return };
        let own = format!("{architecture}.");
        for (key, entry) in self.entries.iter_mut().filter(|(key, _)| key.starts_with(&own)) {
            let Entry::Stored(Value::Array(array)) = entry else { continue };
            if array.len() != layers || key.ends_with(NOT_BY_LAYER) {
                continue;
            }
            let kept = array.elements().enumerate().filter(|(i, _)| !pruned.contains(&(*i as u64)));
            let kept: Vec<Value<'_>> = kept.filter_map(|(_, value)| value.ok()).collect();
            if let Some(array) = array_of(&kept) {
                *entry = Entry::Array(array);
            }
        }
        self.set(&count_key, Set::U32(left as u32));
    }

    /// Puts all of them into a draft.
    pub fn put(&self, draft: &mut Draft) -> Result<(), Error> {
        for (key, entry) in &self.entries {
            match entry {
                Entry::Stored(value) => draft.put(key, *value)?,
                Entry::Array(array) => draft.put(key, array)?,
                Entry::Set(Set::U32(number)) => draft.put(key, *number)?,
                Entry::Set(Set::F32(number)) => draft.put(key, *number)?,
                Entry::Set(Set::Bool(truth)) => draft.put(key, *truth)?,
                Entry::Set(Set::String(text)) => draft.put(key, text.as_str())?,
            }
        }
        Ok(())
    }

    fn get(&self, key: &str) -> Option<&Entry<'a>> {
        self.entries.iter().find(|(own, _)| own == key).map(|(_, entry)| entry)
    }
}

/// Values of one of the types that layers have.
fn array_of(values: &[Value<'_>]) -> Option<Array> {
    macro_rules! gather {
        ($($variant:ident),*) => {
            match values.first()? {
                $(Value::$variant(_) => values.iter().map(|v| match v {
                    Value::$variant(x) => Some(*x),
                    _ => None,
                }).collect::<Option<Vec<_>>>().map(|values| values.into_iter().collect()),)*
                _ => None,
            }
        };
    }
    gather!(U8, I8, U16, I16, U32, I32, U64, I64, F32, F64, Bool)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_have_types() {
        let parse = |text| Set::parse(text).map_err(|e| e.to_string());
        assert_eq!(parse("a.b=int:-7"), Ok(("a.b".into(), Set::U32(7))));
        assert_eq!(parse("a=float:0.5"), Ok(("a".into(), Set::F32(0.5))));
        assert_eq!(parse("a=bool:true"), Ok(("a".into(), Set::Bool(true))));
        assert_eq!(parse("a=str:x=y:z"), Ok(("a".into(), Set::String("x=y:z".into()))));
        for wrong in ["a", "a=7", "a=int:x", "a=bool:1", "=int:1", "a=i8:1"] {
            assert!(parse(wrong).is_err_and(|e| e.contains(wrong)), "{wrong}");
        }
    }
}

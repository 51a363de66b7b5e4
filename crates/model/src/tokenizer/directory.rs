//! The tokenizer in a Hugging Face directory: `tokenizer.json`, or `vocab.json` with `merges.txt`.

use super::vocabulary::{self, Pipeline, QWEN35, Vocabulary, split_merge};
use super::{Tokenizer, TokenizerError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tokenizers::models::bpe::Vocab;
use tokenizers::normalizers::unicode::{NFC, NFD, NFKC, NFKD};
use tokenizers::{AddedToken, NormalizerWrapper, PreTokenizerWrapper};

/// `tokenizer.json`. Its truncation, padding and template are left unread: they shape a batch, not the ids of a text.
#[derive(Deserialize)]
struct TokenizerJson {
    #[serde(default)]
    version: Value,
    #[serde(default)]
    added_tokens: Vec<Numbered>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    model: Model,
}

#[derive(Deserialize)]
struct Numbered {
    id: u32,
    #[serde(flatten)]
    token: AddedToken,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    dropout: Option<f32>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    vocab: Vocab,
    merges: Merges,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merges {
    Pairs(Vec<(String, String)>),
    Lines(Vec<String>),
}

/// `tokenizer_config.json`, as far as `vocab.json` and `merges.txt` need it.
#[derive(Default, Deserialize)]
struct TokenizerConfig {
    #[serde(default)]
    added_tokens_decoder: BTreeMap<u32, AddedToken>,
}

/// What the tokenizer files of a Hugging Face directory say, checked: for writing it down in another form.
pub struct Parts {
    /// Every token that text can become, the added ones included, and its id.
    pub tokens: Vec<(String, u32)>,
    /// Pairs of tokens, the best rank first.
    pub merges: Vec<(String, String)>,
    /// Tokens found in the text before it is split, by id, and whether they are special.
    pub added: Vec<(u32, bool)>,
    /// The splitting rule, as GGUF's `tokenizer.ggml.pre` names it.
    pub pre: &'static str,
    /// The kind of post-processor; a byte-level one adds no token to a text.
    pub post_processor: Option<String>,
}

impl Parts {
    /// Reads the files that [`Tokenizer::from_hf_dir`] reads.
    ///
    /// # Errors
    /// The same, and a splitting rule that has no name in GGUF.
    pub fn from_hf_dir(dir: &Path) -> Result<Parts, TokenizerError> {
        let (vocabulary, pre, post_processor) = match Files::find(dir)? {
            Files::Json(path) => {
                let mut file = TokenizerJson::read(&path)?;
                let pre = splitting_rule(&path, &file.pre_tokenizer)?;
                let post_processor =
                    Some(kind(&file.post_processor).to_owned()).filter(|kind| !kind.is_empty());
                // Everything else about it is checked on the way to a tokenizer.
                file.pre_tokenizer = Value::Null;
                (file.into_vocabulary(&path)?, pre, post_processor)
            }
            Files::Pair(vocab, merges) => {
                (vocab_and_merges(&vocab, &merges, &dir.join(CONFIG))?, QWEN35, None)
            }
        };
        vocabulary.check()?;
        let Vocabulary { tokens, merges, added, .. } = vocabulary;
        let added = added.iter().filter_map(|token| Some((*tokens.get(&token.content)?, token.special)));
        Ok(Parts {
            added: added.collect(),
            tokens: tokens.into_iter().collect(),
            merges,
            pre,
            post_processor,
        })
    }
}

/// The name of the splitting rule in a pre-tokenizer, which must be the family's own but for its regex.
fn splitting_rule(path: &Path, step: &Value) -> Result<&'static str, TokenizerError> {
    let steps = step["pretokenizers"].as_array().map(Vec::as_slice);
    let regex = match (kind(step), steps) {
        ("Sequence", Some([split, bytes]))
            if kind(split) == "Split"
                && split["behavior"] == "Isolated"
                && split["invert"] == false
                && kind(bytes) == "ByteLevel"
                && bytes["add_prefix_space"] == false
                && bytes["use_regex"] == false =>
        {
            split["pattern"]["Regex"].as_str()
        }
        _ => None,
    };
    let Some(regex) = regex else {
        return Err(refuse(path, "pre_tokenizer", step, "a Sequence of one isolating Split, then ByteLevel"));
    };
    vocabulary::name_of(regex).ok_or_else(|| TokenizerError::UnknownSplit {
        path: path.to_owned(),
        found: regex.to_owned(),
        known: vocabulary::names(),
    })
}

const CONFIG: &str = "tokenizer_config.json";

/// Which files a directory's tokenizer is in.
enum Files {
    Json(PathBuf),
    Pair(PathBuf, PathBuf),
}

impl Files {
    fn find(dir: &Path) -> Result<Files, TokenizerError> {
        let [json, vocab, merges] = ["tokenizer.json", "vocab.json", "merges.txt"].map(|name| dir.join(name));
        if json.exists() {
            return Ok(Files::Json(json));
        }
        let found = match (vocab.exists(), merges.exists()) {
            (true, true) => return Ok(Files::Pair(vocab, merges)),
            (true, false) => "only vocab.json",
            (false, true) => "only merges.txt",
            (false, false) => "none of them",
        };
        Err(TokenizerError::NoTokenizer { dir: dir.to_owned(), found })
    }
}

impl Tokenizer {
    /// Reads `dir/tokenizer.json`; where there is none, `dir/vocab.json` and `dir/merges.txt`, with the added tokens
    /// of `dir/tokenizer_config.json` if that exists and the splitting rule of Qwen3.5.
    ///
    /// # Errors
    /// Files that are missing, unreadable or malformed, and vocabularies that would not give every text one row of
    /// ids, the same as Hugging Face's.
    pub fn from_hf_dir(dir: &Path) -> Result<Tokenizer, TokenizerError> {
        match Files::find(dir)? {
            Files::Json(path) => {
                let mut file = TokenizerJson::read(&path)?;
                let pipeline = Pipeline {
                    normalizer: normalizer(&path, &file.normalizer)?,
                    pre_tokenizer: pre_tokenizer(&path, file.pre_tokenizer.take())?,
                };
                file.into_vocabulary(&path)?.build(pipeline)
            }
            Files::Pair(vocab, merges) => {
                vocab_and_merges(&vocab, &merges, &dir.join(CONFIG))?.build(Pipeline::of_qwen(QWEN35, true)?)
            }
        }
    }
}

impl TokenizerJson {
    /// Parses a file and refuses what is no deterministic byte-level BPE.
    fn read(path: &Path) -> Result<TokenizerJson, TokenizerError> {
        let file: TokenizerJson =
            parse(path, "a tokenizer.json of Hugging Face's tokenizers with a BPE model")?;
        if !file.version.is_null() && file.version != "1.0" {
            return Err(refuse(path, "version", &file.version, "\"1.0\""));
        }
        check_model(path, &file.model)?;
        if kind(&file.decoder) != "ByteLevel" {
            return Err(refuse(path, "decoder", &file.decoder, "ByteLevel"));
        }
        normalizer(path, &file.normalizer)?;
        Ok(file)
    }

    fn into_vocabulary(self, path: &Path) -> Result<Vocabulary, TokenizerError> {
        let place = path.display().to_string();
        let Model { vocab, merges, ignore_merges, .. } = self.model;
        let merges = match merges {
            Merges::Pairs(pairs) => pairs,
            Merges::Lines(lines) => split_lines(lines.iter().map(String::as_str), &place)?,
        };
        let mut vocabulary = Vocabulary {
            merges_place: place.clone(),
            place,
            tokens: vocab,
            merges,
            added: Vec::new(),
            ignore_merges,
        };
        for Numbered { id, token } in self.added_tokens {
            // The library numbers new tokens in the order of the file and does not heed the declared ids.
            let next = vocabulary.tokens.len() as u32;
            let assigned = vocabulary.tokens.get(&token.content).copied().unwrap_or(next);
            if assigned != id {
                return Err(TokenizerError::AddedId {
                    path: path.to_owned(),
                    token: token.content,
                    declared: id,
                    assigned,
                });
            }
            vocabulary.insert(token.content.clone(), id)?;
            vocabulary.added.push(token);
        }
        Ok(vocabulary)
    }
}

fn refuse(
    path: &Path,
    field: &'static str,
    found: &impl Serialize,
    expected: &'static str,
) -> TokenizerError {
    let found = serde_json::to_string(found).unwrap_or_else(|source| source.to_string());
    TokenizerError::NotByteLevelBpe { path: path.to_owned(), field, found, expected }
}

fn check_model(path: &Path, model: &Model) -> Result<(), TokenizerError> {
    if let Some(kind) = model.kind.as_deref().filter(|kind| *kind != "BPE") {
        return Err(refuse(path, "model.type", &kind, "\"BPE\""));
    }
    if let Some(dropout) = model.dropout.filter(|dropout| *dropout != 0.0) {
        return Err(refuse(path, "model.dropout", &dropout, "null"));
    }
    for (field, affix) in [
        ("model.continuing_subword_prefix", &model.continuing_subword_prefix),
        ("model.end_of_word_suffix", &model.end_of_word_suffix),
    ] {
        if let Some(affix) = affix.as_deref().filter(|affix| !affix.is_empty()) {
            return Err(refuse(path, field, &affix, "null"));
        }
    }
    match model.byte_fallback {
        true => Err(refuse(path, "model.byte_fallback", &true, "false")),
        false => Ok(()),
    }
}

/// The `type` of a step of the pipeline.
fn kind(step: &Value) -> &str {
    step["type"].as_str().unwrap_or_default()
}

fn normalizer(path: &Path, step: &Value) -> Result<Option<NormalizerWrapper>, TokenizerError> {
    match kind(step) {
        "NFC" => Ok(Some(NFC.into())),
        "NFD" => Ok(Some(NFD.into())),
        "NFKC" => Ok(Some(NFKC.into())),
        "NFKD" => Ok(Some(NFKD.into())),
        _ if step.is_null() => Ok(None),
        _ => Err(refuse(path, "normalizer", step, "null or a Unicode normal form")),
    }
}

/// The steps, if text comes out in the byte-level alphabet after nothing but splitting. The library's other steps
/// drop text, and some panic when their parameters are absurd.
fn pre_tokenizer(path: &Path, step: Value) -> Result<PreTokenizerWrapper, TokenizerError> {
    let accepted = match (kind(&step), step["pretokenizers"].as_array().and_then(|steps| steps.split_last()))
    {
        ("ByteLevel", _) => true,
        ("Sequence", Some((last, first))) => {
            kind(last) == "ByteLevel" && first.iter().all(|step| ["Split", "Digits"].contains(&kind(step)))
        }
        _ => false,
    };
    if !accepted {
        return Err(refuse(path, "pre_tokenizer", &step, "a Sequence of Split or Digits, then ByteLevel"));
    }
    let expected = "a pre_tokenizer of Hugging Face's tokenizers";
    serde_json::from_value(step).map_err(|source| TokenizerError::Json {
        path: path.to_owned(),
        expected,
        source,
    })
}

fn vocab_and_merges(vocab: &Path, merges: &Path, config: &Path) -> Result<Vocabulary, TokenizerError> {
    let config = match config.exists() {
        true => parse(config, "a tokenizer_config.json whose added_tokens_decoder maps ids to tokens")?,
        false => TokenizerConfig::default(),
    };
    let merges_place = merges.display().to_string();
    let text = read(merges)?;
    // The first line may name the format's version.
    let lines = text.lines().enumerate().filter(|(n, line)| *n > 0 || !line.starts_with("#version"));
    let mut vocabulary = Vocabulary {
        place: vocab.display().to_string(),
        tokens: parse(vocab, "one object that maps tokens to ids")?,
        merges: split_lines(lines.map(|(_, line)| line), &merges_place)?,
        merges_place,
        added: Vec::new(),
        ignore_merges: false,
    };
    for (id, token) in config.added_tokens_decoder {
        vocabulary.insert(token.content.clone(), id)?;
        vocabulary.added.push(token);
    }
    Ok(vocabulary)
}

fn split_lines<'a>(
    lines: impl Iterator<Item = &'a str>,
    place: &str,
) -> Result<Vec<(String, String)>, TokenizerError> {
    let owned = |(left, right): (&str, &str)| (left.to_owned(), right.to_owned());
    lines.enumerate().map(|(rank, line)| Ok(owned(split_merge(line, rank, place)?))).collect()
}

fn read(path: &Path) -> Result<String, TokenizerError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| TokenizerError::Read { path: path.to_owned(), source })?;
    match text.starts_with("version https://git-lfs") {
        true => Err(TokenizerError::LfsPointer { path: path.to_owned() }),
        false => Ok(text),
    }
}

fn parse<T: DeserializeOwned>(path: &Path, expected: &'static str) -> Result<T, TokenizerError> {
    serde_json::from_str(&read(path)?).map_err(|source| TokenizerError::Json {
        path: path.to_owned(),
        expected,
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/vocab/dense-f32").join(name)
    }

    /// A directory with these files, and what reading it says.
    fn refusal(files: &[(&str, &str)]) -> String {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        Tokenizer::from_hf_dir(dir.path()).unwrap_err().to_string()
    }

    /// What is said of the fixture's `tokenizer.json` after a change.
    fn refusal_of_json(change: impl FnOnce(&mut Value)) -> String {
        let mut json = serde_json::from_str(&read(&fixture("tokenizer.json")).unwrap()).unwrap();
        change(&mut json);
        refusal(&[("tokenizer.json", &json.to_string())])
    }

    #[test]
    fn says_which_files_are_missing() {
        assert!(refusal(&[]).contains("found none of them"), "{}", refusal(&[]));
        assert!(refusal(&[("vocab.json", "{}")]).contains("found only vocab.json"));
        assert!(refusal(&[("merges.txt", "")]).contains("found only merges.txt"));
    }

    #[test]
    fn says_where_json_is_malformed() {
        let said = refusal(&[("tokenizer.json", "{\n  \"model\": 3\n}")]);
        assert!(said.contains("tokenizer.json") && said.contains("line 2"), "{said}");
        let said = refusal(&[("vocab.json", r#"{"a": -1}"#), ("merges.txt", "")]);
        assert!(said.contains("vocab.json") && said.contains("line 1"), "{said}");
        let said = refusal(&[("tokenizer.json", "version https://git-lfs.github.com/spec/v1\n")]);
        assert!(said.contains("git lfs pull"), "{said}");
    }

    #[test]
    fn refuses_what_is_not_deterministic_byte_level_bpe() {
        for (field, found, value) in [
            ("/version", "2.0", json!("2.0")),
            ("/model/type", "Unigram", json!("Unigram")),
            ("/model/dropout", "0.5", json!(0.5)),
            ("/model/continuing_subword_prefix", "##", json!("##")),
            ("/model/end_of_word_suffix", "</w>", json!("</w>")),
            ("/model/byte_fallback", "true", json!(true)),
            ("/normalizer", "Lowercase", json!({"type": "Lowercase"})),
            ("/decoder", "null", json!(null)),
            ("/pre_tokenizer", "FixedLength", json!({"type": "FixedLength", "length": 0})),
            ("/pre_tokenizer", "null", json!(null)),
        ] {
            let said = refusal_of_json(|json| *json.pointer_mut(field).unwrap() = value);
            let named = field[1..].replace('/', ".");
            assert!(said.contains(&named) && said.contains(found), "{field}: {said}");
        }
    }

    #[test]
    fn refuses_an_added_token_that_the_library_would_renumber() {
        let said = refusal_of_json(|json| json["added_tokens"][2]["id"] = json!(600));
        for part in ["<|im_end|>", "600", "497"] {
            assert!(said.contains(part), "{said}");
        }
    }

    #[test]
    fn refuses_an_ambiguous_vocabulary() {
        let config = |id: u32, content: &str| {
            let token = json!({"content": content, "lstrip": false, "rstrip": false, "normalized": false,
                "single_word": false, "special": true});
            json!({"added_tokens_decoder": {id.to_string(): token}}).to_string()
        };
        let files = |vocab: &str, merges: &str, config: &str| {
            refusal(&[("vocab.json", vocab), ("merges.txt", merges), ("tokenizer_config.json", config)])
        };
        let said = files(r#"{"a": 0, "b": 0}"#, "", "{}");
        assert!(said.contains("vocab.json") && said.contains("id 0"), "{said}");
        let said = files(r#"{"a": 0}"#, "", &config(1, "a"));
        assert!(said.contains("\"a\" has two ids, 0 and 1"), "{said}");
        let said = files(r#"{"a": 0}"#, "", &config(0, "<b>"));
        assert!(said.contains("id 0 belongs to more than one token"), "{said}");
        let said = files(r#"{"a": 0}"#, "a  a", "{}");
        assert!(said.contains("merges.txt") && said.contains("merge 0"), "{said}");
        let said = files(r#"{"a": 0}"#, "#version: 0.2\na a", "{}");
        assert!(said.contains("merge 0") && said.contains("\"aa\""), "{said}");
        let said = files(r#"{"a": 0, "aa": 1}"#, "a a\na a", "{}");
        assert!(said.contains("merge 1") && said.contains("listed before"), "{said}");
    }

    #[test]
    fn truncation_and_padding_of_a_batch_do_not_touch_a_text() {
        let plain = Tokenizer::from_hf_dir(&fixture("")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut json: Value = serde_json::from_str(&read(&fixture("tokenizer.json")).unwrap()).unwrap();
        json["truncation"] =
            json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
        json["padding"] = json!({"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "!"});
        std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
        let batched = Tokenizer::from_hf_dir(dir.path()).unwrap();
        let text = "def f(x): return x";
        assert_eq!(batched.encode(text).unwrap(), plain.encode(text).unwrap());
        assert!(plain.encode(text).unwrap().len() > 2);
    }
}

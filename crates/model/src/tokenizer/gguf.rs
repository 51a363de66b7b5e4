//! The tokenizer in GGUF metadata: `tokenizer.ggml.*`.

use super::bpe::{Bpe, Listed};
use super::vocabulary::{Pipeline, assemble, check_added, split_merge};
use super::{Tokenizer, TokenizerError};
use format::gguf::{KeyError, KeyValues, Value};
use tokenizers::AddedToken;

/// The one kind of tokenizer that is read: byte-level BPE.
const BYTE_LEVEL_BPE: &str = "gpt2";

const MODEL: &str = "tokenizer.ggml.model";
pub(super) const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";

/// `tokenizer.ggml.token_type`, as far as byte-level BPE has it.
mod token_type {
    pub(super) const NORMAL: i64 = 1;
    pub(super) const CONTROL: i64 = 3;
    pub(super) const USER_DEFINED: i64 = 4;
    /// Pads the vocabulary to the rows of the embedding; never the result of a text.
    pub(super) const UNUSED: i64 = 5;
}

impl Tokenizer {
    /// Reads the tokenizer of a GGUF file. Text is taken as it is: GGUF has no key for a normaliser, and the ids of
    /// decomposed text are those that llama.cpp gives. Hugging Face's tokenizers of this family put text into NFC
    /// first, so that a checkpoint and its GGUF differ on text that is not in that form.
    ///
    /// # Errors
    /// Keys that are missing or of another type, a kind of tokenizer other than byte-level BPE, special ids that have
    /// no token, and what [`from_parts`](Self::from_parts) refuses.
    pub fn from_gguf(keys: &KeyValues) -> Result<Tokenizer, TokenizerError> {
        let model = keys.get_str(MODEL)?;
        if model != BYTE_LEVEL_BPE {
            let (found, known) = (model.to_owned(), BYTE_LEVEL_BPE.to_owned());
            return Err(TokenizerError::Unknown { key: MODEL, found, known });
        }
        let pre = keys.get_str(PRE)?;
        let tokens = elements(keys, TOKENS, "strings", |value| value.as_str())?;
        let token_types = elements(keys, TOKEN_TYPE, "integers", |value| value.as_i64())?;
        let merges = elements(keys, MERGES, "strings", |value| value.as_str())?;
        for (key, value) in keys.iter() {
            if key.starts_with("tokenizer.ggml.") && key.ends_with("_token_id") {
                check_special_id(key, value, tokens.len())?;
            }
        }
        Tokenizer::from_parts(&tokens, &token_types, &merges, pre)
    }

    /// Builds the tokenizer from the arrays of GGUF: `tokens` by id (in the byte-level alphabet, the special and
    /// added ones in plain text), as many `token_types`, `merges` written `left right` with the best rank first, and
    /// the name `pre` of the splitting rule.
    ///
    /// # Errors
    /// Lengths that disagree, a token type or `pre` that is not known, a token with two ids, merges that are
    /// malformed, listed twice or name unknown tokens.
    pub fn from_parts(
        tokens: &[&str],
        token_types: &[i64],
        merges: &[&str],
        pre: &str,
    ) -> Result<Tokenizer, TokenizerError> {
        let pipeline = Pipeline::of_qwen(pre, false)?;
        if token_types.len() != tokens.len() {
            return Err(TokenizerError::Length {
                key: TOKEN_TYPE,
                found: token_types.len(),
                expected: tokens.len(),
            });
        }
        let too_many = |_| TokenizerError::TooManyTokens { place: TOKENS.to_owned(), found: tokens.len() };
        let (mut listed, mut added) = (Vec::with_capacity(tokens.len()), Vec::new());
        for (index, (&token, &found)) in tokens.iter().zip(token_types).enumerate() {
            match found {
                token_type::NORMAL => {}
                token_type::CONTROL | token_type::USER_DEFINED => {
                    // GGUF keeps no more of an added token than its type. Those of the family match as they are
                    // written: before normalisation, and without the white space around them.
                    let special = found == token_type::CONTROL;
                    added.push(AddedToken::from(token, special).normalized(false));
                }
                token_type::UNUSED => continue,
                _ => return Err(TokenizerError::TokenType { id: index, found }),
            }
            listed.push((token, u32::try_from(index).map_err(too_many)?));
        }
        check_added(&added, TOKENS)?;
        let bpe = Bpe::new(Listed {
            place: TOKENS,
            merges_place: MERGES,
            tokens: listed,
            merges: (merges.iter().enumerate())
                .map(|(rank, merge)| split_merge(merge, rank, MERGES))
                .collect::<Result<_, _>>()?,
            ignore_merges: false,
        })?;
        assemble(bpe, &added, pipeline, TOKENS)
    }
}

/// All elements of an array, each as what it must be.
fn elements<'a, T>(
    keys: &'a KeyValues,
    key: &'static str,
    expected: &'static str,
    convert: impl Fn(Value<'a>) -> Option<T>,
) -> Result<Vec<T>, TokenizerError> {
    let array = keys.get_array(key)?;
    let element = |value: Result<Value<'a>, _>| {
        let value = value.map_err(|source| TokenizerError::Element { key, source })?;
        convert(value).ok_or_else(|| {
            let found = format!("an array of {}", array.element_type().name());
            TokenizerError::Key(KeyError::Type { key: key.to_owned(), expected, found })
        })
    };
    array.elements().map(element).collect()
}

fn check_special_id(key: &str, value: Value, tokens: usize) -> Result<(), TokenizerError> {
    let id = value.as_i64();
    if id.and_then(|id| usize::try_from(id).ok()).is_some_and(|id| id < tokens) {
        return Ok(());
    }
    let found = id.map_or_else(|| format!("{value:?}"), |id| id.to_string());
    Err(TokenizerError::SpecialId { key: key.to_owned(), found, tokens })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::vocabulary::QWEN35;

    #[test]
    fn names_what_disagrees() {
        let refusal = |tokens: &[&str], types: &[i64], merges: &[&str], pre: &str| {
            Tokenizer::from_parts(tokens, types, merges, pre).unwrap_err().to_string()
        };
        for (said, parts) in [
            (refusal(&["a"], &[1], &[], "llama-bpe"), [PRE, "\"llama-bpe\"", "qwen2, qwen35"]),
            (refusal(&["a"], &[1], &[], ""), [PRE, "\"\"", "qwen2, qwen35"]),
            (refusal(&["a", "b"], &[1], &[], QWEN35), [TOKEN_TYPE, "1 entries", "expected 2"]),
            (refusal(&["a", "b"], &[1, 6], &[], QWEN35), ["token_type[1]", "is 6", "expected 1"]),
            (refusal(&["a", "b", "a"], &[1, 1, 4], &[], QWEN35), [TOKENS, "\"a\"", "0 and 2"]),
            (refusal(&["a", "b"], &[1, 1], &["a b"], QWEN35), [MERGES, "merge 0", "\"ab\""]),
            (refusal(&["a", "b"], &[1, 5], &["a b"], QWEN35), [MERGES, "merge 0", "needs token \"b\""]),
            (refusal(&["a", "aa"], &[1, 1], &["a a", "a a"], QWEN35), [MERGES, "merge 1", "listed before"]),
            (refusal(&["a", "aa"], &[1, 1], &["aa"], QWEN35), [MERGES, "merge 0", "one space"]),
            (refusal(&["a", "aa"], &[1, 1], &[" a"], QWEN35), [MERGES, "merge 0", "one space"]),
            (refusal(&["a", " a", "a a"], &[1; 3], &["a  a"], QWEN35), [MERGES, "merge 0", "one space"]),
        ] {
            for part in parts {
                assert!(said.contains(part), "{said:?} lacks {part:?}");
            }
        }
    }

    #[test]
    fn refuses_added_tokens_of_absurd_length() {
        let build = |tokens: &[String], kind| {
            let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
            Tokenizer::from_parts(&tokens, &vec![kind; tokens.len()], &[], QWEN35)
        };
        let long = ["x".repeat(257)];
        let said = build(&long, 3).unwrap_err().to_string();
        assert!(said.contains(TOKENS) && said.contains("257 bytes"), "{said}");
        assert_eq!(build(&long, 1).unwrap().vocab_size(), 1);
        let many: Vec<String> = (0..(2 << 20) / 32 + 1).map(|id| format!("<{id:030}>")).collect();
        let said = build(&many, 4).unwrap_err().to_string();
        assert!(said.contains(TOKENS) && said.contains("2097184 bytes"), "{said}");
        assert_eq!(build(&many[1..], 4).unwrap().vocab_size(), many.len() - 1);
    }

    #[test]
    fn padding_is_no_text_but_has_a_name() {
        let tokens = ["[", "P", "A", "D", "]", "5", "<end>", "[PAD5]"];
        let tokenizer = Tokenizer::from_parts(&tokens, &[1, 1, 1, 1, 1, 1, 3, 5], &[], QWEN35).unwrap();
        assert_eq!(tokenizer.encode("[PAD5]<end>").unwrap(), [0, 1, 2, 3, 5, 4, 6]);
        assert_eq!(tokenizer.vocab_size(), 7);
        assert_eq!(tokenizer.decode(&[1, 7, 6]).unwrap(), "P[PAD7]<end>");
    }

    #[test]
    fn a_byte_without_a_token_is_not_dropped() {
        let tokenizer = Tokenizer::from_parts(&["a", "Ġ"], &[1, 1], &[], QWEN35).unwrap();
        assert_eq!(tokenizer.encode("a a").unwrap(), [0, 1, 0]);
        let said = tokenizer.encode("a é").unwrap_err().to_string();
        assert!(said.contains("'Ã'"), "{said}");
    }
}

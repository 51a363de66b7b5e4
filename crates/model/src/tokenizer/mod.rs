//! Text to token ids and back, exactly as Hugging Face's `tokenizers` does it: normalised, searched for added tokens and
//! split by that library, merged by a model of our own that is sooner ready.
//!
//! The ids are the first thing two implementations must agree on, so nothing here is guessed: an unknown
//! pre-tokenizer, a byte without a token or a text that the splitting regex cannot take is an error.

mod bpe;
mod directory;
mod error;
mod gguf;
mod vocabulary;

pub use directory::Parts;
pub use error::TokenizerError;
pub use vocabulary::splitting_regex;

use bpe::{Bpe, Missing};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{Decoder, NormalizerWrapper, PreTokenizerWrapper, TokenizerImpl};

type Inner = TokenizerImpl<Bpe, NormalizerWrapper, PreTokenizerWrapper, ByteLevel, ByteLevel>;

/// The longest run of white space that is encoded, in characters.
///
/// The splitting regex backs off from `\s+` by one character before a word, for which fancy-regex keeps one state
/// per character, 1,000,000 at most. Beyond that it gives up and `tokenizers` leaves the rest of the text unsplit
/// without a word, which would be wrong ids.
const MAX_BLANKS: usize = 900_000;

/// A byte-level BPE tokenizer, read from a Hugging Face directory or from GGUF metadata.
#[derive(Debug)]
pub struct Tokenizer {
    inner: Inner,
    vocab_size: usize,
}

impl Tokenizer {
    /// The ids of `text`. Special tokens written in the text are recognised; none is added.
    ///
    /// # Errors
    /// When the vocabulary lacks a byte of the text, or when the text has an absurd run of white space.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        refuse_blank_run(text)?;
        match self.inner.encode_fast(text, false) {
            Ok(encoding) => Ok(encoding.get_ids().to_vec()),
            Err(source) => Err(match source.downcast_ref() {
                Some(&Missing(token)) => TokenizerError::NoToken { token },
                None => TokenizerError::Library { place: "encode".to_owned(), source },
            }),
        }
    }

    /// The text of `ids`, special tokens included.
    ///
    /// An id that pads the vocabulary to the model's size has no text and shows as `[PAD{id}]`. Ids that cut a
    /// character in two give U+FFFD.
    ///
    /// # Errors
    /// Only what the library reports.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        let tokens: Vec<String> = ids
            .iter()
            .map(|&id| self.inner.id_to_token(id).unwrap_or_else(|| format!("[PAD{id}]")))
            .collect();
        ByteLevel::default()
            .decode(tokens)
            .map_err(|source| TokenizerError::Library { place: "decode".to_owned(), source })
    }

    /// The bytes that `id` stands for: part of a character as often as not. Those of several ids one after the other
    /// are what [`decode`](Self::decode) makes text of.
    pub fn bytes(&self, id: u32) -> Vec<u8> {
        let token = self.inner.id_to_token(id).unwrap_or_else(|| format!("[PAD{id}]"));
        // A token with a character outside the alphabet is an added one, written as it is.
        let spelt: Option<Vec<u8>> = token.chars().map(byte_of).collect();
        spelt.unwrap_or_else(|| token.into_bytes())
    }

    /// The id of a token by its text, for added ones: `<|im_end|>`.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// One more than the highest id that [`encode`](Self::encode) can give.
    ///
    /// The model's `vocab_size` may be larger: its embedding is padded with rows that no text reaches.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Whether a model of `vocab_size` rows has an embedding for each of `ids`.
    ///
    /// # Errors
    /// Names the first id that has none, and its position.
    pub fn check(ids: &[u32], vocab_size: usize) -> Result<(), TokenizerError> {
        match ids.iter().position(|&id| id as usize >= vocab_size) {
            Some(position) => {
                Err(TokenizerError::OutOfVocabulary { position, id: ids[position], vocab_size })
            }
            None => Ok(()),
        }
    }
}

/// The byte that a character of the byte-level alphabet stands for. Printable Latin-1 stands for itself; the other 68
/// bytes, in ascending order, follow U+0100.
fn byte_of(c: char) -> Option<u8> {
    let printable = |c: u32| matches!(c, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    match u32::from(c) {
        c if printable(c) => u8::try_from(c).ok(),
        c @ 0x100.. => (0..=u8::MAX).filter(|&b| !printable(b.into())).nth((c - 0x100) as usize),
        _ => None,
    }
}

fn refuse_blank_run(text: &str) -> Result<(), TokenizerError> {
    let (mut at, mut length) = (0, 0);
    for (offset, c) in text.char_indices() {
        if !c.is_whitespace() {
            length = 0;
            continue;
        }
        if length == 0 {
            at = offset;
        }
        length += 1;
        if length > MAX_BLANKS {
            return Err(TokenizerError::BlankRun { at, limit: MAX_BLANKS });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_beyond_the_model_are_named() {
        assert!(Tokenizer::check(&[], 0).is_ok());
        assert!(Tokenizer::check(&[0, 511], 512).is_ok());
        let said = Tokenizer::check(&[0, 512, 600], 512).unwrap_err().to_string();
        assert!(said.contains("id 512 at position 1") && said.contains("less than 512"), "{said}");
        assert!(Tokenizer::check(&[u32::MAX], 248_320).is_err());
    }

    #[test]
    fn every_byte_has_one_character() {
        let alphabet = ByteLevel::alphabet();
        let mut bytes: Vec<u8> = alphabet.into_iter().map(|c| byte_of(c).unwrap()).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=u8::MAX).collect::<Vec<_>>());
        assert!([' ', '\u{7f}', '\u{ad}', '\u{144}', '東'].into_iter().all(|c| byte_of(c).is_none()));
    }

    /// Spaces before a word, the last of which belongs to the word whatever their number.
    #[test]
    fn runs_of_white_space_are_split_exactly_or_refused() {
        let tokens = ["Ġ", "ĠĠ", "a", "Ġa"];
        let tokenizer = Tokenizer::from_parts(&tokens, &[1; 4], &["Ġ Ġ", "Ġ a"], vocabulary::QWEN35).unwrap();
        let encode = |blanks| tokenizer.encode(&format!("a{}a", " ".repeat(blanks)));
        assert_eq!(encode(4).unwrap(), [2, 1, 0, 3]);
        let ids = encode(MAX_BLANKS).unwrap();
        assert_eq!(ids.len(), 1 + MAX_BLANKS / 2 + 1);
        assert_eq!(ids[ids.len() - 2..], [0, 3]);
        let said = encode(MAX_BLANKS + 1).unwrap_err().to_string();
        assert!(said.contains("from byte 1 on"), "{said}");
    }
}

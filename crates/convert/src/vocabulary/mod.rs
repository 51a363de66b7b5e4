//! A byte-level BPE vocabulary, and its written forms.

mod gguf;
mod hf;
mod tokenizer_json;

use serde::Serialize;

pub(crate) use hf::json;

/// A token of a [`Vocabulary`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Token {
    /// Regular ones in the spelling that shows every byte as a letter, the others as text.
    pub text: String,
    /// What it is.
    pub kind: Kind,
}

/// What a token is: llama.cpp's token types, as far as byte-level BPE has them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Made by merging.
    Normal = 1,
    /// Found in the text; decoding leaves it out.
    Control = 3,
    /// Found in the text.
    UserDefined = 4,
    /// Pads the vocabulary to the rows of the embedding.
    Unused = 5,
}

/// Tokens with an office, by Hugging Face's names, and by those of GGUF's keys.
pub const OFFICES: [(&str, &str); 6] = [
    ("bos", "bos"),
    ("eos", "eos"),
    ("unk", "unknown"),
    ("sep", "seperator"), // the key is spelled so
    ("pad", "padding"),
    ("mask", "mask"),
];

/// A vocabulary: one token for every row of the embedding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Vocabulary {
    /// By id.
    pub tokens: Vec<Token>,
    /// The pairs that merge, by rank, as `left right`; the product is a token, too.
    pub merges: Vec<String>,
    /// The rule by which text is split before merging, as `tokenizer.ggml.pre` names it.
    pub pre: String,
    /// Tokens with an office, Hugging Face's name and id, in the order of their keys.
    pub offices: Vec<(&'static str, u32)>,
    /// Whether a token of that office is put around every text.
    pub adds: Vec<(&'static str, bool)>,
    /// Jinja sources that lay a conversation out; the one without a name is the usual one.
    pub chat_templates: Vec<(Option<String>, String)>,
}

/// What a byte is written as where tokens are text: itself if it shows, else a letter from U+0100 on.
pub fn byte_letter(byte: u8) -> char {
    let shows = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if shows(byte) {
        return char::from(byte);
    }
    let hidden_before = (0..byte).filter(|b| !shows(*b)).count() as u32;
    char::from_u32(0x100 + hidden_before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

impl Vocabulary {
    /// The id of the token of an office.
    pub fn office(&self, name: &str) -> Option<u32> {
        self.offices.iter().find(|(office, _)| *office == name).map(|(_, id)| *id)
    }

    /// Tokens that are found in the text, with their ids.
    pub fn added(&self) -> impl Iterator<Item = (u32, &Token)> {
        let added = |(_, token): &(u32, &Token)| matches!(token.kind, Kind::Control | Kind::UserDefined);
        (0..).zip(&self.tokens).filter(added)
    }

    /// The text of a token; none for ids beyond the rows.
    fn text(&self, id: u32) -> &str {
        self.tokens.get(id as usize).map_or("", |token| &token.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_letters_of_their_own() {
        let letters: Vec<char> = (0..=255).map(byte_letter).collect();
        for (i, letter) in letters.iter().enumerate() {
            assert!(!letters[..i].contains(letter) && !letter.is_whitespace() && !letter.is_control());
        }
        assert_eq!((byte_letter(b' '), byte_letter(b'\n'), byte_letter(b'a')), ('Ġ', 'Ċ', 'a'));
        assert_eq!((byte_letter(0xad), byte_letter(0xff), byte_letter(0x7f)), ('Ń', 'ÿ', 'ġ'));
    }
}

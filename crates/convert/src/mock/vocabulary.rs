//! A vocabulary of any size that tokenizes any text.

use crate::error::Error;
use crate::vocabulary::{Kind, Token, Vocabulary, byte_letter};

/// Rows that the released models have behind their regular tokens, of which added tokens take the first; small
/// vocabularies have a sixteenth of their rows there.
const BEHIND: usize = 276;
/// Added tokens, and whether they are special.
const ADDED: [(&str, bool); 12] = [
    ("<|endoftext|>", true),
    ("<|im_start|>", true),
    ("<|im_end|>", true),
    ("<|vision_start|>", true),
    ("<|vision_end|>", true),
    ("<|vision_pad|>", true),
    ("<|image_pad|>", true),
    ("<|video_pad|>", true),
    ("<tool_call>", false),
    ("</tool_call>", false),
    ("<think>", false),
    ("</think>", false),
];
/// Letters by their frequency in English text: short words come first, then those of frequent letters.
const LETTERS: &[u8; 26] = b"etaoinshrdlcumwfgypbvkjxqz";

/// The family's splitting rule.
pub(super) const PRE: &str = "qwen35";

const CHAT_TEMPLATE: &str = "\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
";

/// A vocabulary of `size` rows: the 256 bytes, then runs of letters with and without a space before them, shorter ones
/// first, each merged from the one that lacks its last letter; then added tokens and unused rows.
///
/// With 248,320 rows this has 248,044 regular tokens, as released.
///
/// # Errors
/// A size that cannot hold all bytes and the added tokens.
pub(super) fn generate(size: usize) -> Result<Vocabulary, Error> {
    let least = 256 + ADDED.len();
    if size < least {
        return Err(Error::SmallVocabulary { found: size, least });
    }
    let behind = (size / 16).clamp(ADDED.len(), BEHIND);
    let regular = (size - behind).max(256);
    let mut tokens: Vec<String> = (0..=255).map(|byte| byte_letter(byte).to_string()).collect();
    let mut merges = Vec::with_capacity(regular - 256);
    let letter = |letter: &u8| u32::from(*letter);
    // Tokens that the next ones extend: first the single letters and the space.
    let mut shorter: Vec<u32> = LETTERS.iter().map(letter).chain([u32::from(b' ')]).collect();
    while tokens.len() < regular {
        let first = tokens.len() as u32;
        let pairs = shorter.iter().flat_map(|&left| LETTERS.iter().map(move |right| (left, letter(right))));
        for (left, right) in pairs.take(regular - tokens.len()) {
            tokens.push([tokens[left as usize].as_str(), tokens[right as usize].as_str()].concat());
            merges.push((left, right));
        }
        shorter = (first..tokens.len() as u32).collect();
    }
    let merges = merges.iter().map(|&(left, right): &(u32, u32)| {
        [tokens[left as usize].as_str(), tokens[right as usize].as_str()].join(" ")
    });
    let merges = merges.collect();
    let id = |content| {
        let position = ADDED.iter().position(|(c, _)| *c == content);
        (tokens.len() + position.unwrap_or(0)) as u32
    };
    let offices = vec![("eos", id("<|im_end|>")), ("pad", id("<|endoftext|>"))];
    let added = ADDED.map(|(content, special)| Token {
        text: content.to_owned(),
        kind: if special { Kind::Control } else { Kind::UserDefined },
    });
    let normal = tokens.into_iter().map(|text| Token { text, kind: Kind::Normal });
    let mut tokens: Vec<Token> = normal.chain(added).collect();
    tokens.extend((tokens.len()..size).map(|id| Token { text: format!("[PAD{id}]"), kind: Kind::Unused }));
    Ok(Vocabulary {
        tokens,
        merges,
        pre: PRE.to_owned(),
        offices,
        adds: vec![("bos", false), ("eos", false)],
        chat_templates: vec![(None, CHAT_TEMPLATE.to_owned())],
    })
}

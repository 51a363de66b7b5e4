//! What can be wrong with a tokenizer's files, with a text, or with ids.

use format::gguf::{Defect, KeyError};
use std::path::PathBuf;

/// Why a tokenizer could not be built, or could not be used.
///
/// `place` is where the data was read: a path, or a GGUF key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A tokenizer file exists but could not be read.
    #[error("{}: cannot be read as UTF-8 text: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },

    /// The file is Git LFS's stand-in for the real one.
    #[error("{}: expected tokenizer data, found a Git LFS pointer: fetch the file itself with `git lfs pull`", path.display())]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },

    /// The directory has no complete tokenizer.
    #[error(
        "{}: expected tokenizer.json, or vocab.json with merges.txt; found {found}: copy the tokenizer files that \
         belong to these weights into the directory",
        dir.display()
    )]
    NoTokenizer {
        /// The directory.
        dir: PathBuf,
        /// The files that are there, in words.
        found: &'static str,
    },

    /// A JSON file is malformed, or holds something else than a tokenizer.
    #[error("{}: {source}; expected {expected}: copy the file again from where the model was published", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the file should hold.
        expected: &'static str,
        /// The parser's finding, with line and column.
        source: serde_json::Error,
    },

    /// `tokenizer.json` describes something other than deterministic byte-level BPE.
    #[error("{}: {field} is {found}, expected {expected}: only byte-level BPE that gives a text one row of ids is read", path.display())]
    NotByteLevelBpe {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// Its value.
        found: String,
        /// What it must be.
        expected: &'static str,
    },

    /// An added token's declared id is not the one that Hugging Face's library gives it.
    #[error(
        "{}: added token {token:?} is declared with id {declared}, but Hugging Face's library numbers it {assigned}: \
         PyTorch would see other ids than this file says; correct the file",
        path.display()
    )]
    AddedId {
        /// The file.
        path: PathBuf,
        /// The token's text.
        token: String,
        /// The id in the file.
        declared: u32,
        /// The id the library would use.
        assigned: u32,
    },

    /// A GGUF key that the tokenizer needs is absent, or holds another type.
    #[error("{0}: convert the model again, with its tokenizer files present")]
    Key(#[from] KeyError),

    /// An element of a GGUF array cannot be read.
    #[error("{key}: {source}: convert the model again, with its tokenizer files present")]
    Element {
        /// The key.
        key: &'static str,
        /// What is wrong with the element.
        source: Defect,
    },

    /// A kind of tokenizer, or a pre-tokenizer, that is not known; never replaced by another one.
    #[error(
        "{key} is {found:?}, known are {known}: with another rule the ids would be wrong; use a file of the Qwen family"
    )]
    Unknown {
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
        /// The values that are understood.
        known: String,
    },

    /// Text is split by a rule that has no name, so that no GGUF reader would split it alike.
    #[error(
        "{}: pre_tokenizer splits by {found:?}, which is none of the known rules ({known}): a file that named another \
         would give other ids", path.display()
    )]
    UnknownSplit {
        /// The tokenizer.json.
        path: PathBuf,
        /// Its regex.
        found: String,
        /// Names of the known rules.
        known: String,
    },

    /// Two arrays that go together differ in length.
    #[error(
        "{key} has {found} entries, expected {expected}, as many as tokenizer.ggml.tokens: convert the file again"
    )]
    Length {
        /// The shorter or longer array.
        key: &'static str,
        /// Its length.
        found: usize,
        /// The number of tokens.
        expected: usize,
    },

    /// A token type that byte-level BPE does not have.
    #[error(
        "tokenizer.ggml.token_type[{id}] is {found}, expected 1 (normal), 3 (control), 4 (user-defined) or 5 (unused)"
    )]
    TokenType {
        /// The token's id.
        id: usize,
        /// Its type.
        found: i64,
    },

    /// More ids than a 32-bit id can number.
    #[error("{place} has {found} tokens, expected at most 4294967295: ids are 32 bits wide")]
    TooManyTokens {
        /// Where.
        place: String,
        /// How many.
        found: usize,
    },

    /// One text has two ids.
    #[error(
        "{place}: token {token:?} has two ids, {first} and {second}, expected one: the vocabulary is corrupt; copy or convert it again"
    )]
    TwoIds {
        /// Where.
        place: String,
        /// The token's text.
        token: String,
        /// One of its ids.
        first: u32,
        /// The other.
        second: u32,
    },

    /// One id has two texts.
    #[error(
        "{place}: id {id} belongs to more than one token, expected one: the vocabulary is corrupt; copy or convert it again"
    )]
    SharedId {
        /// Where.
        place: String,
        /// The id.
        id: u32,
    },

    /// A special or added token, which is searched in every text, is absurdly long.
    #[error(
        "{place}: a special or added token has {found} bytes, expected at most {limit}: the vocabulary is corrupt; copy or convert it again"
    )]
    AddedTooLong {
        /// Where.
        place: String,
        /// Its length in bytes.
        found: usize,
        /// What is accepted.
        limit: usize,
    },

    /// The special and added tokens, which are searched in every text, are absurdly many.
    #[error(
        "{place}: special and added tokens take {found} bytes, expected at most {limit}: the vocabulary is corrupt; copy or convert it again"
    )]
    TooMuchAdded {
        /// Where.
        place: String,
        /// Their total length in bytes.
        found: usize,
        /// What is accepted.
        limit: usize,
    },

    /// A merge is not two tokens with one space between them.
    #[error("{place}: merge {rank} is {merge:?}, expected two tokens separated by one space")]
    MergeForm {
        /// Where.
        place: String,
        /// Its rank, from 0.
        rank: usize,
        /// Its text.
        merge: String,
    },

    /// A merge names, or would make, a token that the vocabulary lacks.
    #[error(
        "{place}: merge {rank} ({left:?} with {right:?}) needs token {missing:?}, which the vocabulary lacks: tokens and merges are not of one tokenizer"
    )]
    MergeUnknown {
        /// Where.
        place: String,
        /// Its rank, from 0.
        rank: usize,
        /// Its left token.
        left: String,
        /// Its right token.
        right: String,
        /// The token that is not there.
        missing: String,
    },

    /// A merge is listed twice, so that its rank is ambiguous.
    #[error(
        "{place}: merge {rank} ({left:?} with {right:?}) was listed before, expected each pair once: readers differ in which rank they take"
    )]
    MergeTwice {
        /// Where.
        place: String,
        /// The rank of the second listing, from 0.
        rank: usize,
        /// Its left token.
        left: String,
        /// Its right token.
        right: String,
    },

    /// A special token id of the metadata has no token.
    #[error(
        "{key} is {found}, expected an id less than {tokens}, the number of tokens: the metadata belongs to another vocabulary"
    )]
    SpecialId {
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// The number of tokens.
        tokens: usize,
    },

    /// The text needs a byte for which the vocabulary has no token; it would be dropped silently.
    #[error(
        "the text needs the byte-level token {token:?}, which the vocabulary lacks, so that it has no exact ids: use the full vocabulary, or other text"
    )]
    NoToken {
        /// The byte as a character of the byte-level alphabet.
        token: char,
    },

    /// The text holds more consecutive white space than the splitting regex can take in one match.
    #[error(
        "the text has more than {limit} white-space characters in a row from byte {at} on, expected at most {limit}: \
         the splitting regex would give up there and the ids be wrong; shorten that run"
    )]
    BlankRun {
        /// Byte offset at which the run starts.
        at: usize,
        /// What is accepted, in characters.
        limit: usize,
    },

    /// An id that the model has no embedding for.
    #[error(
        "token id {id} at position {position} is out of range, expected less than {vocab_size}, the model's vocab_size: the ids come from another tokenizer"
    )]
    OutOfVocabulary {
        /// Index into the ids, from 0.
        position: usize,
        /// The id.
        id: u32,
        /// The model's vocabulary size.
        vocab_size: usize,
    },

    /// Hugging Face's library refused for a reason of its own.
    #[error("{place}: {source}")]
    Library {
        /// Where.
        place: String,
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

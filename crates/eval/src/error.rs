//! Why a model could not be run or judged.

use std::path::PathBuf;

/// What was wrong with the request, the model or the trace.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The checkpoint.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// The pass.
    #[error(transparent)]
    Reference(#[from] reference::Error),
    /// The fast pass.
    #[error(transparent)]
    Fast(#[from] fast::Error),
    /// The trace, read or written.
    #[error(transparent)]
    Trace(#[from] trace::Error),
    /// A pattern that cannot be read.
    #[error(transparent)]
    Glob(#[from] trace::GlobError),
    /// A pattern that no point of this model has.
    #[error("no point of this model matches `{pattern}`; `etalon dump --list-points MODEL` lists them all")]
    NoPoint {
        /// The pattern.
        pattern: String,
    },
    /// A trace that does not say on which tokens it was made.
    #[error("the trace does not say on which tokens it was made; give them with --tokens or --tokens-file")]
    NoTokens,
    /// A number that is no token id.
    #[error("{token} at position {position} of the trace's tokens is not a token id")]
    TokenId {
        /// Position in the text.
        position: usize,
        /// As the trace has it.
        token: i64,
    },
    /// Sizes of calls that are not a way to cut this text.
    #[error(
        "a split into {sizes:?} does not cover {tokens} tokens: sizes are at least 1 and add up to the tokens"
    )]
    Split {
        /// As given.
        sizes: Vec<usize>,
        /// Length of the text.
        tokens: usize,
    },
    /// The fast engine as an oracle that it is not.
    #[error("the fast engine keeps activations in f32: --activations q8 needs --engine reference")]
    FastActivations,
    /// Threads could not be started.
    #[error("cannot start {threads} threads: {why}")]
    Threads {
        /// How many.
        threads: usize,
        /// The system's words.
        why: String,
    },
    /// Caches that this engine does not have.
    #[error("--kv f16: the {} engine keeps keys and values as it computed them; use --engine fast", engine.name())]
    Kv {
        /// The engine.
        engine: crate::Engine,
    },
    /// A saved text with other caches than were asked for.
    #[error(
        "the saved text keeps keys and values in {saved}, --kv asks for {asked}: leave --kv out, or begin anew"
    )]
    OtherKv {
        /// As they are.
        saved: &'static str,
        /// As they should be.
        asked: &'static str,
    },
    /// Lengths of a text that do not follow each other.
    #[error(
        "contexts are to ascend by more than the {decode} tokens that are decoded at each, and to begin above 0; found {contexts:?}"
    )]
    Contexts {
        /// As given.
        contexts: Vec<usize>,
        /// Tokens decoded at each.
        decode: usize,
    },
    /// A weight file could not be read for its hash.
    #[error("cannot hash {}: {source}", path.display())]
    Hash {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A file beside the weights could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A file beside the weights is no JSON.
    #[error("{}: {why}; expected JSON", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's words.
        why: String,
    },
    /// A checkpoint without a chat template.
    #[error(
        "{} has no chat template (chat_template.jinja, tokenizer_config.json, or tokenizer.chat_template in a GGUF \
         file): give one with --template FILE, or use --prompt",
        model.display()
    )]
    NoTemplate {
        /// The model.
        model: PathBuf,
    },
    /// A chat template that cannot be read, or that refuses a conversation.
    #[error("chat template{}: {why}", line.map_or(String::new(), |line| format!(", line {line}")))]
    Template {
        /// Where.
        line: Option<usize>,
        /// Its words, or the parser's.
        why: String,
    },
    /// A prompt that fills the context.
    #[error(
        "the prompt has {tokens} tokens, and the context holds {context} with the answer: shorten it, or raise --context"
    )]
    Context {
        /// Length of the prompt.
        tokens: usize,
        /// The longest text.
        context: usize,
    },
    /// Logits that nothing can be chosen from.
    #[error(
        "the logits after position {position} are not finite (token {token} has {value}): the weights are damaged, or \
         hold NaN; `etalon dump --list-points` and `etalon verify` find where; --allow-nonfinite goes on"
    )]
    Logits {
        /// Position of the token that was run last.
        position: usize,
        /// The first id whose logit is not finite.
        token: usize,
        /// That logit.
        value: f64,
    },
    /// A file that is no saved text, or not one of this model.
    #[error("{}: not a saved text that can be used here: {why}", path.display())]
    NotSaved {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A prompt that does not go on from the saved text.
    #[error(
        "the saved text has {tokens} tokens and the prompt is to begin with them, but at position {position} the saved \
         text has {saved}, the prompt {}: a state cannot be taken back; give the whole text, or no prompt to go on",
        found.map_or("none".to_owned(), |found| found.to_string())
    )]
    OtherText {
        /// Where they part.
        position: usize,
        /// The saved text's token.
        saved: u32,
        /// The prompt's.
        found: Option<u32>,
        /// Length of the saved text.
        tokens: usize,
    },
}

impl Error {
    pub(crate) fn template(error: minijinja::Error) -> Error {
        let why = match error.detail() {
            Some(detail) => format!("{}: {detail}", error.kind()),
            None => error.kind().to_string(),
        };
        Error::Template { line: error.line(), why }
    }
}

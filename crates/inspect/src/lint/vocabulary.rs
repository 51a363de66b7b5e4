//! The vocabulary of a GGUF file, held against itself and against the embedding.

use format::gguf::{KeyValues, Value};

use super::Findings;
use crate::subject::{Kind, Subject};

const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const PRE: &str = "tokenizer.ggml.pre";
const MODEL: &str = "tokenizer.ggml.model";
/// What llama.cpp calls this family's rule of splitting text.
const QWEN: &str = "qwen35";

pub(super) fn check(subject: &Subject, keys: &KeyValues, findings: &mut Findings) {
    let len = |key: &str| keys.get_array(key).ok().map(|array| array.len());
    let model = keys.get_str(MODEL).ok();
    let Some(tokens) = len(TOKENS) else {
        if subject.kind() == Kind::Model && model != Some("none") {
            let advice = "the model runs on token ids only; convert again with the tokenizer's files beside the weights";
            findings.warn("no-tokenizer", TOKENS, "the key is missing", advice);
        }
        return;
    };
    if let Some(types) = len(TYPES).filter(|&types| types != tokens) {
        let evidence = format!("{types} types for {tokens} tokens");
        findings.error("vocabulary-length", TYPES, evidence, "convert again: the two arrays belong together");
    }
    let embedding = subject.source().tensor("token_embd.weight");
    if let Some(rows) =
        embedding.and_then(|info| info.shape.dims().first().copied()).filter(|&rows| rows != tokens)
    {
        findings.error(
            "vocabulary-length",
            TOKENS,
            format!("{tokens} tokens, token_embd.weight has {rows} rows"),
            "a converter must pad the vocabulary to the rows of the embedding with unused tokens ([PAD…])",
        );
    }
    for (key, value) in keys.iter() {
        if key.starts_with("tokenizer.ggml.") && key.ends_with("_token_id") {
            special(key, value, tokens, findings);
        }
    }
    if model == Some("gpt2") {
        splitting(subject, keys, findings);
    }
    if subject.kind() == Kind::Model && !keys.contains("tokenizer.chat_template") {
        let advice = "a base model needs none; add one with etalon edit --chat-template FILE";
        findings.note("no-chat-template", "tokenizer.chat_template", "the key is missing", advice);
    }
}

fn special(key: &str, value: Value, tokens: u64, findings: &mut Findings) {
    let advice = "correct the id: readers index the vocabulary with it";
    match value.as_i64() {
        // llama.cpp's way to say that there is none.
        Some(-1) => {}
        _ if value.as_u64() == Some(u32::MAX.into()) => {}
        Some(id) if u64::try_from(id).is_ok_and(|id| id < tokens) => {}
        Some(id) => findings.error(
            "special-token",
            key,
            format!("id {id}, the vocabulary has {tokens} tokens"),
            advice,
        ),
        None => findings.error("special-token", key, format!("{} is no token id", value.brief()), advice),
    }
}

fn splitting(subject: &Subject, keys: &KeyValues, findings: &mut Findings) {
    let family = subject.qwen().is_some();
    match keys.get_str(PRE) {
        Err(_) => findings.error(
            "tokenizer-pre",
            PRE,
            "the key is missing: llama.cpp falls back to a default rule and gives other ids",
            "set it, to qwen35 for this family (etalon edit --set tokenizer.ggml.pre=str:qwen35)",
        ),
        Ok("default") => findings.warn(
            "tokenizer-pre",
            PRE,
            "\"default\": the converter did not recognise the tokenizer",
            "set the tokenizer's own rule, qwen35 for this family",
        ),
        Ok(pre) if family && pre != QWEN => findings.warn(
            "tokenizer-pre",
            PRE,
            format!("{:?}, expected {QWEN:?} for this family", format::brief(pre)),
            "text with combining marks is split otherwise: set qwen35 unless the tokenizer was replaced",
        ),
        Ok(_) => {}
    }
}

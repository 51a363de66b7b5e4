//! What a checkpoint is, at one glance.

use std::io::{self, Write};

use inspect::{Overview, Subject};
use model::{Config, FeedForward};

use super::{Each, findings, write_lines};
use crate::commands::Outcome;
use crate::listing::Form;
use crate::render::{Column, Style, Table, bytes, count, grouped};

pub(super) fn run(subjects: &[Subject], form: Form) -> Outcome {
    let overviews: Vec<Overview> = subjects.iter().map(Overview::of).collect();
    Outcome::streamed(Each(overviews), false, move |each: &Each<Overview>, style, out| {
        let several = each.0.len() > 1;
        each.write(
            |overview| &overview.path,
            style,
            out,
            |overview, out| write(overview, form, several, style, out),
        )
    })
}

/// What it is in few words, each with its label.
pub(super) fn facts(overview: &Overview) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    let architecture = overview.architecture.as_deref().unwrap_or("unnamed architecture");
    let name = overview.name.as_ref().map_or(String::new(), |name| format!(", {name:?}"));
    facts.push((overview.kind.name(), format!("{architecture}{name}")));
    facts.push(("format", written(overview)));
    facts.push((
        "parameters",
        format!(
            "{} ({}) in {} tensors",
            count(overview.parameters),
            grouped(overview.parameters),
            overview.tensors
        ),
    ));
    let bits = overview.bits_per_weight.map_or(String::new(), |bits| format!(", {bits:.2} bits per weight"));
    facts.push((
        "size",
        format!("{} ({} bytes){bits}", bytes(overview.file_bytes), grouped(overview.file_bytes)),
    ));
    let encodings: Vec<String> =
        overview.encodings.iter().map(|e| format!("{} {}", e.encoding, percent(e.share))).collect();
    if !encodings.is_empty() {
        facts.push(("stored as", encodings.join(", ")));
    }
    if let Some(config) = &overview.config {
        settings(config, &mut facts);
    }
    if let Some(tokenizer) = &overview.tokenizer {
        let pre = tokenizer.pre.as_ref().map_or(String::new(), |pre| format!(" ({pre})"));
        let tokens = tokenizer.tokens.map_or(String::new(), |n| format!(", {} tokens", grouped(n)));
        let merges = tokenizer.merges.map_or(String::new(), |n| format!(", {} merges", grouped(n)));
        let special: Vec<String> =
            tokenizer.special.iter().map(|(name, id)| format!("{name} {id}")).collect();
        let special = if special.is_empty() { String::new() } else { format!("; {}", special.join(", ")) };
        facts.push(("tokenizer", format!("{}{pre}{tokens}{merges}{special}", tokenizer.model)));
    }
    if let Some(template) = overview.chat_template {
        facts.push(("chat template", bytes(template as u64)));
    }
    for (what, tensors) in
        [("multi-token prediction", overview.mtp_tensors), ("vision", overview.vision_tensors)]
    {
        if tensors > 0 {
            facts.push((what, format!("{tensors} tensors, known and not run")));
        }
    }
    facts
}

fn written(overview: &Overview) -> String {
    let files = match overview.files.len() {
        1 => String::new(),
        n => format!(", {n} files"),
    };
    match &overview.gguf {
        None => format!("safetensors{files}, {} entries of metadata", overview.keys),
        Some(gguf) => {
            let order = if gguf.big_endian { ", big-endian" } else { "" };
            let aligned = gguf.alignment;
            format!(
                "GGUF version {}{order}{files}, {} keys, aligned to {aligned}",
                gguf.version, overview.keys
            )
        }
    }
}

fn settings(config: &Config, facts: &mut Vec<(&'static str, String)>) {
    let Config { hidden_size, vocab_size, max_position_embeddings, .. } = config;
    // GGUF holds it as f32.
    let rms_norm_eps = config.rms_norm_eps as f32;
    let tied = if config.tie_word_embeddings { "tied" } else { "own head" };
    let (vocabulary, context) = (grouped(*vocab_size as u64), grouped(*max_position_embeddings as u64));
    facts.push((
        "width",
        format!(
            "hidden {hidden_size}, vocabulary {vocabulary} ({tied}), context {context}, eps {rms_norm_eps:e}"
        ),
    ));
    facts.push((
        "feed-forward",
        match &config.feed_forward {
            FeedForward::Dense { intermediate_size } => format!("inner {intermediate_size}"),
            FeedForward::Moe {
                num_experts,
                num_experts_per_tok,
                moe_intermediate_size,
                shared_expert_intermediate_size,
            } => format!(
                "{num_experts} experts of {moe_intermediate_size}, {num_experts_per_tok} a token; shared expert \
                 {shared_expert_intermediate_size}"
            ),
        },
    ));
    facts.push((
        "attention",
        format!(
            "{} heads, {} key-value heads of {}; {} rotated, θ {:e}",
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
            config.rotary_dim,
            config.rope_theta
        ),
    ));
    facts.push((
        "DeltaNet",
        format!(
            "{} key heads of {}, {} value heads of {}, convolution over {}",
            config.linear_num_key_heads,
            config.linear_key_head_dim,
            config.linear_num_value_heads,
            config.linear_value_head_dim,
            config.linear_conv_kernel_dim
        ),
    ));
}

/// How many layers of which kind, and in which order.
pub(super) fn layers(letters: &str) -> String {
    let of = |letter| letters.chars().filter(|&l| l == letter).count();
    let mtp = match of('M') {
        0 => String::new(),
        n => format!(", {n} multi-token prediction (M)"),
    };
    format!("{}: {} DeltaNet (D), {} attention (A){mtp}", letters.len() - of('M'), of('D'), of('A'))
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// The parts of the model and what they are stored in.
pub(super) fn classes(overview: &Overview) -> Table {
    let mut table = Table::new(&[
        Column::Left("part"),
        Column::Right("tensors"),
        Column::Right("parameters"),
        Column::Right("bytes"),
        Column::Right("share"),
        Column::Left("encodings"),
    ]);
    for share in &overview.classes {
        let encodings: Vec<String> = share.encodings.iter().map(|(name, n)| format!("{name} ×{n}")).collect();
        table.row([
            share.class.name().to_owned(),
            share.tensors.to_string(),
            count(share.parameters),
            bytes(share.bytes),
            percent(share.share),
            encodings.join(", "),
        ]);
    }
    table
}

fn write(
    overview: &Overview,
    form: Form,
    several: bool,
    style: &Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    if form != Form::Text {
        let mut table = Table::new(&[Column::Left("what"), Column::Left("value")]);
        let layers =
            overview.layers.iter().map(|letters| ("layers", format!("{}; {letters}", layers(letters))));
        for (label, value) in facts(overview).into_iter().chain(layers) {
            table.row([label.to_owned(), value]);
        }
        table.write(form, style, out)?;
        writeln!(out)?;
        return classes(overview).write(form, style, out);
    }
    let mut lines = Vec::new();
    if !several {
        lines.push(style.bold(&overview.path.display().to_string()));
    }
    let facts = facts(overview);
    let width = facts.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
    lines.extend(
        facts
            .into_iter()
            .map(|(label, value)| format!("  {}  {value}", style.dim(&format!("{label:<width$}")))),
    );
    if let Some(letters) = &overview.layers {
        lines.push(format!("  {}  {}", style.dim(&format!("{:<width$}", "layers")), layers(letters)));
        let rows = letters.as_bytes().chunks(80).map(String::from_utf8_lossy);
        lines.extend(rows.map(|row| format!("  {:<width$}  {row}", "")));
    }
    if !overview.classes.is_empty() {
        lines.push(String::new());
        let mut table = classes(overview).lines();
        table[0] = style.bold(&table[0]);
        lines.extend(table.into_iter().map(|line| format!("  {line}")));
    }
    if !overview.findings.is_empty() {
        lines.push(String::new());
        lines.extend(findings::lines(&overview.findings, style).into_iter().map(|line| format!("  {line}")));
    }
    write_lines(&lines, out)
}

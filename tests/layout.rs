//! docs/layout.md is made from the layout map, and says what the map says.

use std::fmt::Write;
use std::fs;

use model::layout::{ROWS, Scope, Stored, TensorSpec};
use model::{Dim, LayerType, Step};

use crate::etalon::root;

const HEAD: &str = "\
# Layout map

Which tensor is what, in both kinds of file. This page is written by `tests/layout.rs` from the rows that loader and
inspector read (`crates/model/src/layout.rs`); `UPDATE=1 cargo test --test tests layout` writes it anew.

Shapes are outermost first; `ne` of a GGUF file is the reverse. Letters are those of [notation.md](notation.md). *Steps*
take a stored tensor to canonical form: what the arithmetic consumes, in the axis and head order of Hugging Face. `+1`
and `−exp` are computed in f64 and not rounded. A converter from Hugging Face to GGUF does the left steps, then the
right ones backwards.

Prefixes: in Hugging Face files `model.` or `model.language_model.`, then `layers.L.` in a layer; `lm_head.weight` has
none, a multi-token-prediction block has `mtp.` and its layer `mtp.layers.0.`. In GGUF files `blk.L.` in a layer; the
multi-token-prediction block is `blk.N.` with N the number of layers.
";

fn scope(scope: Scope) -> &'static str {
    match scope {
        Scope::Global => "Outside the layers",
        Scope::Layer => "Every layer",
        Scope::Mixer(LayerType::LinearAttention) => "DeltaNet layers",
        Scope::Mixer(LayerType::FullAttention) => "Attention layers, and the multi-token-prediction block",
        Scope::Dense => "Layers with a dense feed-forward part",
        Scope::Moe => "Layers with experts",
        Scope::Mtp => "Once in a multi-token-prediction block",
    }
}

fn axes(axes: &[Dim]) -> String {
    format!("[{}]", axes.iter().map(|dim| dim.symbol()).collect::<Vec<_>>().join(", "))
}

fn steps(stored: &Stored) -> String {
    stored.steps.iter().map(Step::to_string).collect::<Vec<_>>().join(", ")
}

fn row(page: &mut String, spec: &TensorSpec) {
    for (n, hf) in spec.hf.iter().enumerate() {
        let gguf = &spec.gguf;
        let (name, shape, back) = match n {
            0 => (format!("`{}`", gguf.name), axes(gguf.axes), steps(gguf)),
            _ => ("the same".into(), String::new(), String::new()),
        };
        writeln!(
            page,
            "| `{}` | {} | {} | {} | {name} | {shape} | {back} |",
            hf.name,
            axes(hf.axes),
            steps(hf),
            axes(spec.axes)
        )
        .unwrap();
    }
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    let mut scopes: Vec<Scope> = Vec::new();
    ROWS.iter().for_each(|spec| {
        if !scopes.contains(&spec.scope) {
            scopes.push(spec.scope);
        }
    });
    for of in scopes {
        page += &format!("\n## {}\n\n", scope(of));
        page += "| Hugging Face | shape | steps | canonical | GGUF | shape | steps |\n|---|---|---|---|---|---|---|\n";
        ROWS.iter().filter(|spec| spec.scope == of).for_each(|spec| row(&mut page, spec));
    }
    page
}

#[test]
fn the_page_says_what_the_map_says() {
    let (file, page) = (root().join("docs/layout.md"), page());
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&file, &page).unwrap();
    }
    let found = fs::read_to_string(&file).unwrap();
    assert!(found == page, "docs/layout.md is not what the layout map says; UPDATE=1 writes it anew");
}

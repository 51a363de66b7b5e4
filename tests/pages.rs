//! Pages under docs/ that are made from tables of the code, and say what those say.

use std::fmt::Write;
use std::fs;

use model::layout::{ROWS, Scope, Stored, TensorSpec};
use model::{Dim, LayerType, Step};
use trace::limits::TABLE;
use trace::point::KINDS;
use trace::{Extent, Precision};

use crate::etalon::root;

const LAYOUT: &str = "\
# Layout map

Which tensor is what, in both kinds of file. This page is written by `tests/pages.rs` from the rows that loader and
inspector read (`crates/model/src/layout.rs`); `UPDATE=1 cargo test --test tests pages` writes it anew.

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

fn layout() -> String {
    let mut page = LAYOUT.to_owned();
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

const POINTS: &str = "\
# Trace points

What the values of a forward pass are called in traces, what is usually wrong where they first differ, and how far they
may differ. This page is written by `tests/pages.rs` from the tables that `verify` reads (`crates/trace/src/point.rs`,
`limits.rs`); `UPDATE=1 cargo test --test tests pages` writes it anew.

Names are module paths of Transformers. `P` is `model.layers.L`, and `P` alone the layer's output. A * marks values that no
module outputs: a forward hook does not see them. Letters are those of [notation.md](notation.md). llama.cpp's names are
those of its evaluation callback, with `-L` behind them in layers; `Kcur` comes twice, for `k_proj` and for `k_rope`. States are
those after the last token.
";

fn points() -> String {
    let mut page = POINTS.to_owned();
    let name = |kind: &trace::PointKind| match (kind.in_layer, kind.suffix) {
        (true, "") => "P".to_owned(),
        (true, suffix) => format!("P.{suffix}"),
        (false, name) => name.to_owned(),
    };
    page +=
        "\n## Points in order of execution\n\n| point | shape | llama.cpp | limits |\n|---|---|---|---|\n";
    for kind in KINDS {
        let mark = if kind.hooked { "" } else { " *" };
        let state = if kind.extent == Extent::State { ", a state" } else { "" };
        let llama = kind.llama_cpp.map_or(String::new(), |name| format!("`{name}`"));
        let (name, axes) = (name(kind), kind.axes.join(", "));
        writeln!(page, "| `{name}`{mark} | [{axes}]{state} | {llama} | {:?} |", kind.class).unwrap();
    }
    page += "\n## Usual causes of a first divergence\n\n";
    for kind in KINDS {
        writeln!(page, "- `{}`: {}", name(kind), kind.causes.join("; ")).unwrap();
    }
    page += "\n## Limits\n\nThe largest Σ(a−b)²/Σb² that passes, by the coarser precision of the two sides. For choices of \
             experts it is\nthe share of tokens whose sets differ. Derivations stand beside the numbers in the code.\n\n|";
    let precisions = Precision::ALL.map(Precision::name);
    writeln!(page, " | {} |\n|---|---|---|---|---|", precisions.join(" | ")).unwrap();
    for (class, limits) in TABLE {
        let limits = limits.map(|limit| format!("{limit:.1e}").replace(".0e", "e").replace("0e0", "0"));
        writeln!(page, "| {class:?} | {} |", limits.join(" | ")).unwrap();
    }
    page
}

#[test]
fn pages_say_what_the_code_says() {
    for (file, page) in [("layout.md", layout()), ("points.md", points())] {
        let path = root().join("docs").join(file);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &page).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap();
        assert!(found == page, "docs/{file} is not what the code says; UPDATE=1 writes it anew");
    }
}

//! What quantization cost, as a page.

use convert::quantize::Receipt;

use crate::commands::quantize::{decibels, worst};
use crate::page::{Cell, Html, Page};
use crate::render::Column;

/// Width of the longest bar, in pixels.
const WIDTH: f64 = 160.0;

/// The page.
pub fn html(receipt: &Receipt) -> String {
    let mut page = Page::new("What quantization cost");
    page.lead("Every tensor with what its encoding lost. Columns sort; NMSE is Σ(x−y)²/Σ(x−mean)², SQNR Σx²/Σ(x−y)².");
    let output: Vec<String> = receipt.output.iter().map(|path| path.display().to_string()).collect();
    page.facts([
        ("recipe", receipt.recipe.clone()),
        ("output", output.join(", ")),
        ("size", format!("{:.1} MiB", receipt.bytes as f64 / 1_048_576.0)),
        ("bits a weight", format!("{:.3}", receipt.bits_per_weight)),
    ]);
    receipt.notes.iter().for_each(|note| page.paragraph("warn", note));
    let lost = worst(&receipt.tensors);
    let (most, least) = match (lost.first(), lost.last()) {
        (Some((_, most)), Some((_, least))) => (most.nmse_db.unwrap_or(0.0), least.nmse_db.unwrap_or(0.0)),
        _ => (0.0, 0.0),
    };
    page.heading("Tensors");
    let columns = [
        Column::Left("tensor"),
        Column::Left("from"),
        Column::Left("to"),
        Column::Right("bpw"),
        Column::Right("rmse"),
        Column::Right("max error"),
        Column::Right("NMSE dB"),
        Column::Right("weighed dB"),
        Column::Right("SQNR dB"),
        Column::Left("loss"),
    ];
    let number = |value: f64, text: String| Cell::number(value, &text);
    let rows = receipt.tensors.iter().map(|made| {
        let planned = &made.planned;
        let mut row = vec![
            Cell::text(&planned.name),
            Cell::text(planned.from.name()),
            Cell::text(planned.to.name()),
            number(made.bits_per_weight, format!("{:.3}", made.bits_per_weight)),
        ];
        let Some(figures) = made.figures else {
            row.extend([0.0; 6].map(|_| Cell::marked("faint", "")));
            return row;
        };
        let db = |db: Option<f64>| number(db.unwrap_or(f64::MIN), decibels(db));
        row.extend([
            number(figures.rmse, format!("{:.3e}", figures.rmse)),
            number(figures.max_error, format!("{:.3e}", figures.max_error)),
            db(figures.nmse_db),
            db(figures.weighed_nmse_db),
            db(figures.sqnr_db),
            bar(figures.nmse_db, most, least),
        ]);
        row
    });
    page.table(&columns, rows);
    page.finish()
}

/// A bar as long as the loss is bad, between the least and the most of all.
fn bar(nmse_db: Option<f64>, most: f64, least: f64) -> Cell {
    let Some(db) = nmse_db else { return Cell::text("") };
    let span = (most - least).max(1e-9);
    let width = (db - least) / span * (WIDTH - 2.0) + 2.0;
    let svg = format!(
        "<svg width={WIDTH} height=10 role=img><rect width={width:.1} height=10 rx=2 fill=currentColor /></svg>"
    );
    Cell::html(Html::raw(&svg), db)
}

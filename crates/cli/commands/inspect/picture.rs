//! A checkpoint as a picture: a row for each layer, an area for each tensor, as large as its bytes, in the colour of its
//! encoding.

use std::collections::{BTreeMap, HashMap};

use codec::Encoding;
use inspect::TensorRow;

use super::shape;
use super::tensors::purpose;
use crate::page::Html;
use crate::render::bytes;

/// Units of the drawing, which scales with the page.
const WIDTH: f64 = 1200.0;
const LABEL: f64 = 64.0;
const ROW: f64 = 20.0;
const GAP: f64 = 3.0;
/// Nothing is narrower than this, or nobody could point at it.
const LEAST: f64 = 1.5;
/// Letters fit into areas of so many units each.
const LETTER: f64 = 6.2;
/// Beyond so many tensors in one row, those whose names differ in numbers only are drawn as one.
const MANY: usize = 48;
/// Nobody could point at more areas than this in one row.
const MOST: usize = 512;
/// Outside of layers, so many tensors at most have a row of their own.
const OWN_ROWS: u64 = 64;

/// Tensors that stand together.
struct Group<'a> {
    label: String,
    areas: Vec<Area<'a>>,
}

/// One tensor, or several of the same encoding that differ in a number.
struct Area<'a> {
    name: String,
    first: &'a TensorRow,
    count: usize,
    bytes: u64,
}

impl Group<'_> {
    fn bytes(&self) -> u64 {
        self.areas.iter().map(|area| area.bytes).sum()
    }
}

/// The picture; `letters` name the kind of each layer.
pub(super) fn draw(rows: &[TensorRow], letters: Option<&str>) -> Html {
    let (outside, layers) = groups(rows, letters);
    let widest = layers.iter().map(Group::bytes).max().unwrap_or(0);
    let room = WIDTH - LABEL;
    // One scale for all areas: the largest layer fills its row. Without layers, everything together fills ten.
    let all: u64 = outside.iter().map(Group::bytes).sum();
    let unit = if widest > 0 { room * ROW / widest as f64 } else { room * ROW * 10.0 / all.max(1) as f64 };
    // What would not fit into a row is as high as it must be to be as wide as the picture.
    let height = |group: &Group| (group.bytes() as f64 * unit / room).max(ROW);
    let groups = || outside.iter().chain(&layers);
    let whole: f64 = groups().map(|group| height(group) + GAP).sum();
    let mut html = Html::raw(STYLE);
    html.push(&legend(rows));
    html.push_raw("<div class=panel>");
    html.push_raw(&format!(
        "<svg class=picture viewBox='0 0 {WIDTH} {whole:.0}' role=img aria-label='tensors by layer'>"
    ));
    let mut y = 0.0;
    for group in groups() {
        let height = height(group);
        html.push_raw(&format!(
            "<text x=0 y={:.1} class=label>{}</text>",
            y + 14.0,
            Html::text(&group.label)
        ));
        let mut x = LABEL;
        let drawn = |area: &Area| (area.bytes as f64 * unit / height).max(LEAST);
        let total: f64 = group.areas.iter().map(drawn).sum();
        let squeeze = (room / total).min(1.0);
        for area in &group.areas {
            let width = drawn(area) * squeeze;
            html.push(&rectangle(area, x, y, width, height));
            x += width;
        }
        y += height + GAP;
    }
    html.push_raw("</svg></div>");
    html
}

const STYLE: &str = "<style>.picture{display:block;width:100%;min-width:640px}.picture rect{stroke:var(--raised);\
                     stroke-width:.7}.picture rect:hover{stroke:var(--text);stroke-width:1.6}.picture text{font:11px \
                     system-ui,'DejaVu Sans',sans-serif;pointer-events:none;fill:#fff}.picture \
                     .label{fill:var(--faint)}.legend{display:flex;flex-wrap:wrap;gap:.3rem 1.1rem;margin:.2rem 0 \
                     .7rem;font-size:.85rem}.legend i{display:inline-block;width:.85em;height:.85em;border-radius:3px;\
                     margin-right:.4em;vertical-align:-.08em}</style>";

fn rectangle(area: &Area, x: f64, y: f64, width: f64, height: f64) -> Html {
    let row = area.first;
    let times = if area.count > 1 { format!(" ×{}", area.count) } else { String::new() };
    let role = purpose(row);
    let there = row.there.join(" | ");
    let tip: Vec<String> = [
        format!("{}{times}", area.name),
        format!("{}  {}  {}", row.encoding, shape(&row.shape), bytes(area.bytes)),
        role,
        there,
    ]
    .into_iter()
    .filter(|line| !line.is_empty())
    .collect();
    let mut html = Html::raw(&format!(
        "<rect x={x:.1} y={y:.1} width={width:.1} height={height:.1} fill='{}' data-tip='{}'/>",
        colour(row.encoding),
        Html::text(&tip.join("\n"))
    ));
    let short = short(&area.name);
    if short.chars().count() as f64 * LETTER + 8.0 < width {
        let text = Html::text(&short);
        html.push_raw(&format!("<text x={:.1} y={:.1}>{text}</text>", x + 4.0, y + height / 2.0 + 4.0));
    }
    html
}

/// A name without what its row says already.
fn short(name: &str) -> String {
    let name = name.strip_suffix(".weight").unwrap_or(name);
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<&str> = name.split('.').collect();
    match parts.iter().position(|part| digits(part)) {
        Some(at) if at + 1 < parts.len() => parts[at + 1..].join("."),
        _ => name.to_owned(),
    }
}

/// What stands outside of layers, each large tensor in a row of its own, and the layers by number.
fn groups<'a>(rows: &'a [TensorRow], letters: Option<&str>) -> (Vec<Group<'a>>, Vec<Group<'a>>) {
    let mut outside: Vec<&TensorRow> = Vec::new();
    // Vision towers count layers of their own.
    let mut layers: BTreeMap<(bool, usize), Vec<&TensorRow>> = BTreeMap::new();
    for row in rows {
        match row.layer {
            Some(layer) => layers.entry((row.class == inspect::Class::Vision, layer)).or_default().push(row),
            None => outside.push(row),
        }
    }
    let sum = |rows: &[&TensorRow]| rows.iter().map(|row| row.bytes).sum::<u64>();
    let widest = layers.values().map(|rows| sum(rows)).max().unwrap_or(0);
    // Where there are no layers, only a few can be large.
    let large = (widest / 4).max(sum(&outside) / OWN_ROWS);
    let (large, small): (Vec<_>, Vec<_>) = outside.into_iter().partition(|row| row.bytes > large);
    let mut first: Vec<Group> =
        large.into_iter().map(|row| Group { label: String::new(), areas: areas(vec![row]) }).collect();
    if !small.is_empty() {
        first.push(Group { label: "others".to_owned(), areas: areas(small) });
    }
    let letter = |layer: usize| letters.and_then(|letters| letters.chars().nth(layer));
    let label = |(vision, layer): (bool, usize)| match (vision, letter(layer)) {
        (true, _) => format!("vision {layer}"),
        (false, Some(letter)) => format!("{layer} {letter}"),
        (false, None) => layer.to_string(),
    };
    let layers =
        layers.into_iter().map(|(key, rows)| Group { label: label(key), areas: areas(rows) }).collect();
    (first, layers)
}

fn areas(mut rows: Vec<&TensorRow>) -> Vec<Area<'_>> {
    // In the order of the forward pass, as far as parts have one: layers line up.
    rows.sort_by_key(|row| row.class);
    let many = rows.len() > MANY;
    let mut areas: Vec<Area> = Vec::new();
    let mut known: HashMap<(String, &str), usize> = HashMap::new();
    for row in rows {
        let name = if many { starred(&row.name) } else { row.name.clone() };
        match known.get(&(name.clone(), row.encoding)) {
            Some(&at) => {
                (areas[at].count, areas[at].bytes) = (areas[at].count + 1, areas[at].bytes + row.bytes)
            }
            None => {
                known.insert((name.clone(), row.encoding), areas.len());
                areas.push(Area { name, first: row, count: 1, bytes: row.bytes });
            }
        }
    }
    fold(areas)
}

/// Draws the smallest as one where there are more than could be told apart.
fn fold(mut areas: Vec<Area>) -> Vec<Area> {
    if areas.len() <= MOST {
        return areas;
    }
    areas.sort_by_key(|area| std::cmp::Reverse(area.bytes));
    let rest = areas.split_off(MOST - 1);
    let (count, bytes) = (rest.iter().map(|area| area.count).sum(), rest.iter().map(|area| area.bytes).sum());
    areas.extend(rest.first().map(|area| Area {
        name: "the smaller ones".to_owned(),
        first: area.first,
        count,
        bytes,
    }));
    areas
}

/// A name with a star for every number but the first, which is the layer's.
fn starred(name: &str) -> String {
    let mut numbers = 0;
    let part = |part: &str| {
        if !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) {
            numbers += 1;
            if numbers > 1 {
                return "*".to_owned();
            }
        }
        part.to_owned()
    };
    name.split('.').map(part).collect::<Vec<_>>().join(".")
}

fn legend(rows: &[TensorRow]) -> Html {
    let mut shares: BTreeMap<&str, u64> = BTreeMap::new();
    for row in rows {
        *shares.entry(row.encoding).or_default() += row.bytes;
    }
    let all: u64 = shares.values().sum();
    let mut shares: Vec<(&str, u64)> = shares.into_iter().collect();
    shares.sort_by_key(|&(name, bytes)| (std::cmp::Reverse(bytes), name));
    let mut html = Html::raw("<div class=legend>");
    for (name, bytes) in shares {
        let share = bytes as f64 / all.max(1) as f64 * 100.0;
        html.push_raw(&format!(
            "<span><i style='background:{}'></i>{name} {share:.1} %</span>",
            colour(name)
        ));
    }
    html.push_raw("</div>");
    html
}

/// Warm colours for few bits, cold ones for many; members of one family lie beside each other.
fn colour(encoding: &str) -> &'static str {
    let Some(encoding) = Encoding::from_name(encoding) else { return "#6b7280" };
    use Encoding::*;
    match encoding {
        F32 | F64 => "#475569",
        BF16 => "#3b5b8c",
        F16 => "#4a6fa5",
        F8E4M3 | F8E5M2 => "#2a7f9e",
        Q8_0 | Q8_1 | Q8K => "#1f78b4",
        Q6K => "#12807a",
        Q5K => "#2f8f4e",
        Q5_0 => "#4c9a3c",
        Q5_1 => "#3d8a2f",
        Q4K => "#b7791f",
        Q4_0 => "#c98a1b",
        Q4_1 => "#a86a12",
        Iq4Xs => "#c2661d",
        Iq4Nl => "#ad5514",
        Mxfp4 => "#b45f3c",
        Nvfp4 => "#9c4f30",
        Q3K => "#c0453a",
        Iq3S => "#ab3a44",
        Iq3Xxs => "#98324a",
        Q2K => "#b03a78",
        Iq2S => "#9b3480",
        Iq2Xs => "#8a2f86",
        Iq2Xxs => "#7a2c8c",
        Q2_0 => "#a2407e",
        Iq1S => "#5b3a96",
        Iq1M => "#6a3b98",
        Tq1_0 => "#4f46a5",
        Tq2_0 => "#5d55b5",
        Q1_0 => "#433b8f",
        I8 | I16 | I32 | I64 | U8 | U16 | U32 | U64 | Bool => "#6b7280",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_to_what_a_row_does_not_say() {
        assert_eq!(short("blk.3.attn_q.weight"), "attn_q");
        assert_eq!(short("model.layers.3.mlp.experts.*.up_proj.weight"), "mlp.experts.*.up_proj");
        assert_eq!(short("token_embd.weight"), "token_embd");
        assert_eq!(
            starred("model.layers.3.mlp.experts.17.up_proj.weight"),
            "model.layers.3.mlp.experts.*.up_proj.weight"
        );
    }

    /// A file of any number of tensors has a picture that can be looked at.
    #[test]
    fn many_tensors_without_layers_share_a_row() {
        let row = |i: u64| TensorRow {
            name: format!("t{i}"),
            encoding: "F32",
            shape: vec![i + 1],
            ne: vec![i + 1],
            elements: i + 1,
            bytes: 4 * (i + 1),
            offset: 0,
            file: 0,
            layer: None,
            class: inspect::Class::Other,
            status: None,
            roles: Vec::new(),
            steps: String::new(),
            there: Vec::new(),
        };
        let rows: Vec<TensorRow> = (0..10_000).map(row).collect();
        let (outside, layers) = groups(&rows, None);
        assert_eq!((outside.len(), layers.len(), outside[0].areas.len()), (1, 0, MOST));
        assert_eq!(outside[0].bytes(), rows.iter().map(|row| row.bytes).sum::<u64>());
        let counted: usize = outside[0].areas.iter().map(|area| area.count).sum();
        assert_eq!(counted, rows.len());
    }

    /// Every encoding has a colour of its own, as far as a legend could show two of them side by side.
    #[test]
    fn blocks_are_told_apart() {
        let mut seen = std::collections::HashSet::new();
        for encoding in
            Encoding::ALL.iter().filter(|e| e.block_len() > 1 && !matches!(e, Encoding::Q8_1 | Encoding::Q8K))
        {
            assert!(seen.insert(colour(encoding.name())), "{encoding}");
        }
    }
}

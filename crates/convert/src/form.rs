//! One way of holding one weight: where its canonical rows lie in the tensors of a file, and as what values.

use model::layout::{Stored, TensorSpec};
use model::{Config, Dim, Step, Tiling};

/// How a file's values stand to canonical ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Held {
    /// As they are.
    Plain,
    /// `v − 1`: a norm's gain in HF's offset form.
    LessOne,
    /// `ln(−v)`: a decay rate as `A_log`.
    LogOfNegative,
}

/// How many neighbours on either side of the nearest f32 may be the one that leads back: an `exp` or a sum changes by
/// at least a quarter of its own unit from one to the next wherever a way back exists.
const NEIGHBOURS: u32 = 4;

impl Held {
    /// Takes values from this form to another: in f64, rounded once. Between like forms nothing is touched.
    ///
    /// Away from [`Held::Plain`] the f32 is chosen that leads back to the same bits, if there is one.
    pub fn convert(self, to: Held, values: &mut [f32]) {
        if self == to {
            return;
        }
        for value in values {
            let canonical = self.canonical(*value);
            *value = match (self, to) {
                (Held::Plain, Held::LessOne | Held::LogOfNegative) => to.inverse(*value),
                _ => to.of_canonical(canonical) as f32,
            };
        }
    }

    /// The canonical value, unrounded.
    pub fn canonical(self, held: f32) -> f64 {
        let held = f64::from(held);
        match self {
            Held::Plain => held,
            Held::LessOne => held + 1.0,
            Held::LogOfNegative => -libm::exp(held),
        }
    }

    /// The held value, unrounded.
    fn of_canonical(self, canonical: f64) -> f64 {
        match self {
            Held::Plain => canonical,
            Held::LessOne => canonical - 1.0,
            Held::LogOfNegative => libm::log(-canonical),
        }
    }

    /// The f32 whose canonical value rounds to `plain`, or else the nearest to what is held of it.
    fn inverse(self, plain: f32) -> f32 {
        let nearest = self.of_canonical(f64::from(plain)) as f32;
        let leads_back = |held: &f32| (self.canonical(*held) as f32).to_bits() == plain.to_bits();
        let (mut below, mut above) = (nearest, nearest);
        for _ in 0..=NEIGHBOURS {
            if let Some(found) = [below, above].into_iter().find(leads_back) {
                return found;
            }
            (below, above) = (below.next_down(), above.next_up());
        }
        nearest
    }
}

/// Which tensor, or which part of one, holds a weight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Holder {
    /// A tensor of its own.
    Alone,
    /// One half of the `2 · inner` rows that an expert has in a packed tensor.
    Half { half: usize, inner: usize },
    /// One tensor an expert, of `inner` rows each.
    Experts { inner: usize },
}

/// A form of a row of the layout map in a model of known sizes: the steps of the map, read in both directions.
///
/// A weight is seen as rows of columns. Its last axis are the columns, those before it the rows; a vector has rows of
/// one column, so that tiling moves rows there, too.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Form {
    rows: usize,
    cols: usize,
    holder: Holder,
    row_tiling: Option<Tiling>,
    col_tiling: Option<Tiling>,
    held: Held,
}

impl Form {
    /// The form `stored` of the weight `spec`.
    pub fn new(spec: &TensorSpec, stored: &Stored, config: &Config) -> Form {
        let sizes: Vec<usize> = spec.axes.iter().map(|dim| dim.size(config)).collect();
        let (rows, cols) = match sizes.as_slice() {
            [rows] => (*rows, 1),
            [outer @ .., cols] => (outer.iter().product(), *cols),
            [] => (1, 1),
        };
        let inner = sizes.get(1).copied().unwrap_or(1);
        let mut form =
            Form { rows, cols, holder: Holder::Alone, row_tiling: None, col_tiling: None, held: Held::Plain };
        for step in stored.steps {
            match *step {
                Step::AddOne => form.held = Held::LessOne,
                Step::NegExp => form.held = Held::LogOfNegative,
                Step::DropAxis(_) => {}
                Step::Untile { axis: 0, head, skip } => form.row_tiling = Tiling::new(head, skip, config),
                Step::Untile { head, skip, .. } => form.col_tiling = Tiling::new(head, skip, config),
                Step::Half(half) => form.holder = Holder::Half { half, inner },
                Step::StackExperts => form.holder = Holder::Experts { inner },
            }
        }
        form
    }

    /// Canonical rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// As what values the weight is held.
    pub fn held(&self) -> Held {
        self.held
    }

    /// In which order a row has its columns; `None` is the canonical one.
    pub fn columns(&self) -> Option<Tiling> {
        self.col_tiling
    }

    /// What is done to a weight on its way from this form to another, in words; nothing if it is copied.
    pub fn steps_to(&self, to: &Form) -> Vec<&'static str> {
        let mut steps = Vec::new();
        if self.held != to.held {
            steps.extend(match self.held {
                Held::Plain => None,
                Held::LessOne => Some("+1"),
                Held::LogOfNegative => Some("−exp"),
            });
            steps.extend(match to.held {
                Held::Plain => None,
                Held::LessOne => Some("−1"),
                Held::LogOfNegative => Some("ln of −"),
            });
        }
        steps.extend(match (self.row_tiling.is_some(), to.row_tiling.is_some()) {
            (false, true) => Some("tile rows"),
            (true, false) => Some("untile rows"),
            _ => None,
        });
        steps.extend(match (self.col_tiling.is_some(), to.col_tiling.is_some()) {
            (false, true) => Some("tile columns"),
            (true, false) => Some("untile columns"),
            _ => None,
        });
        if self.holder != to.holder {
            steps.extend(match self.holder {
                Holder::Alone => None,
                Holder::Half { half: 0, .. } => Some("first half"),
                Holder::Half { .. } => Some("second half"),
                Holder::Experts { .. } => Some("stack experts"),
            });
            steps.extend(match to.holder {
                Holder::Alone => None,
                Holder::Half { .. } => Some("pack gate and up"),
                Holder::Experts { .. } => Some("part experts"),
            });
        }
        steps
    }

    /// The same, but for the values: what files hold that say so by other means than their format.
    pub fn with_held(self, held: Held) -> Form {
        Form { held, ..self }
    }

    /// How many tensors hold the weight: one, or one an expert.
    pub fn tensors(&self, config: &Config) -> usize {
        match self.holder {
            Holder::Experts { .. } => Dim::Experts.size(config),
            Holder::Alone | Holder::Half { .. } => 1,
        }
    }

    /// Where canonical row `row` lies: in which of the weight's tensors, at which row of that.
    pub fn stored(&self, row: usize) -> (usize, usize) {
        let row = self.row_tiling.map_or(row, |tiling| tiling.stored(row));
        match self.holder {
            Holder::Alone => (0, row),
            Holder::Half { half, inner } => (0, (row / inner * 2 + half) * inner + row % inner),
            Holder::Experts { inner } => (row / inner, row % inner),
        }
    }

    /// Which canonical row lies at `row` of tensor `tensor`; `None` if another weight's does, in a packed tensor.
    pub fn canonical(&self, tensor: usize, row: usize) -> Option<usize> {
        let row = match self.holder {
            Holder::Alone => row,
            Holder::Half { half, inner } => {
                let (part, within) = (row / inner, row % inner);
                if part % 2 != half {
                    return None;
                }
                part / 2 * inner + within
            }
            Holder::Experts { inner } => tensor * inner + row,
        };
        Some(self.row_tiling.map_or(row, |tiling| tiling.canonical(row)))
    }

    /// Puts the columns of a stored row in canonical order. `scratch` is working space, of any length.
    pub fn columns_to_canonical(&self, row: &mut [f32], scratch: &mut Vec<f32>) {
        self.permute_columns(row, scratch, Tiling::stored);
    }

    /// Puts the columns of a canonical row in the order they are stored in.
    pub fn columns_to_stored(&self, row: &mut [f32], scratch: &mut Vec<f32>) {
        self.permute_columns(row, scratch, Tiling::canonical);
    }

    /// Column `i` comes from where `from` says that it was; heads move as a whole.
    fn permute_columns(
        &self,
        row: &mut [f32],
        scratch: &mut Vec<f32>,
        from: impl Fn(&Tiling, usize) -> usize,
    ) {
        let Some(tiling) = self.col_tiling else { return };
        scratch.clear();
        scratch.extend_from_slice(row);
        let run = tiling.run();
        for (head, to) in row.chunks_exact_mut(run).enumerate() {
            to.copy_from_slice(&scratch[from(&tiling, head * run)..][..run]);
        }
    }
}

#[cfg(test)]
mod tests {
    use model::layout::ROWS;

    use super::*;

    /// Sizes that no two axes share, with Hk ≠ r.
    fn configs() -> [Config; 2] {
        let mut json = serde_json::json!({
            "hidden_size": 20, "num_hidden_layers": 1, "vocab_size": 11, "max_position_embeddings": 128,
            "rms_norm_eps": 1e-6, "tie_word_embeddings": false, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 6, "linear_num_key_heads": 2, "linear_num_value_heads": 6,
            "linear_key_head_dim": 5, "linear_value_head_dim": 7, "linear_conv_kernel_dim": 3,
            "layer_types": ["linear_attention"], "intermediate_size": 13,
            "rope_theta": 1e4, "partial_rotary_factor": 1.0,
        });
        let dense = Config::from_json(&json.to_string()).unwrap();
        for (field, size) in [
            ("num_experts", 3),
            ("num_experts_per_tok", 2),
            ("moe_intermediate_size", 4),
            ("shared_expert_intermediate_size", 9),
        ] {
            json[field] = size.into();
        }
        [dense, Config::from_json(&json.to_string()).unwrap()]
    }

    /// In every form, each canonical row has a place of its own, and that place leads back to it.
    #[test]
    fn places_lead_back() {
        let mut forms = 0;
        for config in configs() {
            for spec in ROWS {
                for stored in spec.hf.iter().chain([&spec.gguf]) {
                    let form = Form::new(spec, stored, &config);
                    let mut places: Vec<_> = (0..form.rows()).map(|row| form.stored(row)).collect();
                    for (row, &(tensor, at)) in places.iter().enumerate() {
                        assert!(tensor < form.tensors(&config));
                        assert_eq!(form.canonical(tensor, at), Some(row), "{:?} as {stored:?}", spec.role);
                    }
                    places.sort();
                    places.dedup();
                    assert_eq!(places.len(), form.rows());
                    let size: usize = spec.axes.iter().map(|dim| dim.size(&config)).product();
                    assert_eq!(form.rows() * form.cols(), size);
                    forms += 1;
                }
            }
        }
        assert_eq!(forms, 2 * (2 * ROWS.len() + 3));
    }

    #[test]
    fn columns_return() {
        let [config, _] = configs();
        let mut moved = 0;
        for spec in ROWS {
            let form = Form::new(spec, &spec.gguf, &config);
            let row: Vec<f32> = (0..form.cols()).map(|i| i as f32).collect();
            let (mut changed, mut scratch) = (row.clone(), Vec::new());
            form.columns_to_stored(&mut changed, &mut scratch);
            moved += usize::from(changed != row);
            form.columns_to_canonical(&mut changed, &mut scratch);
            assert_eq!(changed, row);
        }
        assert_eq!(moved, 1, "out_proj alone");
    }

    #[test]
    fn values_are_rounded_once() {
        let convert = |from: Held, to, value: f32| {
            let mut values = [value];
            from.convert(to, &mut values);
            values[0]
        };
        let all = [Held::Plain, Held::LessOne, Held::LogOfNegative];
        for held in all {
            assert_eq!(convert(held, held, 0.1).to_bits(), 0.1f32.to_bits());
        }
        assert_eq!(convert(Held::LessOne, Held::Plain, 0.1), 1.1);
        assert_eq!(convert(Held::Plain, Held::LessOne, 1.5), 0.5);
        assert_eq!(convert(Held::LogOfNegative, Held::Plain, 1.0), -std::f32::consts::E);
        assert_eq!(convert(Held::Plain, Held::LogOfNegative, -2.0), std::f32::consts::LN_2);
    }
}

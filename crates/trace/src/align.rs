//! Shapes that mean the same: hooks add a batch axis, or flatten tokens and heads.

use crate::point::{OrderKey, PointKind, order_key};
use crate::tensor::elements;
use crate::{Extent, point};

/// How two arrays of one point lie on each other: value by value in row-major order, after some are left out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Alignment {
    /// What is taken of each: of the reference, of the candidate.
    pub(crate) parts: [Part; 2],
    /// What was read otherwise than it stands, for the report.
    pub(crate) notes: Vec<String>,
}

/// Which values of an array take part.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Part {
    /// The array's own shape.
    pub(crate) shape: Vec<usize>,
    /// Values left out at the front.
    pub(crate) skip: usize,
    /// Values left out at the front of each row of the last axis.
    pub(crate) skip_in_row: usize,
}

impl Part {
    fn all(shape: &[usize]) -> Part {
        Part { shape: shape.to_vec(), skip: 0, skip_in_row: 0 }
    }

    /// Length of the rows that take part.
    pub(crate) fn row(&self) -> usize {
        self.shape.last().copied().unwrap_or(1) - self.skip_in_row
    }

    /// The index, in the array's own shape, of the value that takes part as number `at`.
    pub(crate) fn index(&self, at: usize) -> Vec<usize> {
        let row = self.row().max(1);
        let mut rest = at / row * (row + self.skip_in_row) + self.skip_in_row + at % row + self.skip;
        let mut index = vec![0; self.shape.len()];
        for (place, &axis) in index.iter_mut().zip(&self.shape).rev() {
            *place = rest % axis.max(1);
            rest /= axis.max(1);
        }
        index
    }
}

/// Lays a candidate's shape on a reference's, or says why that cannot be done.
pub(crate) fn align(name: &str, reference: &[usize], candidate: &[usize]) -> Result<Alignment, String> {
    let kind = point::parse(name).map(|(_, kind)| kind);
    let mut alignment = Alignment { parts: [Part::all(reference), Part::all(candidate)], notes: Vec::new() };
    if reference == candidate {
        return if elements(reference) == Some(0) {
            Err(format!("both are empty: {reference:?}"))
        } else {
            Ok(alignment)
        };
    }
    let plain = [reference, candidate].map(unbatched);
    let whole = elements(plain[0]).is_some_and(|n| n != 0 && elements(plain[1]) == Some(n));
    if whole && (plain[0] == plain[1] || is_regrouped(kind, plain)) {
        for (side, shape, other) in [("reference", reference, plain[1]), ("candidate", candidate, plain[0])] {
            // The one that stands as the table has it needs no word.
            let expected = kind.is_some_and(|k| k.axes.len() == shape.len());
            if !expected && shape != other {
                alignment.notes.push(format!("{side} {shape:?} read as {other:?}"));
            }
        }
        if alignment.notes.is_empty() {
            alignment.notes.push(format!("candidate {candidate:?} read as {reference:?}"));
        }
        return Ok(alignment);
    }
    if [reference, candidate].iter().any(|shape| elements(shape) == Some(0)) {
        return Err(mismatch(kind, reference, candidate, plain));
    }
    // The longer of the two, as an index into the sides.
    let longer = usize::from(elements(candidate) > elements(reference));
    let (long, short) = (plain[longer], plain[1 - longer]);
    let side = ["reference", "candidate"];
    if matches!(order_key(name), OrderKey::After(_)) && long.len() == 2 && short == &long[1..] && long[0] > 0
    {
        alignment.parts[longer].skip = (long[0] - 1) * long[1];
        alignment.notes.push(format!(
            "{} holds the last token only; compared with the last of {}",
            side[1 - longer],
            long[0]
        ));
        return Ok(alignment);
    }
    let is_conv_state = kind.is_some_and(|k| k.suffix == "linear_attn.conv_state");
    if let (true, [rows, width], [same, kept]) = (is_conv_state, long, short)
        && rows == same
        && *width == kept + 1
        && *kept > 0
    {
        alignment.parts[longer].skip_in_row = 1;
        alignment.notes.push(format!(
            "{} holds {width} columns of convolution state; the oldest is outside the kernel, the last {kept} are compared",
            side[longer]
        ));
        return Ok(alignment);
    }
    Err(mismatch(kind, reference, candidate, plain))
}

/// The shape without leading axes of length 1.
fn unbatched(shape: &[usize]) -> &[usize] {
    let batch = shape.iter().take_while(|&&d| d == 1).count();
    &shape[batch.min(shape.len().saturating_sub(1))..]
}

/// Whether two shapes of one element count differ only in how neighbouring axes are joined: `[T, H, D]`,
/// `[T, H·D]`, `[T·H, D]`.
fn is_regrouped(kind: Option<&PointKind>, [a, b]: [&[usize]; 2]) -> bool {
    // The axes of a state are not interchangeable with anything, and axes in another order are other values.
    if kind.is_some_and(|k| k.extent == Extent::State) || is_permuted(a, b) {
        return false;
    }
    let cuts = |shape: &[usize]| -> Vec<usize> {
        let products = shape.iter().scan(1, |product, &axis| {
            *product *= axis;
            Some(*product)
        });
        products.collect()
    };
    let (of_a, of_b) = (cuts(a), cuts(b));
    let within = |x: &[usize], y: &[usize]| x.iter().all(|cut| y.contains(cut));
    // Heads joined to channels on one side, to tokens on the other.
    let has_heads = kind.is_none_or(|k| k.axes.iter().any(|axis| axis.contains('·')));
    let both_flat = has_heads && a.len() == 2 && b.len() == 2;
    let joined = both_flat && (a[0].is_multiple_of(b[0]) || b[0].is_multiple_of(a[0]));
    joined || within(&of_a, &of_b) || within(&of_b, &of_a)
}

fn is_permuted(a: &[usize], b: &[usize]) -> bool {
    let sorted = |shape: &[usize]| {
        let mut shape = shape.to_vec();
        shape.sort_unstable();
        shape
    };
    a != b && sorted(a) == sorted(b)
}

/// Says what two shapes that do not fit might be.
fn mismatch(
    kind: Option<&PointKind>,
    reference: &[usize],
    candidate: &[usize],
    plain: [&[usize]; 2],
) -> String {
    let mut text = format!("shapes differ: reference {reference:?}, candidate {candidate:?}");
    if let Some(kind) = kind {
        text += &format!(", expected [{}]", kind.axes.join(", "));
    }
    let [a, b] = plain;
    let heads_first = a.len() < b.len() && elements(a) == elements(b) && b.len() == 3 && a[0] == b[1];
    let hint = if kind.is_some_and(|k| k.suffix == "linear_attn.conv1d")
        && b.len() == 2
        && a.first() < b.last()
    {
        "a hook on the convolution sees [C, T + 3] before silu; record silu of its first T columns, transposed"
    } else if is_permuted(a, b) || heads_first {
        "the axes stand in another order; transpose before saving"
    } else if a.len() + 1 == b.len() && a == &b[1..] {
        "a batch of several sequences; save one"
    } else if [(a, b), (reference, candidate)].iter().any(|(a, b)| a.len() > 1 && a.get(1..) == b.get(1..)) {
        "another number of tokens"
    } else if kind.is_some_and(|k| k.suffix == "lm_head") {
        "another size of vocabulary, perhaps padded"
    } else {
        return text;
    };
    text + "; " + hint
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NORM: &str = "model.layers.0.linear_attn.norm";
    const Q: &str = "model.layers.3.self_attn.q_norm";
    const STATE: &str = "model.layers.0.linear_attn.recurrent_state";
    const CONV_STATE: &str = "model.layers.0.linear_attn.conv_state";

    fn notes(name: &str, reference: &[usize], candidate: &[usize]) -> Vec<String> {
        let alignment = align(name, reference, candidate).unwrap();
        assert!(alignment.parts.iter().all(|p| p.skip == 0 && p.skip_in_row == 0));
        alignment.notes
    }

    #[test]
    fn equal_shapes_need_no_note() {
        assert!(notes(Q, &[24, 4, 32], &[24, 4, 32]).is_empty());
        assert!(notes("anything", &[], &[]).is_empty());
    }

    #[test]
    fn batch_axes_and_joined_axes_are_recognised() {
        for (name, reference, candidate) in [
            ("model.norm", &[24, 128][..], &[1, 24, 128][..]),
            ("model.norm", &[1, 128], &[1, 1, 128]),
            (Q, &[24, 4, 32], &[96, 32]),
            (Q, &[24, 4, 32], &[24, 128]),
            (Q, &[24, 4, 32], &[1, 24, 4, 32]),
            (NORM, &[24, 256], &[192, 32]),
            (NORM, &[24, 256], &[1, 24, 8, 32]),
            (STATE, &[8, 32, 16], &[1, 8, 32, 16]),
            (CONV_STATE, &[512, 3], &[1, 512, 3]),
        ] {
            let expected = [format!("candidate {candidate:?} read as {reference:?}")];
            let short = [format!("candidate {candidate:?} read as {:?}", unbatched(reference))];
            let found = notes(name, reference, candidate);
            assert!(found == expected || found == short, "{name}: {found:?}");
        }
        let swapped = notes("model.norm", &[1, 24, 128], &[24, 128]);
        assert_eq!(swapped, ["reference [1, 24, 128] read as [24, 128]"]);
    }

    #[test]
    fn other_shapes_are_named() {
        for (name, reference, candidate, hint) in [
            (Q, &[24, 4, 32][..], &[1, 4, 24, 32][..], "another order"),
            (NORM, &[24, 256], &[8, 24, 32], "another order"),
            ("model.norm", &[24, 128], &[128, 24], "another order"),
            (STATE, &[8, 32, 16], &[8, 16, 32], "another order"),
            (STATE, &[8, 32, 16], &[256, 16], "expected [Hv, K, V]"),
            (CONV_STATE, &[512, 3], &[3, 512], "another order"),
            (CONV_STATE, &[512, 3], &[512, 5], "[512, 5]"),
            ("model.norm", &[24, 128], &[2, 24, 128], "a batch of several"),
            ("model.norm", &[24, 128], &[25, 128], "another number of tokens"),
            ("model.layers.1", &[24, 128], &[1, 128], "number of tokens"),
            ("model.layers.1", &[24, 128], &[48, 64], "expected [T, D]"),
            ("lm_head", &[24, 512], &[24, 1024], "vocabulary"),
            ("model.layers.0.linear_attn.conv1d", &[24, 512], &[1, 512, 27], "before silu"),
            ("other", &[4, 3], &[4], "reference [4, 3], candidate [4]"),
            ("other", &[0, 3], &[0, 3], "both are empty"),
            ("other", &[0, 3], &[3, 0], "shapes differ"),
            ("other", &[usize::MAX, 3], &[3, 3], "shapes differ"),
        ] {
            let fault = align(name, reference, candidate).expect_err(name);
            assert!(fault.contains(hint), "{name}: {fault}");
        }
    }

    #[test]
    fn the_last_token_alone_is_laid_on_the_last() {
        for candidate in [&[1, 512][..], &[512], &[1, 1, 512]] {
            let alignment = align("lm_head", &[24, 512], candidate).unwrap();
            assert_eq!((alignment.parts[0].skip, alignment.parts[1].skip), (23 * 512, 0));
            assert_eq!(alignment.parts[0].index(5), [23, 5]);
            assert!(alignment.notes[0].starts_with("candidate holds the last token only"));
        }
        let alignment = align("lm_head", &[512], &[24, 512]).unwrap();
        assert_eq!((alignment.parts[0].skip, alignment.parts[1].skip), (0, 23 * 512));
    }

    #[test]
    fn four_columns_of_convolution_state_lose_the_oldest() {
        let alignment = align(CONV_STATE, &[512, 3], &[1, 512, 4]).unwrap();
        assert_eq!((alignment.parts[1].skip_in_row, alignment.parts[1].row()), (1, 3));
        assert_eq!(alignment.parts[0].index(4), [1, 1]);
        assert_eq!(alignment.parts[1].index(4), [0, 1, 2]);
        let alignment = align(CONV_STATE, &[512, 4], &[512, 3]).unwrap();
        assert_eq!(alignment.parts[0].index(4), [1, 2]);
    }

    proptest! {
        #[test]
        fn an_index_is_where_its_value_stands(
            shape in proptest::collection::vec(1usize..5, 1..4),
            skipped_rows in 0usize..2,
            skip_in_row in 0usize..2,
        ) {
            let row = shape[shape.len() - 1];
            let rows = elements(&shape).unwrap() / row;
            prop_assume!(skip_in_row < row && skipped_rows < rows);
            let part = Part { shape: shape.clone(), skip: skipped_rows * row, skip_in_row };
            // The values that take part, as their places in the whole array.
            let taken = (skipped_rows * row..rows * row).filter(|at| at % row >= skip_in_row);
            for (at, place) in taken.enumerate() {
                let flat = part.index(at).iter().zip(&shape).fold(0, |flat, (i, axis)| flat * axis + i);
                prop_assert_eq!(flat, place);
            }
        }

        #[test]
        fn any_two_shapes_align_or_not_without_panic(
            a in proptest::collection::vec(0usize..9, 0..5),
            b in proptest::collection::vec(0usize..9, 0..5),
        ) {
            for name in [Q, NORM, STATE, CONV_STATE, "lm_head", "other"] {
                if let Ok(alignment) = align(name, &a, &b) {
                    let taken = |part: &Part| {
                        let all = elements(&part.shape).unwrap() - part.skip;
                        all / (part.row() + part.skip_in_row) * part.row()
                    };
                    prop_assert_eq!(taken(&alignment.parts[0]), taken(&alignment.parts[1]));
                    prop_assert!(taken(&alignment.parts[0]) > 0);
                }
            }
        }
    }
}

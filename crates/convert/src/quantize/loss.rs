//! What encoding a tensor cost.

use pulp::{Simd, WithSimd};
use serde::Serialize;

/// Sums over the values of a tensor and what a decoder finds in their place, in f64: they add up in the order of the rows,
/// so that threads do not matter.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Loss {
    count: u64,
    /// Σ (x − y)².
    squared_error: f64,
    /// Σ w·(x − y)², w being importance.
    weighed_error: f64,
    /// Σ x².
    squares: f64,
    /// Σ w·x².
    weighed_squares: f64,
    /// Σ x.
    sum: f64,
    max_error: f64,
}

const LANES: usize = 8;

impl Loss {
    /// Over some values; importance is of one row and serves all.
    pub fn of(values: &[f32], decoded: &[f32], importance: Option<&[f32]>) -> Loss {
        let mut loss = plain(values, decoded);
        if let Some(importance) = importance {
            for (x, y) in values.chunks(importance.len()).zip(decoded.chunks(importance.len())) {
                let (error, squares) = weighed(x, y, importance);
                loss.weighed_error += error;
                loss.weighed_squares += squares;
            }
        }
        loss
    }

    /// Over values that follow.
    pub fn add(&mut self, next: &Loss) {
        self.count += next.count;
        self.squared_error += next.squared_error;
        self.weighed_error += next.weighed_error;
        self.squares += next.squares;
        self.weighed_squares += next.weighed_squares;
        self.sum += next.sum;
        self.max_error = self.max_error.max(next.max_error);
    }

    /// Σw(x−y)² / Σwx², w being importance if there is any, else 1; 0 where all is zero.
    pub fn relative(&self) -> f64 {
        let (error, squares) = match self.weighed_squares > 0.0 {
            true => (self.weighed_error, self.weighed_squares),
            false => (self.squared_error, self.squares),
        };
        if squares > 0.0 { error / squares } else { 0.0 }
    }

    /// In figures.
    pub fn figures(&self) -> Figures {
        let count = self.count.max(1) as f64;
        let spread = self.squares - self.sum * self.sum / count;
        let decibels = |ratio: f64| (ratio > 0.0 && ratio.is_finite()).then(|| 10.0 * ratio.log10());
        Figures {
            rmse: (self.squared_error / count).sqrt(),
            max_error: self.max_error,
            nmse_db: decibels(self.squared_error / spread),
            sqnr_db: decibels(self.squares / self.squared_error),
            weighed_nmse_db: decibels(self.weighed_error / self.weighed_squares),
        }
    }
}

/// What a loss comes to. Where nothing was lost, or nothing was there, there are no decibels.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Figures {
    /// √(Σ(x−y)²/n).
    pub rmse: f64,
    /// The largest |x − y|.
    pub max_error: f64,
    /// Σ(x−y)² / Σ(x−x̄)² in dB: 0 is what a constant would do.
    pub nmse_db: Option<f64>,
    /// Σx² / Σ(x−y)² in dB.
    pub sqnr_db: Option<f64>,
    /// Σw(x−y)² / Σwx² in dB, w being importance.
    pub weighed_nmse_db: Option<f64>,
}

fn plain(values: &[f32], decoded: &[f32]) -> Loss {
    pulp::Arch::new().dispatch(Plain { values, decoded })
}

/// Σ w·(x − y)² and Σ w·x² over a row.
fn weighed(values: &[f32], decoded: &[f32], importance: &[f32]) -> (f64, f64) {
    pulp::Arch::new().dispatch(Weighed { values, decoded, importance })
}

struct Plain<'a> {
    values: &'a [f32],
    decoded: &'a [f32],
}

impl WithSimd for Plain<'_> {
    type Output = Loss;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Loss {
        let nothing = [simd.splat_f64s(0.0); LANES];
        let mut sums = Sums { simd, errors: nothing, squares: nothing, values: nothing, max_errors: nothing };
        let (x, x_rest) = self.values.as_chunks::<LANES>();
        let (y, y_rest) = self.decoded.as_chunks::<LANES>();
        for (x, y) in x.iter().zip(y) {
            sums.add(x, y);
        }
        if !x_rest.is_empty() {
            // Zeros add nothing.
            let (mut x, mut y) = ([0.0; LANES], [0.0; LANES]);
            x[..x_rest.len()].copy_from_slice(x_rest);
            y[..y_rest.len()].copy_from_slice(y_rest);
            sums.add(&x, &y);
        }
        Loss {
            count: self.values.len() as u64,
            squared_error: reduce(&lanes::<S>(&sums.errors)),
            squares: reduce(&lanes::<S>(&sums.squares)),
            sum: reduce(&lanes::<S>(&sums.values)),
            max_error: lanes::<S>(&sums.max_errors).into_iter().fold(0.0, f64::max),
            ..Loss::default()
        }
    }
}

/// Of each as many registers as hold the lanes; the others are not touched. Left to itself the compiler puts a lane's
/// different sums side by side into a register.
struct Sums<S: Simd> {
    simd: S,
    errors: [S::f64s; LANES],
    squares: [S::f64s; LANES],
    values: [S::f64s; LANES],
    max_errors: [S::f64s; LANES],
}

impl<S: Simd> Sums<S> {
    #[inline(always)]
    fn add(&mut self, x: &[f32; LANES], y: &[f32; LANES]) {
        let simd = self.simd;
        let (x, y) = (widen(x), widen(y));
        for (r, (&x, &y)) in S::as_simd_f64s(&x).0.iter().zip(S::as_simd_f64s(&y).0).enumerate() {
            let error = simd.sub_f64s(x, y);
            self.errors[r] = simd.add_f64s(self.errors[r], simd.mul_f64s(error, error));
            self.squares[r] = simd.add_f64s(self.squares[r], simd.mul_f64s(x, x));
            self.values[r] = simd.add_f64s(self.values[r], x);
            self.max_errors[r] = simd.max_f64s(self.max_errors[r], simd.abs_f64s(error));
        }
    }
}

#[inline(always)]
fn widen(x: &[f32; LANES]) -> [f64; LANES] {
    let mut wide = [0.0; LANES];
    for (wide, x) in wide.iter_mut().zip(x) {
        *wide = f64::from(*x);
    }
    wide
}

/// The lanes of the first registers.
#[inline(always)]
fn lanes<S: Simd>(registers: &[S::f64s; LANES]) -> [f64; LANES] {
    let mut lanes = [0.0; LANES];
    for (to, from) in S::as_mut_simd_f64s(&mut lanes).0.iter_mut().zip(registers) {
        *to = *from;
    }
    lanes
}

struct Weighed<'a> {
    values: &'a [f32],
    decoded: &'a [f32],
    importance: &'a [f32],
}

impl WithSimd for Weighed<'_> {
    type Output = (f64, f64);

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> (f64, f64) {
        let (mut errors, mut squares) = ([0.0; LANES], [0.0; LANES]);
        let mut add = |l: usize, x: f32, y: f32, w: f32| {
            let (x, y, w) = (f64::from(x), f64::from(y), f64::from(w));
            errors[l] += w * ((x - y) * (x - y));
            squares[l] += w * (x * x);
        };
        let (x, x_rest) = self.values.as_chunks::<LANES>();
        let (y, y_rest) = self.decoded.as_chunks::<LANES>();
        let (w, w_rest) = self.importance.as_chunks::<LANES>();
        for ((x, y), w) in x.iter().zip(y).zip(w) {
            for l in 0..LANES {
                add(l, x[l], y[l], w[l]);
            }
        }
        for (l, ((x, y), w)) in x_rest.iter().zip(y_rest).zip(w_rest).enumerate() {
            add(l, *x, *y, *w);
        }
        (reduce(&errors), reduce(&squares))
    }
}

#[inline(always)]
fn reduce(l: &[f64; LANES]) -> f64 {
    ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_what_they_say() {
        let values = [1.0_f32, -2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0, 2.0, 2.0];
        let decoded = [1.0_f32, -2.0, 3.0, 3.5, 0.0, 0.0, 0.0, 0.0, 2.0, 1.0];
        let figures = Loss::of(&values, &decoded, Some(&[1.0, 0.0, 0.0, 2.0, 0.0])).figures();
        assert_eq!(figures.rmse, (1.25_f64 / 10.0).sqrt());
        assert_eq!(figures.max_error, 1.0);
        assert!((figures.nmse_db.unwrap() - 10.0 * (1.25_f64 / (38.0 - 10.0)).log10()).abs() < 1e-12);
        assert!((figures.sqnr_db.unwrap() - 10.0 * (38.0_f64 / 1.25).log10()).abs() < 1e-12);
        let weighed = 10.0 * ((2.0 * 0.25) / (1.0 + 2.0 * 16.0 + 2.0 * 4.0_f64)).log10();
        assert!((figures.weighed_nmse_db.unwrap() - weighed).abs() < 1e-12);
        let exact = Loss::of(&values, &values, None).figures();
        assert_eq!((exact.rmse, exact.nmse_db, exact.sqnr_db), (0.0, None, None));
    }
}

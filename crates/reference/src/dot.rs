//! The inner product, whose bits depend on nothing but its inputs.
//!
//! Products go to eight lanes by index modulo 8; each lane adds its own in order, in f64; a fixed tree adds the lanes.
//! Every instruction set computes the same lanes with wider or narrower registers, and tiles only share loads: the
//! bits are the same for all. A product of two f32 is exact in f64, so that a fused multiply-add rounds as the two
//! operations do: where both inputs are f32 and the processor has it, it is used.

use pulp::{Simd, WithSimd};

/// Lanes of every sum.
pub(crate) const LANES: usize = 8;

/// Eight successive inputs, or eight partial sums.
pub(crate) type Lane = [f64; LANES];

/// The tree that adds the lanes.
#[inline(always)]
pub(crate) fn reduce(l: &Lane) -> f64 {
    ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]))
}

/// `Σ a·b`, written to be read: the definition that the tiles are tested against.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut lanes = [0.0; LANES];
    let (a_whole, a_rest) = a.as_chunks::<LANES>();
    let (b_whole, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_whole.iter().zip(b_whole) {
        for l in 0..LANES {
            lanes[l] += a[l] * b[l];
        }
    }
    for (l, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        lanes[l] += a * b;
    }
    reduce(&lanes)
}

/// The lanes of `Σ a·b` for `R` rows of weights and `T` tokens at once, added to what they hold if they are to `go_on`.
///
/// `x` interleaves tokens: `x[i][t]` is the `i`-th lane group of token `t`. `w` is one row after the other, each as long
/// as `x`. `P` registers of `S` make eight lanes.
#[inline(always)]
pub(crate) fn tile<S: Simd, const P: usize, const R: usize, const T: usize, const FUSED: bool>(
    simd: S,
    w: &[Lane],
    x: &[[Lane; T]],
    go_on: bool,
    lanes: &mut [[Lane; T]; R],
) {
    let mut sums = [[[simd.splat_f64s(0.0); P]; T]; R];
    if go_on {
        for (sums, lanes) in sums.iter_mut().zip(lanes.iter()) {
            for (sum, lane) in sums.iter_mut().zip(lanes) {
                sum.copy_from_slice(S::as_simd_f64s(lane).0);
            }
        }
    }
    // Plain loops: `array::map` and its kin are not inlined into code compiled for another instruction set.
    let mut rows = [w; R];
    for (r, row) in rows.iter_mut().enumerate() {
        *row = &w[r * x.len()..][..x.len()];
    }
    for (i, x) in x.iter().enumerate() {
        for r in 0..R {
            let w = S::as_simd_f64s(&rows[r][i]).0;
            for t in 0..T {
                let x = S::as_simd_f64s(&x[t]).0;
                for p in 0..P {
                    let sum = &mut sums[r][t][p];
                    *sum = match FUSED {
                        true => simd.mul_add_f64s(w[p], x[p], *sum),
                        false => simd.add_f64s(*sum, simd.mul_f64s(w[p], x[p])),
                    };
                }
            }
        }
    }
    for (lanes, sums) in lanes.iter_mut().zip(&sums) {
        for (lane, sum) in lanes.iter_mut().zip(sums) {
            S::as_mut_simd_f64s(lane).0.copy_from_slice(sum);
        }
    }
}

/// An instruction set that the tiles are compiled for.
#[derive(Clone, Copy, Debug)]
pub struct Kernels(Isa);

#[derive(Clone, Copy, Debug)]
enum Isa {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2(pulp::x86::V3),
    #[cfg(target_arch = "x86_64")]
    Avx512(pulp::x86::V4),
}

/// Work that is compiled once for every instruction set: `P` registers make eight lanes, a tile has `R` rows and
/// up to `T` tokens. `FUSED` if products are exact and the instruction set fuses multiply and add.
pub(crate) trait Tiled {
    fn run<S: Simd, const P: usize, const R: usize, const T: usize, const FUSED: bool>(self, simd: S);
}

struct With<W, const P: usize, const R: usize, const T: usize, const FUSED: bool>(W);

impl<W: Tiled, const P: usize, const R: usize, const T: usize, const FUSED: bool> WithSimd
    for With<W, P, R, T, FUSED>
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.0.run::<S, P, R, T, FUSED>(simd)
    }
}

impl Kernels {
    /// Every instruction set that this processor can run, slowest first.
    pub fn all() -> Vec<Kernels> {
        let mut all = vec![Kernels(Isa::Scalar)];
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(pulp::x86::V3::try_new().map(|v3| Kernels(Isa::Avx2(v3))));
            all.extend(pulp::x86::V4::try_new().map(|v4| Kernels(Isa::Avx512(v4))));
        }
        all
    }

    /// The fastest, or the one that `ETALON_KERNELS` names if this processor can run it.
    pub fn detect() -> Kernels {
        let all = Kernels::all();
        let fastest = all[all.len() - 1];
        match std::env::var("ETALON_KERNELS") {
            Ok(name) => all.into_iter().find(|k| k.name() == name).unwrap_or(fastest),
            Err(_) => fastest,
        }
    }

    /// As `ETALON_KERNELS` spells it.
    pub fn name(self) -> &'static str {
        match self.0 {
            Isa::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => "avx512",
        }
    }

    /// Tokens in this instruction set's tile.
    pub(crate) fn tile_tokens(self) -> usize {
        match self.0 {
            Isa::Scalar => 1,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => 3,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => 6,
        }
    }

    /// Runs plain code as compiled for this instruction set: wider registers for loops over independent elements, and
    /// so the same bits.
    pub(crate) fn vectorize(self, work: impl FnOnce()) {
        match self.0 {
            Isa::Scalar => work(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(v3) => v3.vectorize(work),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(v4) => v4.vectorize(work),
        }
    }

    /// Runs `work` as compiled for this instruction set, with the tile that its registers hold. `exact`: the product
    /// of any weight and any activation is exact in f64.
    pub(crate) fn run(self, work: impl Tiled, exact: bool) {
        match (self.0, exact) {
            (Isa::Scalar, _) => pulp::Scalar::new().vectorize(With::<_, 8, 1, 1, false>(work)),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2(v3), true) => Simd::vectorize(v3, With::<_, 2, 2, 3, true>(work)),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2(v3), false) => Simd::vectorize(v3, With::<_, 2, 2, 3, false>(work)),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512(v4), true) => Simd::vectorize(v4, With::<_, 1, 4, 6, true>(work)),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512(v4), false) => Simd::vectorize(v4, With::<_, 1, 4, 6, false>(work)),
        }
    }
}

//! The instruction sets that hot loops are compiled for.

use instructions::Amx;
use pulp::{Simd, WithSimd};

/// An instruction set. It changes how fast a result comes, and not one bit of it.
#[derive(Clone, Copy, Debug)]
pub struct Kernels(Isa);

#[derive(Clone, Copy, Debug)]
enum Isa {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2(pulp::x86::V3),
    #[cfg(target_arch = "x86_64")]
    Avx512(pulp::x86::V4),
    #[cfg(target_arch = "x86_64")]
    Amx(pulp::x86::V4, Amx),
}

/// Work that is compiled once for every instruction set: `P` registers make eight lanes, and a tile of `R × G` times
/// eight sums fills its registers. `FUSED` if products are exact and the instruction set fuses multiply and add.
pub(crate) trait Tiled {
    fn run<S: Simd, const P: usize, const R: usize, const G: usize, const FUSED: bool>(self, simd: S);
}

struct With<W, const P: usize, const R: usize, const G: usize, const FUSED: bool>(W);

impl<W: Tiled, const P: usize, const R: usize, const G: usize, const FUSED: bool> WithSimd
    for With<W, P, R, G, FUSED>
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.0.run::<S, P, R, G, FUSED>(simd)
    }
}

impl Kernels {
    /// Every instruction set that this processor can run, slowest first.
    pub fn all() -> Vec<Kernels> {
        let mut all = vec![Kernels(Isa::Scalar)];
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(pulp::x86::V3::try_new().map(|v3| Kernels(Isa::Avx2(v3))));
            if let Some(v4) = pulp::x86::V4::try_new() {
                all.push(Kernels(Isa::Avx512(v4)));
                all.extend(Amx::detect().map(|amx| Kernels(Isa::Amx(v4, amx))));
            }
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
            #[cfg(target_arch = "x86_64")]
            Isa::Amx(..) => "amx",
        }
    }

    /// Tiles of bytes, if they are to be used.
    pub(crate) fn tiles(self) -> Option<Amx> {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx(_, amx) => Some(amx),
            _ => None,
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
            Isa::Avx512(v4) | Isa::Amx(v4, _) => v4.vectorize(work),
        }
    }

    /// Runs `work` as compiled for this instruction set, with the tile that its registers hold. `exact`: the product
    /// of any weight and any activation is exact in f64.
    pub(crate) fn run(self, work: impl Tiled, exact: bool) {
        match (self.0, exact) {
            (Isa::Scalar, _) => pulp::Scalar::new().vectorize(With::<_, 8, 1, 1, false>(work)),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2(v3), true) => Simd::vectorize(v3, With::<_, 2, 6, 1, true>(work)),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2(v3), false) => Simd::vectorize(v3, With::<_, 2, 6, 1, false>(work)),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512(v4) | Isa::Amx(v4, _), true) => Simd::vectorize(v4, With::<_, 1, 6, 4, true>(work)),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512(v4) | Isa::Amx(v4, _), false) => {
                Simd::vectorize(v4, With::<_, 1, 6, 4, false>(work))
            }
        }
    }
}

//! Which registers the lanes are.

use std::sync::OnceLock;

use pulp::{Simd, WithSimd};

/// An instruction set that the encoders are compiled for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kernels {
    /// One lane.
    Scalar,
    /// Eight.
    #[cfg(target_arch = "x86_64")]
    Avx2(pulp::x86::V3),
    /// Sixteen.
    #[cfg(target_arch = "x86_64")]
    Avx512(pulp::x86::V4),
}

impl Kernels {
    /// Every instruction set that this processor can run, slowest first.
    pub fn all() -> Vec<Kernels> {
        let mut all = vec![Kernels::Scalar];
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(pulp::x86::V3::try_new().map(Kernels::Avx2));
            all.extend(pulp::x86::V4::try_new().map(Kernels::Avx512));
        }
        all
    }

    /// The fastest, or the one that `ETALON_KERNELS` names if this processor can run it.
    pub fn detect() -> Kernels {
        static DETECTED: OnceLock<Kernels> = OnceLock::new();
        *DETECTED.get_or_init(|| {
            let all = Kernels::all();
            let fastest = all[all.len() - 1];
            let named = std::env::var("ETALON_KERNELS").ok();
            named.and_then(|name| all.into_iter().find(|k| k.name() == name)).unwrap_or(fastest)
        })
    }

    /// As `ETALON_KERNELS` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Kernels::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Kernels::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kernels::Avx512(_) => "avx512",
        }
    }

    /// Runs `work` as compiled for this instruction set.
    pub fn dispatch<W: WithSimd>(self, work: W) -> W::Output {
        match self {
            Kernels::Scalar => pulp::Scalar.vectorize(work),
            #[cfg(target_arch = "x86_64")]
            Kernels::Avx2(v3) => Simd::vectorize(v3, work),
            #[cfg(target_arch = "x86_64")]
            Kernels::Avx512(v4) => Simd::vectorize(v4, work),
        }
    }
}

//! AMX on Linux.
#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::{__cpuid_count, __get_cpuid_max};
use std::marker::PhantomData;
use std::sync::OnceLock;

use crate::{LEFT, LINE, MOST_STEPS, ORDERS, RIGHT, Sums, Tile};

/// Leave to use tiles: the processor has them and the system lets this process.
#[derive(Clone, Copy, Debug)]
pub struct Amx(());

impl Amx {
    /// Asks the processor and the system, once.
    pub fn detect() -> Option<Amx> {
        /// AMX-TILE and AMX-INT8 in EDX of leaf 7.
        const TILES: u32 = 1 << 24 | 1 << 25;
        static HAS: OnceLock<bool> = OnceLock::new();
        let ask = || __get_cpuid_max(0).0 >= 7 && __cpuid_count(7, 0).edx & TILES == TILES && permitted();
        HAS.get_or_init(ask).then_some(Amx(()))
    }

    /// Configures this thread's eight tiles as sixteen lines of 64 bytes, all zero.
    pub fn configure(self) -> Configured {
        // SAFETY: an `Amx` is only made where the process may use tiles; the instruction reads 64 bytes.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &CONFIGURATION, options(nostack, readonly, preserves_flags));
        }
        Configured(PhantomData)
    }
}

/// This thread's tiles, configured until this is dropped. A thread has one such at a time.
#[derive(Debug)]
pub struct Configured(PhantomData<*const ()>);

impl Configured {
    /// Sums of products by order: to `sums[i + j − LOWEST]` of row r by column c goes digit i of `w`'s row r times digit j of
    /// `x`'s column c, over all steps of 64. After each step, which takes the tiles hundreds of cycles and the rest of the
    /// processor a few, it does something else `meanwhile`, in which tiles are not to be used.
    ///
    /// # Panics
    /// Unless `w` and `x` have equally many steps, at most [`MOST_STEPS`].
    #[inline(always)]
    pub fn multiply(
        &mut self,
        w: &[[Tile; LEFT]],
        x: &[[Tile; RIGHT]],
        sums: &mut [Sums; ORDERS],
        mut meanwhile: impl FnMut(),
    ) {
        assert!(w.len() == x.len() && w.len() <= MOST_STEPS);
        // SAFETY: the tiles are configured.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "tilezero tmm4",
                "tilezero tmm5",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _,
                options(nomem, nostack, preserves_flags),
            );
        }
        for (w, x) in w.iter().zip(x) {
            // SAFETY: the tiles are configured as sixteen lines of 64 bytes, 64 apart, so that a load reads a `Tile`: three of
            // `w`, five of `x`. Nothing but these instructions touches a tile's register.
            unsafe {
                asm!(
                    "tileloadd tmm6, [{x} + {line}*1 + 4096]",
                    "tileloadd tmm7, [{w} + {line}*1]",
                    "tdpbssd tmm3, tmm7, tmm6", // 0 + 4
                    "tileloadd tmm7, [{w} + {line}*1 + 1024]",
                    "tdpbssd tmm4, tmm7, tmm6", // 1 + 4
                    "tileloadd tmm7, [{w} + {line}*1 + 2048]",
                    "tdpbssd tmm5, tmm7, tmm6", // 2 + 4
                    "tileloadd tmm6, [{x} + {line}*1 + 3072]",
                    "tdpbssd tmm4, tmm7, tmm6", // 2 + 3
                    "tileloadd tmm7, [{w} + {line}*1 + 1024]",
                    "tdpbssd tmm3, tmm7, tmm6", // 1 + 3
                    "tileloadd tmm7, [{w} + {line}*1]",
                    "tdpbssd tmm2, tmm7, tmm6", // 0 + 3
                    "tileloadd tmm6, [{x} + {line}*1 + 2048]",
                    "tdpbssd tmm1, tmm7, tmm6", // 0 + 2
                    "tileloadd tmm7, [{w} + {line}*1 + 1024]",
                    "tdpbssd tmm2, tmm7, tmm6", // 1 + 2
                    "tileloadd tmm7, [{w} + {line}*1 + 2048]",
                    "tdpbssd tmm3, tmm7, tmm6", // 2 + 2
                    "tileloadd tmm6, [{x} + {line}*1 + 1024]",
                    "tdpbssd tmm2, tmm7, tmm6", // 2 + 1
                    "tileloadd tmm7, [{w} + {line}*1 + 1024]",
                    "tdpbssd tmm1, tmm7, tmm6", // 1 + 1
                    "tileloadd tmm7, [{w} + {line}*1]",
                    "tdpbssd tmm0, tmm7, tmm6", // 0 + 1
                    "tileloadd tmm6, [{x} + {line}*1]",
                    "tileloadd tmm7, [{w} + {line}*1 + 1024]",
                    "tdpbssd tmm0, tmm7, tmm6", // 1 + 0
                    "tileloadd tmm7, [{w} + {line}*1 + 2048]",
                    "tdpbssd tmm1, tmm7, tmm6", // 2 + 0
                    w = in(reg) w.as_ptr(),
                    x = in(reg) x.as_ptr(),
                    line = in(reg) LINE,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack, readonly, preserves_flags),
                );
            }
            meanwhile();
        }
        // SAFETY: as above; a store writes a `Sums`, of which there are six.
        unsafe {
            asm!(
                "tilestored [{sums} + {line}*1], tmm0",
                "tilestored [{sums} + {line}*1 + 1024], tmm1",
                "tilestored [{sums} + {line}*1 + 2048], tmm2",
                "tilestored [{sums} + {line}*1 + 3072], tmm3",
                "tilestored [{sums} + {line}*1 + 4096], tmm4",
                "tilestored [{sums} + {line}*1 + 5120], tmm5",
                sums = in(reg) sums.as_mut_ptr(),
                line = in(reg) LINE,
                options(nostack, preserves_flags),
            );
        }
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // SAFETY: the process may use tiles, or there would be no `Configured`; nothing uses them hereafter.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) }
    }
}

/// Asks the system for the tiles' state, which a process has not unless it asks.
fn permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers and changes only what this process may use.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

/// How the eight tiles are shaped.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    line_bytes: [u16; 16],
    lines: [u8; 16],
}

const CONFIGURATION: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    line_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    lines: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{LINES, LOWEST};

    /// Bytes of all values, the least and the greatest often.
    fn bytes(seed: u64) -> impl FnMut() -> i8 {
        let mut state = seed;
        move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            match state >> 61 {
                0 => i8::MIN,
                1 => i8::MAX,
                _ => (state >> 40) as i8,
            }
        }
    }

    fn tile(next: &mut impl FnMut() -> i8) -> Tile {
        let mut tile = Tile::ZERO;
        tile.0.as_flattened_mut().iter_mut().for_each(|byte| *byte = next());
        tile
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// Against the definition, digit by digit.
        #[test]
        fn sums_are_those_of_the_definition(steps in 0usize..9, seed: u64) {
            let Some(amx) = Amx::detect() else { return Ok(()) };
            let mut next = bytes(seed);
            let w: Vec<[Tile; LEFT]> = (0..steps).map(|_| [(); LEFT].map(|()| tile(&mut next))).collect();
            let x: Vec<[Tile; RIGHT]> = (0..steps).map(|_| [(); RIGHT].map(|()| tile(&mut next))).collect();
            let mut sums = [Sums([[7; LINES]; LINES]); ORDERS];
            let mut steps_seen = 0;
            amx.configure().multiply(&w, &x, &mut sums, || steps_seen += 1);
            prop_assert_eq!(steps_seen, steps);
            let mut expected = [Sums::ZERO; ORDERS];
            for (w, x) in w.iter().zip(&x) {
                for (i, w) in w.iter().enumerate() {
                    for (j, x) in x.iter().enumerate().filter(|(j, _)| i + j >= LOWEST) {
                        for (r, w) in w.0.iter().enumerate() {
                            for c in 0..LINES {
                                let products = (0..LINE).map(|k| {
                                    i32::from(w[k]) * i32::from(x.0[k / 4][4 * c + k % 4])
                                });
                                expected[i + j - LOWEST].0[r][c] += products.sum::<i32>();
                            }
                        }
                    }
                }
            }
            prop_assert_eq!(sums, expected);
        }
    }

    /// The largest products there are, as many as are allowed.
    #[test]
    fn no_sum_overflows() {
        let Some(amx) = Amx::detect() else { return };
        let lowest = Tile([[i8::MIN; LINE]; LINES]);
        let mut sums = [Sums::ZERO; ORDERS];
        let (w, x) = (vec![[lowest; LEFT]; MOST_STEPS], vec![[lowest; RIGHT]; MOST_STEPS]);
        amx.configure().multiply(&w, &x, &mut sums, || {});
        let one = (MOST_STEPS * LINE * (1 << 14)) as i32;
        for (sums, products) in sums.iter().zip([2, 3, 3, 3, 2, 1]) {
            assert_eq!(sums.0, [[one * products; LINES]; LINES]);
        }
    }
}

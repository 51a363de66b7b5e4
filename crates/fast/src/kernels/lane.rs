//! Sixteen numbers, and the arithmetic that every instruction set does on them in its own registers.

/// Numbers in a lane group: the width of every sum, whatever the registers.
pub(crate) const LANES: usize = 16;

/// Sixteen successive inputs or partial sums, aligned so that no load crosses a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Lane(pub [f32; LANES]);

impl Lane {
    pub(crate) const ZERO: Lane = Lane([0.0; LANES]);
}

/// The numbers of lane groups, in order.
pub(crate) fn flat(lanes: &[Lane]) -> &[f32] {
    // SAFETY: a Lane is sixteen f32 without padding, aligned more strictly than they are.
    unsafe { std::slice::from_raw_parts(lanes.as_ptr().cast(), lanes.len() * LANES) }
}

/// The numbers of lane groups, in order.
pub(crate) fn flat_mut(lanes: &mut [Lane]) -> &mut [f32] {
    // SAFETY: as in `flat`; any f32 are a valid Lane.
    unsafe { std::slice::from_raw_parts_mut(lanes.as_mut_ptr().cast(), lanes.len() * LANES) }
}

/// Sixteen numbers in registers. An instruction set's implementation may only be used where it is there.
pub(crate) trait Lanes: Copy {
    fn load(from: &[f32; LANES]) -> Self;
    /// Of sixteen numbers as a file holds them.
    fn load_f32(from: &[u8; 4 * LANES]) -> Self;
    fn load_f16(from: &[u8; 2 * LANES]) -> Self;
    fn load_bf16(from: &[u8; 2 * LANES]) -> Self;
    fn store(self, to: &mut [f32; LANES]);
    fn splat(x: f32) -> Self;
    fn times(self, other: Self) -> Self;
    /// `self + a·b`, rounded once.
    fn add_product(self, a: Self, b: Self) -> Self;
    /// The fixed tree: halves, halves of those, and so on.
    fn sum(self) -> f32;
    /// [`Lanes::sum`] of each.
    #[inline(always)]
    fn sums(of: [Self; 4]) -> [f32; 4] {
        [of[0].sum(), of[1].sum(), of[2].sum(), of[3].sum()]
    }
}

/// The definition.
#[derive(Clone, Copy)]
pub(crate) struct Plain(pub [f32; LANES]);

impl Lanes for Plain {
    #[inline(always)]
    fn load(from: &[f32; LANES]) -> Plain {
        Plain(*from)
    }

    #[inline(always)]
    fn load_f32(from: &[u8; 4 * LANES]) -> Plain {
        let mut lanes = [0.0; LANES];
        for (lane, bytes) in lanes.iter_mut().zip(from.as_chunks().0) {
            *lane = f32::from_le_bytes(*bytes);
        }
        Plain(lanes)
    }

    #[inline(always)]
    fn load_f16(from: &[u8; 2 * LANES]) -> Plain {
        let mut lanes = [0.0; LANES];
        for (lane, bytes) in lanes.iter_mut().zip(from.as_chunks().0) {
            *lane = half::f16::from_le_bytes(*bytes).to_f32();
        }
        Plain(lanes)
    }

    #[inline(always)]
    fn load_bf16(from: &[u8; 2 * LANES]) -> Plain {
        let mut lanes = [0.0; LANES];
        for (lane, bytes) in lanes.iter_mut().zip(from.as_chunks().0) {
            *lane = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
        }
        Plain(lanes)
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        *to = self.0;
    }

    #[inline(always)]
    fn splat(x: f32) -> Plain {
        Plain([x; LANES])
    }

    #[inline(always)]
    fn times(mut self, other: Plain) -> Plain {
        for l in 0..LANES {
            self.0[l] *= other.0[l];
        }
        self
    }

    #[inline(always)]
    fn add_product(mut self, a: Plain, b: Plain) -> Plain {
        for l in 0..LANES {
            self.0[l] = a.0[l].mul_add(b.0[l], self.0[l]);
        }
        self
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        let mut lanes = self.0;
        for width in [8, 4, 2, 1] {
            for l in 0..width {
                lanes[l] += lanes[l + width];
            }
        }
        lanes[0]
    }
}

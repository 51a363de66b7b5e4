//! A register of f32, with the operators that arithmetic is written in.

use std::ops::{Add, Div, Mul, Neg, Sub};

use pulp::Simd;

/// One f32 a lane.
#[derive(Clone, Copy)]
pub(super) struct Lanes<S: Simd> {
    simd: S,
    lanes: S::f32s,
}

/// One truth a lane.
#[derive(Clone, Copy)]
pub(super) struct Mask<S: Simd> {
    simd: S,
    lanes: S::m32s,
}

/// 1.5·2²³: added to a number of up to 2²² it leaves the nearest integer in the low bits.
const MAGIC: f32 = 12_582_912.0;
/// The bits of 2²³; integers below that are or-ed onto it.
const EXPONENT: u32 = 0x4b00_0000;
/// What the low bits hold for the integer 0.
const ORIGIN: i32 = 0x0040_0000;

impl<S: Simd> Lanes<S> {
    #[inline(always)]
    pub fn new(simd: S, lanes: S::f32s) -> Self {
        Lanes { simd, lanes }
    }

    /// The same number in each lane.
    #[inline(always)]
    pub fn splat(simd: S, x: f32) -> Self {
        Lanes { simd, lanes: simd.splat_f32s(x) }
    }

    /// The same number in each lane, beside this one.
    #[inline(always)]
    pub fn same(self, x: f32) -> Self {
        Lanes::splat(self.simd, x)
    }

    #[inline(always)]
    pub fn lanes(self) -> S::f32s {
        self.lanes
    }

    /// Writes the lanes to the front of `out`.
    #[inline(always)]
    pub fn store(self, out: &mut [f32]) {
        if let Some(first) = S::as_mut_simd_f32s(out).0.first_mut() {
            *first = self.lanes;
        }
    }

    #[inline(always)]
    pub fn abs(self) -> Self {
        Lanes { lanes: self.simd.abs_f32s(self.lanes), ..self }
    }

    #[inline(always)]
    pub fn sqrt(self) -> Self {
        Lanes { lanes: self.simd.sqrt_f32s(self.lanes), ..self }
    }

    #[inline(always)]
    pub fn less(self, other: Self) -> Mask<S> {
        Mask { simd: self.simd, lanes: self.simd.less_than_f32s(self.lanes, other.lanes) }
    }

    #[inline(always)]
    pub fn less_or_equal(self, other: Self) -> Mask<S> {
        Mask { simd: self.simd, lanes: self.simd.less_than_or_equal_f32s(self.lanes, other.lanes) }
    }

    #[inline(always)]
    pub fn equal(self, other: Self) -> Mask<S> {
        Mask { simd: self.simd, lanes: self.simd.equal_f32s(self.lanes, other.lanes) }
    }

    /// Which lanes lie within ±`limit`; NaN does not.
    #[inline(always)]
    pub fn within(self, limit: f32) -> Mask<S> {
        self.abs().less_or_equal(self.same(limit))
    }

    /// What `arithmetic::nearest` makes of each lane, cut to `low..=high`: whatever the lanes hold.
    #[inline(always)]
    pub fn nearest(self, low: i32, high: i32) -> Self {
        let simd = self.simd;
        let bits = self.nearest_bits();
        let bits = simd.min_u32s(bits, simd.splat_u32s((ORIGIN + high) as u32));
        let bits = simd.max_u32s(bits, simd.splat_u32s((ORIGIN + low) as u32));
        self.integer(bits) - self.same(MAGIC)
    }

    /// The same for lanes known to lie within ±2²².
    #[inline(always)]
    pub fn nearest_tame(self, low: i32, high: i32) -> Self {
        let simd = self.simd;
        let sum = (self + self.same(MAGIC)).lanes;
        let sum = simd.min_f32s(sum, simd.splat_f32s(MAGIC + high as f32));
        let sum = simd.max_f32s(sum, simd.splat_f32s(MAGIC + low as f32));
        Lanes { simd, lanes: sum } - self.same(MAGIC)
    }

    /// The same where no lane rounds to less than the least.
    #[inline(always)]
    pub fn nearest_tame_up_to(self, high: i32) -> Self {
        let simd = self.simd;
        let sum = simd.min_f32s((self + self.same(MAGIC)).lanes, simd.splat_f32s(MAGIC + high as f32));
        Lanes { simd, lanes: sum } - self.same(MAGIC)
    }

    /// The largest integer that is not above, for lanes known to lie within ±2²².
    #[inline(always)]
    pub fn floor_tame(self) -> Self {
        let near = self + self.same(MAGIC) - self.same(MAGIC);
        self.less(near).select(near - self.same(1.0), near)
    }

    /// The nearest integer, at most `high`, and what is left of that in a u8.
    #[inline(always)]
    pub fn nearest_and_byte(self, high: i32) -> (Self, Self) {
        let simd = self.simd;
        let bits = simd.min_u32s(self.nearest_bits(), simd.splat_u32s((ORIGIN + high) as u32));
        let byte = simd.and_u32s(bits, simd.splat_u32s(0xff));
        (self.integer(bits) - self.same(MAGIC), self.integer(byte) - self.same(f32::from_bits(EXPONENT)))
    }

    /// The low bits of the sum with the magic number, from 0 to 2²³, [`ORIGIN`] for zero.
    #[inline(always)]
    fn nearest_bits(self) -> S::u32s {
        let simd = self.simd;
        let bits = simd.transmute_u32s_f32s((self + self.same(MAGIC)).lanes);
        simd.and_u32s(bits, simd.splat_u32s(0x007f_ffff))
    }

    /// The integer that the bits of `mask` hold from bit `shift` of each lane on.
    #[inline(always)]
    pub fn digit(self, packed: S::u32s, shift: usize, mask: u32) -> Self {
        let simd = self.simd;
        let bits = simd.wrapping_dyn_shr_u32s(packed, simd.splat_u32s(shift as u32));
        self.integer(simd.and_u32s(bits, simd.splat_u32s(mask))) - self.same(f32::from_bits(EXPONENT))
    }

    /// 2²³ plus an integer below that.
    #[inline(always)]
    fn integer(self, bits: S::u32s) -> Self {
        let simd = self.simd;
        let lanes = simd.transmute_f32s_u32s(simd.or_u32s(bits, simd.splat_u32s(EXPONENT)));
        Lanes { simd, lanes }
    }
}

/// Integers within ±2²² as bytes: what `as i32 as u8` makes of them, which saturates and is done one by one.
#[inline(always)]
pub(super) fn to_bytes<const LEN: usize>(integers: &[f32; LEN]) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    for (byte, integer) in bytes.iter_mut().zip(integers) {
        *byte = (integer + MAGIC).to_bits() as u8;
    }
    bytes
}

impl<S: Simd> Mask<S> {
    /// Lanes of `yes` where it holds, of `no` elsewhere.
    #[inline(always)]
    pub fn select(self, yes: Lanes<S>, no: Lanes<S>) -> Lanes<S> {
        Lanes { simd: self.simd, lanes: self.simd.select_f32s(self.lanes, yes.lanes, no.lanes) }
    }

    /// The same for lanes of bits.
    #[inline(always)]
    pub fn select_bits(self, yes: S::u32s, no: S::u32s) -> S::u32s {
        self.simd.select_u32s(self.lanes, yes, no)
    }

    /// Whether it holds in every lane.
    #[inline(always)]
    pub fn all(self) -> bool {
        self.simd.first_true_m32s(self.not().lanes) == S::F32_LANES
    }

    #[inline(always)]
    pub fn or(self, other: Self) -> Self {
        Mask { lanes: self.simd.or_m32s(self.lanes, other.lanes), ..self }
    }

    #[inline(always)]
    pub fn and(self, other: Self) -> Self {
        Mask { lanes: self.simd.and_m32s(self.lanes, other.lanes), ..self }
    }

    #[inline(always)]
    pub fn not(self) -> Self {
        Mask { lanes: self.simd.not_m32s(self.lanes), ..self }
    }
}

impl<S: Simd> Add for Lanes<S> {
    type Output = Self;

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Lanes { lanes: self.simd.add_f32s(self.lanes, other.lanes), ..self }
    }
}

impl<S: Simd> Sub for Lanes<S> {
    type Output = Self;

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Lanes { lanes: self.simd.sub_f32s(self.lanes, other.lanes), ..self }
    }
}

impl<S: Simd> Mul for Lanes<S> {
    type Output = Self;

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Lanes { lanes: self.simd.mul_f32s(self.lanes, other.lanes), ..self }
    }
}

impl<S: Simd> Div for Lanes<S> {
    type Output = Self;

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        Lanes { lanes: self.simd.div_f32s(self.lanes, other.lanes), ..self }
    }
}

impl<S: Simd> Neg for Lanes<S> {
    type Output = Self;

    #[inline(always)]
    fn neg(self) -> Self {
        Lanes { lanes: self.simd.neg_f32s(self.lanes), ..self }
    }
}

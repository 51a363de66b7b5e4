//! The points of a grid in registers: those around each combination of codes, and which of them errs least.
//!
//! This search is nearly all that the scalar encoders of IQ2 and IQ3 do. A coordinate's error depends on its code alone, so that
//! a table holds them all, and a point's error is the sum, in order, of one entry a coordinate. Registers take a point a lane.

use crate::lattice::{Lattice, Place};

/// Points that a register of the widest kind holds: the codes of each, a nibble a coordinate, the first one the lowest, and
/// what a nibble holds is the place in the part of the table that the coordinate's entries lie in.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Points(pub [[u32; 8]; 2]);

/// Entries of a table of errors: for each of `DIM` coordinates as many as a code may have values.
pub(super) const ENTRIES: usize = 32;

/// How the entries of a table are laid out.
pub(super) struct Table<const DIM: usize>;

impl<const DIM: usize> Table<DIM> {
    /// Entries of a coordinate; codes are below that.
    pub const SLOTS: usize = ENTRIES / DIM;
    /// Which coordinate an entry is of.
    pub const COORDINATE: [u32; ENTRIES] = {
        let mut of = [0; ENTRIES];
        let mut i = 0;
        while i < ENTRIES {
            of[i] = (i / Self::SLOTS) as u32;
            i += 1;
        }
        of
    };
    /// What codes stand for on the grids of IQ2 and IQ3: odd numbers.
    pub const ODD: [f32; ENTRIES] = {
        let mut odd = [0.0; ENTRIES];
        let mut i = 0;
        while i < ENTRIES {
            odd[i] = (2 * (i % Self::SLOTS) + 1) as f32;
            i += 1;
        }
        odd
    };

    /// The codes of a point as registers hold them.
    pub fn pack(codes: &[u8; DIM]) -> u32 {
        let nibble = |i: usize| u32::from(codes[i]) + (i * Self::SLOTS % 16) as u32;
        (0..DIM).fold(0, |packed, i| packed | nibble(i) << (4 * i))
    }

    /// The inverse of [`Table::pack`].
    #[inline(always)]
    pub fn unpack(packed: u32) -> [u8; DIM] {
        std::array::from_fn(|i| (packed >> (4 * i)) as u8 & (Self::SLOTS as u8 - 1))
    }
}

/// Where a combination of codes lies.
#[derive(Clone, Copy)]
struct Entry {
    /// The first of its neighbours' registers, or the point itself.
    at: u32,
    /// How many registers of neighbours there are; none where it is a point.
    registers: u32,
}

/// A lattice for registers.
pub(super) struct Neighbours<const DIM: usize> {
    pub lattice: &'static Lattice<DIM>,
    /// By the lattice's numbers.
    entries: Vec<Entry>,
    points: Vec<Points>,
}

impl<const DIM: usize> Neighbours<DIM> {
    pub fn of(lattice: &'static Lattice<DIM>) -> Self {
        let mut points = Vec::new();
        let entries = lattice.places().iter().map(|place| match place {
            Place::On(point) => Entry { at: Table::pack(lattice.codes(*point)), registers: 0 },
            Place::Off(neighbours) => {
                let at = points.len();
                let packed: Vec<u32> =
                    neighbours.iter().map(|&point| Table::pack(lattice.codes(point))).collect();
                points.extend(registers(&packed));
                Entry { at: at as u32, registers: (points.len() - at) as u32 }
            }
        });
        let entries = entries.collect();
        Neighbours { lattice, entries, points }
    }

    /// The point for values under a scale, as `Lattice::snap` finds it, whose rounded codes have this number; and whether
    /// those were on the grid.
    #[inline(always)]
    pub fn snap(&self, number: usize, finder: impl Finder, errors: &Errors<'_, DIM>) -> (u32, bool) {
        let Entry { at, registers } = self.entries[number];
        if registers == 0 {
            return (at, true);
        }
        (finder.least(errors, &self.points[at as usize..][..registers as usize]), false)
    }

    /// The number of a point.
    pub fn point(&self, packed: u32) -> u16 {
        match self.lattice.place(&Table::<DIM>::unpack(packed)) {
            Place::On(point) => *point,
            Place::Off(_) => unreachable!("only points are packed"),
        }
    }
}

/// Neighbours by sixteens. The last ones are filled up with such as came before, in the same lane if there is one: they are
/// never nearer.
fn registers(packed: &[u32]) -> impl Iterator<Item = Points> + '_ {
    let at = |i: usize| match i {
        _ if i < packed.len() => packed[i],
        16.. => packed[i - 16],
        8.. if packed.len() >= 8 => packed[i - 8],
        _ => packed[0],
    };
    let eight = move |first: usize| std::array::from_fn(|lane| at(first + lane));
    (0..packed.len().div_ceil(16)).map(move |r| Points([eight(16 * r), eight(16 * r + 8)]))
}

/// What a point's error is made of: for coordinate i w·(scale·level − x)².
pub(super) struct Errors<'a, const DIM: usize> {
    pub x: &'a [f32; DIM],
    pub weights: &'a [f32; DIM],
    pub scale: f32,
    /// What the codes of each coordinate stand for.
    pub levels: &'a [f32; ENTRIES],
}

/// Looks for the point with the least error.
///
/// Errors are at least zero, so that their bits are ordered as they are, NaN last.
pub(super) trait Finder: Copy + Sync {
    /// The first one that has the least error, or the very first one if none has less than f32's largest.
    fn least<const DIM: usize>(self, errors: &Errors<'_, DIM>, points: &[Points]) -> u32;
}

/// Errors of f32's largest and up do not count.
const NO_ERROR: u32 = f32::MAX.to_bits();

impl Finder for pulp::Scalar {
    #[inline(always)]
    fn least<const DIM: usize>(self, errors: &Errors<'_, DIM>, points: &[Points]) -> u32 {
        let mut table = [0.0; ENTRIES];
        for (i, entry) in table.iter_mut().enumerate() {
            let coordinate = i / Table::<DIM>::SLOTS;
            let error = errors.scale * errors.levels[i] - errors.x[coordinate];
            *entry = errors.weights[coordinate] * error * error;
        }
        let mut best = (NO_ERROR, points[0].0[0][0]);
        for &packed in points.iter().flat_map(|points| points.0.as_flattened()) {
            let entry =
                |i: usize| table[i * Table::<DIM>::SLOTS / 16 * 16 + (packed >> (4 * i) & 15) as usize];
            let error = (1..DIM).fold(entry(0), |sum, i| sum + entry(i)).to_bits();
            if error < best.0 {
                best = (error, packed);
            }
        }
        best.1
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{__m256, __m256i, __m512, __m512i};

    use pulp::cast;
    use pulp::x86::{V3, V4};

    use super::{ENTRIES, Errors, Finder, NO_ERROR, Points, Table};

    /// Part `part` of a table, `LANES` entries.
    #[inline(always)]
    fn part<T: Copy, const LANES: usize>(table: &[T; ENTRIES], part: usize) -> [T; LANES] {
        table.as_chunks().0[part]
    }

    /// The coordinates, and zeros.
    #[inline(always)]
    fn widen<const DIM: usize, const LANES: usize>(x: &[f32; DIM]) -> [f32; LANES] {
        let mut wide = [0.0; LANES];
        wide[..DIM].copy_from_slice(x);
        wide
    }

    #[inline(always)]
    fn table_512<const DIM: usize>(simd: V4, errors: &Errors<'_, DIM>) -> [__m512; 2] {
        let f = simd.avx512f;
        let (x, w) = (cast(widen::<DIM, 16>(errors.x)), cast(widen::<DIM, 16>(errors.weights)));
        let scale = f._mm512_set1_ps(errors.scale);
        std::array::from_fn(
            #[inline(always)]
            |half| {
                let of: __m512i = cast(part::<u32, 16>(&Table::<DIM>::COORDINATE, half));
                let levels: __m512 = cast(part::<f32, 16>(errors.levels, half));
                let error = f._mm512_sub_ps(f._mm512_mul_ps(scale, levels), f._mm512_permutexvar_ps(of, x));
                f._mm512_mul_ps(f._mm512_mul_ps(f._mm512_permutexvar_ps(of, w), error), error)
            },
        )
    }

    /// The bits of the errors of sixteen points.
    #[inline(always)]
    fn errors_512<const DIM: usize>(simd: V4, table: &[__m512; 2], points: __m512i) -> __m512i {
        let f = simd.avx512f;
        let mut sum = f._mm512_permutexvar_ps(points, table[0]);
        for i in 1..DIM {
            let codes = f._mm512_srlv_epi32(points, f._mm512_set1_epi32(4 * i as i32));
            let entry = f._mm512_permutexvar_ps(codes, table[i * Table::<DIM>::SLOTS / 16]);
            sum = f._mm512_add_ps(sum, entry);
        }
        f._mm512_castps_si512(sum)
    }

    impl Finder for V4 {
        #[inline(always)]
        fn least<const DIM: usize>(self, errors: &Errors<'_, DIM>, points: &[Points]) -> u32 {
            let f = self.avx512f;
            let table = table_512(self, errors);
            let mut nearest: __m512i = cast(points[0].0);
            let mut best = errors_512::<DIM>(self, &table, nearest);
            for points in &points[1..] {
                let points = cast(points.0);
                let these = errors_512::<DIM>(self, &table, points);
                let better = f._mm512_cmplt_epu32_mask(these, best);
                nearest = f._mm512_mask_mov_epi32(nearest, better, points);
                best = f._mm512_min_epu32(these, best);
            }
            let least = f._mm512_reduce_min_epu32(best);
            if least >= NO_ERROR {
                return points[0].0[0][0];
            }
            let least = f._mm512_set1_epi32(least.cast_signed());
            let lanes = f._mm512_cmpeq_epu32_mask(best, least);
            if points.len() > 1 && lanes & lanes.wrapping_sub(1) != 0 {
                // Several are as near: the first one of all, which need not be the one in the first lane.
                for points in points {
                    let these = errors_512::<DIM>(self, &table, cast(points.0));
                    let lanes = f._mm512_cmpeq_epu32_mask(these, least);
                    if lanes != 0 {
                        return points.0.as_flattened()[lanes.trailing_zeros() as usize];
                    }
                }
            }
            f._mm512_cvtsi512_si32(f._mm512_maskz_compress_epi32(lanes, nearest)).cast_unsigned()
        }
    }

    #[inline(always)]
    fn table_256<const DIM: usize>(simd: V3, errors: &Errors<'_, DIM>) -> [__m256; 4] {
        let (avx, avx2) = (simd.avx, simd.avx2);
        let (x, w) = (cast(widen::<DIM, 8>(errors.x)), cast(widen::<DIM, 8>(errors.weights)));
        let scale = avx._mm256_set1_ps(errors.scale);
        std::array::from_fn(
            #[inline(always)]
            |quarter| {
                let of: __m256i = cast(part::<u32, 8>(&Table::<DIM>::COORDINATE, quarter));
                let levels: __m256 = cast(part::<f32, 8>(errors.levels, quarter));
                let x = avx2._mm256_permutevar8x32_ps(x, of);
                let error = avx._mm256_sub_ps(avx._mm256_mul_ps(scale, levels), x);
                let w = avx2._mm256_permutevar8x32_ps(w, of);
                avx._mm256_mul_ps(avx._mm256_mul_ps(w, error), error)
            },
        )
    }

    /// The bits of the errors of eight points.
    #[inline(always)]
    fn errors_256<const DIM: usize>(simd: V3, table: &[__m256; 4], points: __m256i) -> __m256i {
        let (avx, avx2) = (simd.avx, simd.avx2);
        let mut sum = avx2._mm256_permutevar8x32_ps(table[0], points);
        for i in 1..DIM {
            let codes = avx2._mm256_srlv_epi32(points, avx._mm256_set1_epi32(4 * i as i32));
            let entry = avx2._mm256_permutevar8x32_ps(table[i * Table::<DIM>::SLOTS / 8], codes);
            sum = avx._mm256_add_ps(sum, entry);
        }
        avx._mm256_castps_si256(sum)
    }

    /// A bit for each lane where both are the same.
    #[inline(always)]
    fn equal_256(simd: V3, a: __m256i, b: __m256i) -> u32 {
        let equal = simd.avx2._mm256_cmpeq_epi32(a, b);
        simd.avx._mm256_movemask_ps(simd.avx._mm256_castsi256_ps(equal)).cast_unsigned()
    }

    impl Finder for V3 {
        #[inline(always)]
        fn least<const DIM: usize>(self, errors: &Errors<'_, DIM>, points: &[Points]) -> u32 {
            let (avx, avx2) = (self.avx, self.avx2);
            let table = table_256(self, errors);
            let mut nearest = avx._mm256_set1_epi32(points[0].0[0][0].cast_signed());
            let mut best = avx._mm256_set1_epi32(NO_ERROR.cast_signed());
            for half in points.iter().flat_map(|points| &points.0) {
                let half = cast(*half);
                let least = avx2._mm256_min_epu32(errors_256::<DIM>(self, &table, half), best);
                nearest = avx2._mm256_blendv_epi8(half, nearest, avx2._mm256_cmpeq_epi32(least, best));
                best = least;
            }
            let lanes: [u32; 8] = cast(best);
            let least = lanes.iter().fold(u32::MAX, |least, &error| least.min(error));
            if least >= NO_ERROR {
                return points[0].0[0][0];
            }
            let least = avx._mm256_set1_epi32(least.cast_signed());
            let lanes = equal_256(self, best, least);
            if lanes & lanes.wrapping_sub(1) != 0 {
                for half in points.iter().flat_map(|points| &points.0) {
                    let lanes = equal_256(self, errors_256::<DIM>(self, &table, cast(*half)), least);
                    if lanes != 0 {
                        return half[lanes.trailing_zeros() as usize];
                    }
                }
            }
            cast::<__m256i, [u32; 8]>(nearest)[lanes.trailing_zeros() as usize]
        }
    }
}

//! Plain code for any processor: the definition.

use super::lane::Plain;
use super::*;

table!(
    "scalar",
    Plain,
    1 x 1,
    8,
    fix = fixed::fix_pairs,
    open = superblock::open_in_rows,
    scatter = superblock::scatter,
    row_q4_0 = digits::row::<digits::Q4_0, Plain>,
    row_q8_0 = digits::row::<digits::Q8_0, Plain>,
    row_q2_k = digits::row::<digits::Q2K, Plain>,
    row_q3_k = digits::row::<digits::Q3K, Plain>,
    row_q4_k = digits::row::<digits::Q4K, Plain>,
    row_q5_k = digits::row::<digits::Q5K, Plain>,
    row_q6_k = digits::row::<digits::Q6K, Plain>,
    row_iq4_nl = digits::row::<digits::Iq4Nl, Plain>,
    row_iq4_xs = digits::row::<digits::Iq4Xs, Plain>,
    row_q4_1 = digits::row::<short_blocks::Q4_1, Plain>,
    row_q5_0 = digits::row::<short_blocks::Q5_0, Plain>,
    row_q5_1 = digits::row::<short_blocks::Q5_1, Plain>,
    row_mxfp4 = digits::row::<short_blocks::Mxfp4, Plain>,
    row_nvfp4 = digits::row::<short_blocks::Nvfp4, Plain>,
    row_q1_0 = digits::row::<short_blocks::Q1_0, Plain>,
    row_q2_0 = digits::row::<short_blocks::Q2_0, Plain>,
    row_tq1_0 = digits::row::<ternary::Tq1_0, Plain>,
    row_tq2_0 = digits::row::<ternary::Tq2_0, Plain>,
    row_iq1_s = digits::row::<grids::Iq1S, Plain>,
    row_iq1_m = digits::row::<grids::Iq1M, Plain>,
    row_iq2_xxs = digits::row::<grids::Iq2Xxs, Plain>,
    row_iq2_xs = digits::row::<grids::Iq2Xs, Plain>,
    row_iq2_s = digits::row::<grids::Iq2S, Plain>,
    row_iq3_xxs = digits::row::<grids::Iq3Xxs, Plain>,
    row_iq3_s = digits::row::<grids::Iq3S, Plain>,
);

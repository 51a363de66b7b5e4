//! What stored codes and scales stand for: for kernels that multiply codes without decoding them. Whoever wants values
//! decodes.

pub use crate::fp4::{DOUBLED as E2M1_DOUBLED, half_e8m0, half_ue4m3};
pub use crate::iq1::POINTS as IQ1;
pub use crate::iq2::{S as IQ2_S, XS as IQ2_XS, XXS as IQ2_XXS};
pub use crate::iq3::{S as IQ3_S, XXS as IQ3_XXS};
pub use crate::ternary::{POWERS, digit};

//! Turns encoded blocks into f32 and back, exactly as the format defines.
//!
//! [`Encoding`] names an encoding and does the work; its [`Row`] in the one table says where it is called what and how
//! large a block is. Decoding is bit-equal to ggml 0.25.3, encoding byte-equal to it as compiled for baseline x86-64,
//! where no multiply-add is fused. There is a file for each family of encodings. The encoders are written to be read:
//! faster ones are judged by them.
#![forbid(unsafe_code)]

mod anatomy;
mod arithmetic;
mod bits;
mod blocks;
mod encoding;
mod error;
mod float16;
mod fp4;
mod fp8;
mod grid;
mod iq1;
mod iq2;
mod iq3;
mod iq4;
mod lanes;
mod lattice;
pub mod levels;
mod number;
mod q1;
mod q2_k;
mod q3_k;
mod q4;
mod q4_k;
mod q5;
mod q5_k;
mod q6_k;
mod q8;
mod search;
mod super_block;
mod table;
mod ternary;
mod whole;

pub use anatomy::{Anatomy, Group, Point};
pub use encoding::Encoding;
pub use error::{DecodeError, EncodeError, UnknownId};
pub use table::Row;
pub use whole::Whole;

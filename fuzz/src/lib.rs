//! What the targets do with their bytes: plain functions of the format crate's tests, which replay the corpus without
//! a fuzzer.

#[path = "../../crates/format/tests/format/exercise.rs"]
pub mod exercise;

#[path = "../../crates/codec/tests/corpus/exercise.rs"]
pub mod codec_exercise;

//! Any bytes cut into the parts of a split GGUF file: refused, or the same from every part.
#![no_main]

use etalon_fuzz::exercise;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| exercise::split_set(bytes));

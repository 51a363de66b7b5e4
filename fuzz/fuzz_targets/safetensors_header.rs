//! Any bytes as a safetensors file: the verdict of the `safetensors` crate, and the same tensors.
#![no_main]

use etalon_fuzz::exercise;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    exercise::safetensors_header(bytes);
});

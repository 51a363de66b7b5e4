//! Any bytes as a GGUF file: refused, or read to the end.
#![no_main]

use etalon_fuzz::exercise;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    exercise::gguf_read(bytes);
});

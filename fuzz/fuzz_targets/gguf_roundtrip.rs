//! What is read from any bytes as a GGUF file is written and read again, and is the same.
#![no_main]

use etalon_fuzz::exercise;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| exercise::gguf_roundtrip(bytes));

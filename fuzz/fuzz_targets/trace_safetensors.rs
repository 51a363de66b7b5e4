//! Any bytes as a trace in safetensors form: an error or sound values, and no more memory than they account for.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/trace/tests/corpus/read_everything.rs"]
mod read_everything;

fuzz_target!(|input: &[u8]| {
    let _ = read_everything::read_everything(input);
});

//! Any bytes decode, and what they decode to can be encoded again or is refused.
#![no_main]

use etalon_fuzz::codec_exercise;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    codec_exercise::codec_decode(bytes);
});

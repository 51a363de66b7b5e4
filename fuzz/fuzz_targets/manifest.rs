//! Any bytes as a manifest: an error, or something that writes and reads back as itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trace::Manifest;

fuzz_target!(|input: &[u8]| {
    let Ok(mut manifest) = Manifest::parse("input", input) else { return };
    // A producer may add floating-point numbers, which JSON text does not keep to the last bit.
    if let Some(producer) = &mut manifest.producer {
        producer.more.clear();
    }
    let text = serde_json::to_vec(&manifest).expect("strings, numbers and lists serialise");
    assert_eq!(Manifest::parse("again", &text).expect("what was written"), manifest);
});

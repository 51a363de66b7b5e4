//! Turns encoded blocks into f32 and back, exactly as the format defines.
#![forbid(unsafe_code)]

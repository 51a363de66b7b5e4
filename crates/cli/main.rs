//! Reference verification and conversion for Qwen3.5-family checkpoints.
fn main() {}

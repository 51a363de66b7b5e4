//! t
#![forbid(unsafe_code)]
mod bad_gguf;
mod bad_index;
mod bad_safetensors;
mod fixtures;
mod raw;

//! t
#![forbid(unsafe_code)]
mod bad_gguf;
mod bad_index;
mod bad_safetensors;
mod fixtures;
mod good_gguf;
mod good_safetensors;
mod paths;
mod raw;
mod split;
mod writers;

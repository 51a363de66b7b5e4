//! t
#![forbid(unsafe_code)]
mod bad_gguf;
mod fixtures;
mod raw;

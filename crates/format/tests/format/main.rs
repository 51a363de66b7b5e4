//! What the crate promises, held against files from other hands, bad files, and random ones.
#![forbid(unsafe_code)]

mod bad_gguf;
mod bad_index;
mod bad_safetensors;
mod corpus;
mod edit;
mod exercise;
mod fixtures;
mod good_gguf;
mod good_safetensors;
mod mutations;
mod paths;
mod random;
mod raw;
mod scale;
mod split;
mod writers;

//! Checkpoints that are made, read back; and held against those of llama.cpp's converter.
#![forbid(unsafe_code)]

mod check;
mod dialects;
mod files;
mod general;
mod llama_cpp;
mod mock;
mod quantize;
mod round_trip;

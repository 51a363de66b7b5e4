//! Tests of the whole tool, most of them through its executable.
#![forbid(unsafe_code)]

mod any_gguf;
mod bad_input;
mod bits;
mod browser;
mod cli;
mod drift;
mod etalon;
mod fast;
mod fast_bits;
mod fast_encodings;
mod faults;
mod files;
mod floors;
mod golden;
mod inspect;
mod inspect_memory;
mod mutant;
mod mutations;
mod oracles;
mod pages;
mod quantize;
mod regression;
mod run;

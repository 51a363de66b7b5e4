//! Says what a Qwen3.5 checkpoint holds and how each tensor maps to canonical form.
#![forbid(unsafe_code)]

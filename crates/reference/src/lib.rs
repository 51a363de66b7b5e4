//! Computes the forward pass exactly.
#![forbid(unsafe_code)]

//! Turns checkpoint files into named, described tensors, and back.
#![forbid(unsafe_code)]

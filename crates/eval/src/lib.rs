//! Runs models to judge them.
#![forbid(unsafe_code)]

//! Rewrites checkpoints one tensor at a time.
#![forbid(unsafe_code)]

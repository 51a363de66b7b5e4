//! Holds named activations, compares two sets and says where they first part.
#![forbid(unsafe_code)]

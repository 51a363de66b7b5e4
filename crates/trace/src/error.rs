//! What can be wrong with a trace.

/// Why a trace could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The trace holds no such point.
    #[error("the trace holds no point `{name}`; it has {available} points")]
    NoSuchPoint {
        /// The name asked for.
        name: String,
        /// How many points it does hold.
        available: usize,
    },
}

//! How long work says how far it is.

/// Hears how far a piece of work has come.
pub trait Progress: Sync {
    /// A piece of work begins. `total` is in whatever unit [`Progress::reached`] counts; 0 if it cannot be told.
    fn begin(&self, what: &str, total: u64);

    /// So much of it is done.
    fn reached(&self, done: u64);

    /// Something else is about to be shown.
    fn finished(&self) {}
}

/// Hears nothing.
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: &str, _: u64) {}

    fn reached(&self, _: u64) {}
}

//! Which points are meant: shell patterns over their names.

use globset::{Glob, GlobSet, GlobSetBuilder};

/// A set of patterns. `*` also crosses dots, so `*.mlp` names the output of every layer's MLP; `?`, `[a-z]` and
/// `{a,b}` work as in a shell.
#[derive(Clone, Debug)]
pub struct Globs(GlobSet);

/// A pattern that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("pattern `{pattern}` is not a glob: {reason}")]
pub struct GlobError {
    /// The pattern as given.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Globs {
    /// Matches what any of `patterns` matches; nothing if there are none.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Globs, GlobError> {
        let mut set = GlobSetBuilder::new();
        let fault = |pattern: &str, error: &globset::Error| GlobError {
            pattern: pattern.to_owned(),
            reason: error.kind().to_string(),
        };
        for pattern in patterns {
            set.add(Glob::new(pattern.as_ref()).map_err(|e| fault(pattern.as_ref(), &e))?);
        }
        set.build().map(Globs).map_err(|e| fault(e.glob().unwrap_or_default(), &e))
    }

    /// Whether any pattern matches `name`.
    pub fn matches(&self, name: &str) -> bool {
        self.0.is_match(name)
    }

    /// The last of the patterns that matches `name`, counted from 0 as they were given.
    pub fn last_match(&self, name: &str) -> Option<usize> {
        self.0.matches(name).into_iter().max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names_and_cross_dots() {
        let globs = Globs::new(&["*.mlp", "model.layers.[0-2]", "lm_{head,tail}"]).unwrap();
        for name in ["model.layers.7.mlp", "model.layers.2", "lm_head"] {
            assert!(globs.matches(name), "{name}");
        }
        for name in ["model.layers.7.mlp.gate", "model.layers.3", "lm_"] {
            assert!(!globs.matches(name), "{name}");
        }
        assert!(!Globs::new::<&str>(&[]).unwrap().matches("lm_head"));
    }

    #[test]
    fn the_last_match_wins() {
        let globs = Globs::new(&["*", "lm_head", "model.*"]).unwrap();
        assert_eq!(globs.last_match("lm_head"), Some(1));
        assert_eq!(globs.last_match("model.norm"), Some(2));
        assert_eq!(globs.last_match("other"), Some(0));
    }

    #[test]
    fn a_bad_pattern_is_quoted() {
        let error = Globs::new(&["ok", "a[b"]).unwrap_err();
        assert_eq!(error.pattern, "a[b");
    }
}

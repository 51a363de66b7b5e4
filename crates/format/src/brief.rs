//! Texts of files in messages.

use std::borrow::Cow;

/// Characters that are enough to know a text by.
const SHOWN: usize = 120;

/// A text of a file as messages and summaries show it: of a very long one the beginning. A file may have a gigabyte
/// where a name belongs; what is said about it must not take as much again.
pub fn brief(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(SHOWN) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}… ({} bytes)", &text[..end], text.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_long_is_cut() {
        let fits = "é".repeat(SHOWN);
        assert!(matches!(brief(&fits), Cow::Borrowed(text) if text == fits));
        assert_eq!(brief(&format!("{fits}x")), format!("{fits}… (241 bytes)"));
        assert_eq!(brief(""), "");
    }
}

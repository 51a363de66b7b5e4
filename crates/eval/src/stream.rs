//! Text that comes a token at a time: whole characters only, and nothing of a stop string.

/// Bytes on their way to being text.
#[derive(Debug, Default)]
pub struct Stream {
    /// Not yet given out: the beginning of a character.
    bytes: Vec<u8>,
    /// Not yet given out: what may be the beginning of a stop string.
    held: String,
    stops: Vec<String>,
    stopped: bool,
}

impl Stream {
    /// Text that ends before the first of `stops`.
    pub fn new(stops: Vec<String>) -> Stream {
        let stops = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        Stream { stops, ..Stream::default() }
    }

    /// Takes the next bytes and gives out what is certain. Bytes that are no UTF-8 become U+FFFD as in
    /// [`String::from_utf8_lossy`].
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.bytes.extend_from_slice(bytes);
        let mut text = String::new();
        loop {
            match std::str::from_utf8(&self.bytes) {
                Ok(all) => {
                    text += all;
                    self.bytes.clear();
                    break;
                }
                Err(error) => {
                    let (valid, rest) = self.bytes.split_at(error.valid_up_to());
                    text += &String::from_utf8_lossy(valid);
                    // An unfinished character waits for the next token.
                    let Some(bad) = error.error_len() else {
                        self.bytes = rest.to_vec();
                        break;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    self.bytes = rest[bad..].to_vec();
                }
            }
        }
        self.give(text)
    }

    /// Whether a stop string has come: what follows is not text.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Nothing more comes: gives out what was held back.
    pub fn finish(&mut self) -> String {
        if self.stopped {
            return String::new();
        }
        let rest = String::from_utf8_lossy(&std::mem::take(&mut self.bytes)).into_owned();
        let text = self.give(rest);
        if self.stopped { text } else { text + &std::mem::take(&mut self.held) }
    }

    fn give(&mut self, text: String) -> String {
        if self.stopped {
            return String::new();
        }
        let mut text = std::mem::take(&mut self.held) + &text;
        if let Some(at) = self.stops.iter().filter_map(|stop| text.find(stop.as_str())).min() {
            self.stopped = true;
            text.truncate(at);
            return text;
        }
        // From the first place on where a stop string may have begun.
        let open = |at: &usize| self.stops.iter().any(|stop| stop.starts_with(&text[*at..]));
        if let Some(at) = text.char_indices().map(|(at, _)| at).find(open) {
            self.held = text.split_off(at);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(stops: &[&str], pieces: &[&[u8]]) -> (String, bool) {
        let mut stream = Stream::new(stops.iter().map(|&stop| stop.to_owned()).collect());
        let mut text: String = pieces.iter().map(|piece| stream.push(piece)).collect();
        text += &stream.finish();
        (text, stream.stopped())
    }

    #[test]
    fn characters_come_whole() {
        let text = "a東京é🦀z";
        for size in 1..5 {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            assert_eq!(all(&[], &pieces).0, text);
        }
        let mut stream = Stream::default();
        assert_eq!(stream.push(&"é".as_bytes()[..1]), "");
        assert_eq!(stream.push(&"é".as_bytes()[1..]), "é");
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_such_in_any_pieces() {
        let bytes = b"a\xff\xe6\x9d\xf0\x9f\xa6b\xc3";
        for size in 1..bytes.len() {
            let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
            assert_eq!(all(&[], &pieces).0, String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn text_ends_before_the_first_stop_however_it_is_cut() {
        let text = "one two</s>three stop four";
        for size in 1..text.len() {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            assert_eq!(all(&["stop", "</s>"], &pieces), ("one two".into(), true), "{size}");
            assert_eq!(all(&["stop", ""], &pieces), ("one two</s>three ".into(), true), "{size}");
            assert_eq!(all(&["nope", "fours"], &pieces), (text.into(), false), "{size}");
        }
        // What looked like a stop string and was none is given out.
        let mut stream = Stream::new(vec!["aab".into()]);
        assert_eq!(
            (stream.push(b"xaa"), stream.push(b"ab"), stream.stopped()),
            ("x".into(), "a".into(), true)
        );
    }
}

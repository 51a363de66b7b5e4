//! A text that runs in a model, and the file it can rest in.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use model::Checkpoint;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::engine::{Loaded, State};
use crate::fingerprint::hexadecimal;
use crate::{Engine, Error, Progress};

/// First bytes of a saved text; the number is the version of what follows.
const MAGIC: &[u8; 14] = b"etalon text 1\n";
/// SHA-256 of all before it ends the file.
const DIGEST: usize = 32;
/// Bytes of each tensor that take part in a model's identity.
const IDENTIFYING: usize = 4096;

/// Tokens, and the state that those before the last have left behind.
///
/// The last one is not run before its successor is wanted: so a text goes on after it was saved as if it had not been.
pub struct Text<'m, 'w> {
    loaded: &'m Loaded<'w>,
    pub(crate) state: State,
    pub(crate) tokens: Vec<u32>,
}

/// What stands before the state in a file.
#[derive(Serialize, Deserialize)]
struct Header {
    engine: String,
    /// [`identity`] of the model.
    model: String,
    tokens: Vec<u32>,
    /// Tokens that the state has seen.
    position: usize,
}

impl<'m, 'w> Text<'m, 'w> {
    /// Before the first token.
    pub fn new(loaded: &'m Loaded<'w>) -> Text<'m, 'w> {
        Text { loaded, state: loaded.start(), tokens: Vec::new() }
    }

    /// Appends tokens, which are run when their successor is wanted.
    ///
    /// # Errors
    /// A token that is outside the vocabulary.
    pub fn push(&mut self, tokens: &[u32]) -> Result<(), Error> {
        let vocab_size = self.loaded.vocab_size();
        if let Some(at) = tokens.iter().position(|&token| token as usize >= vocab_size) {
            let position = self.tokens.len() + at;
            return Err(reference::Error::Token { position, token: tokens[at], vocab_size }.into());
        }
        self.tokens.extend_from_slice(tokens);
        Ok(())
    }

    /// Runs all tokens but the last.
    ///
    /// # Errors
    /// Whatever the engine refuses.
    pub fn settle(&mut self, progress: &dyn Progress) -> Result<(), Error> {
        let (seen, last) = (self.state.position(), self.tokens.len().saturating_sub(1));
        if seen < last {
            self.loaded.prefill(&self.tokens[seen..last], &mut self.state, progress)?;
        }
        Ok(())
    }

    /// All tokens so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    pub(crate) fn loaded(&self) -> &'m Loaded<'w> {
        self.loaded
    }

    /// The same text as it stands now, to go back to.
    pub fn fork(&self) -> Text<'m, 'w> {
        Text { loaded: self.loaded, state: self.state.clone(), tokens: self.tokens.clone() }
    }

    /// An empty text in the same model.
    pub fn restart(&self) -> Text<'m, 'w> {
        Text::new(self.loaded)
    }

    /// What it runs in.
    pub fn engine(&self) -> Engine {
        self.loaded.engine()
    }

    /// Writes tokens and state to a file, whole or not at all: [`Text::load`] gives back the same bits. A file that is
    /// there is replaced if it is such a file itself.
    ///
    /// # Errors
    /// The file is something else, or the system refuses.
    pub fn save(&self, path: &Path, identity: &str) -> Result<(), Error> {
        let fault = |source| Error::Write { path: path.to_owned(), source };
        if path.symlink_metadata().is_ok() && !is_saved(path) {
            return Err(Error::NotSaved { path: path.to_owned(), why: "it would be replaced".to_owned() });
        }
        let header = Header {
            engine: self.loaded.engine().name().to_owned(),
            model: identity.to_owned(),
            tokens: self.tokens.clone(),
            position: self.state.position(),
        };
        let header = serde_json::to_vec(&header).map_err(|e| fault(e.into()))?;
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(parent).map_err(fault)?;
        let mut out = Hashed { to: BufWriter::new(file.as_file_mut()), digest: Sha256::new() };
        let write = |out: &mut Hashed<&mut File>| {
            out.write_all(MAGIC)?;
            out.write_all(&(header.len() as u64).to_le_bytes())?;
            out.write_all(&header)?;
            self.state.save(out)?;
            let digest = out.digest.clone().finalize();
            out.to.write_all(&digest)?;
            out.flush()
        };
        write(&mut out).map_err(fault)?;
        drop(out);
        file.persist(path).map_err(|e| fault(e.error))?;
        Ok(())
    }

    /// Reads a saved text for this model and engine. What it takes in memory the file's own size bounds.
    ///
    /// # Errors
    /// Another kind of file, one that is damaged, or one of another model or engine.
    pub fn load(loaded: &'m Loaded<'w>, path: &Path, identity: &str) -> Result<Text<'m, 'w>, Error> {
        let refuse = |why: String| Error::NotSaved { path: path.to_owned(), why };
        let bytes = std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let body = bytes.strip_prefix(MAGIC).and_then(|rest| rest.split_last_chunk::<DIGEST>());
        let (body, digest) = body.ok_or_else(|| refuse("it does not begin with \"etalon text 1\"".into()))?;
        if Sha256::digest(&bytes[..bytes.len() - DIGEST]).as_slice() != digest {
            return Err(refuse("it is damaged: its checksum is another".into()));
        }
        let split = body.split_first_chunk::<8>().and_then(|(length, rest)| {
            rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)
        });
        let (header, state) = split.ok_or_else(|| refuse("its header is longer than the file".into()))?;
        let header: Header =
            serde_json::from_slice(header).map_err(|e| refuse(format!("its header: {e}")))?;
        let engine = loaded.engine().name();
        if header.engine != engine {
            return Err(refuse(format!(
                "it was saved by --engine {}, and states of one engine mean nothing to the other; this is {engine}",
                header.engine
            )));
        }
        if header.model != identity {
            return Err(refuse("it was saved with another model".into()));
        }
        let state = loaded.restore(&mut &state[..])?;
        let last_is_open = header.position < header.tokens.len();
        if state.position() != header.position || !(last_is_open || header.tokens.is_empty()) {
            return Err(refuse(format!(
                "its state has seen {} tokens, its header says {} of {}",
                state.position(),
                header.position,
                header.tokens.len()
            )));
        }
        let mut text = Text { loaded, state, tokens: Vec::new() };
        text.push(&header.tokens)?;
        Ok(text)
    }

    /// Goes on to `tokens`, which must begin with this text.
    ///
    /// # Errors
    /// They do not: a state cannot be taken back.
    pub fn extend_to(&mut self, tokens: &[u32]) -> Result<(), Error> {
        let own = &self.tokens;
        if let Some(position) = (0..own.len()).find(|&at| tokens.get(at) != own.get(at)) {
            let (saved, found) = (own[position], tokens.get(position).copied());
            return Err(Error::OtherText { position, saved, found, tokens: own.len() });
        }
        let rest = tokens[own.len()..].to_vec();
        self.push(&rest)
    }
}

/// What tells a model from others without reading all of it: its configuration, its tensors and how each begins.
pub fn identity(checkpoint: &Checkpoint) -> String {
    let mut digest = Sha256::new();
    digest.update(format!("{:?}", checkpoint.config()));
    for info in checkpoint.source().tensors() {
        digest.update(format!("{} {} {:?}\n", info.name, info.encoding.name(), info.shape.dims()));
        let bytes = checkpoint.source().bytes(info);
        digest.update(&bytes[..bytes.len().min(IDENTIFYING)]);
    }
    hexadecimal(&digest.finalize())
}

fn is_saved(path: &Path) -> bool {
    let mut start = [0; MAGIC.len()];
    let read = File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut start));
    read.is_ok() && start == *MAGIC
}

/// Writes and hashes.
struct Hashed<W: Write> {
    to: BufWriter<W>,
    digest: Sha256,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.digest.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

//! Which weights a trace belongs to.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use crate::{Error, Progress};

/// Bytes hashed between two reports of progress.
const PIECE: usize = 1 << 22;

/// SHA-256 of a checkpoint's weight files, in hexadecimal: one file's own hash; of several the hash of their listing
/// as `sha256sum` prints it, sorted by name.
///
/// # Errors
/// [`Error::Hash`] for a file that cannot be read.
pub fn fingerprint(files: &[PathBuf], progress: &dyn Progress) -> Result<String, Error> {
    let sizes = files.iter().filter_map(|file| file.metadata().ok()).map(|file| file.len());
    progress.begin("hashing weights", sizes.sum());
    let mut listing = Vec::new();
    let mut done = 0;
    for path in files {
        let hash =
            hash(path, &mut done, progress).map_err(|source| Error::Hash { path: path.clone(), source })?;
        listing.push((path.file_name().unwrap_or_default().to_string_lossy(), hash));
    }
    listing.sort();
    Ok(match listing.as_slice() {
        [(_, hash)] => hash.clone(),
        several => {
            let lines: String = several.iter().map(|(name, hash)| format!("{hash}  {name}\n")).collect();
            hexadecimal(&Sha256::digest(lines.as_bytes()))
        }
    })
}

fn hash(path: &PathBuf, done: &mut u64, progress: &dyn Progress) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut digest = Sha256::new();
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hexadecimal(&digest.finalize())),
            read => {
                digest.update(&piece[..read]);
                *done += read as u64;
                progress.reached(*done);
            }
        }
    }
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // a String takes everything
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Silent;

    #[test]
    fn one_file_and_several() {
        let room = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = room.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (b, a) = (file("b", "abc"), file("a", ""));
        // FIPS 180-4's own examples, and `sha256sum a b | sha256sum`.
        let of_abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(fingerprint(std::slice::from_ref(&b), &Silent).unwrap(), of_abc);
        let both = "bf6e2103d6cbead28abb7d3fec372bc25d03a35b1647e83e090248eb08d0adae";
        assert_eq!(fingerprint(&[b, a], &Silent).unwrap(), both);
        let error = fingerprint(&[room.path().join("c")], &Silent).unwrap_err().to_string();
        assert!(error.contains("/c: "), "{error}");
    }
}

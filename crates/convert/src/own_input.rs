//! Never over one's own input.

use std::fs::Metadata;
use std::path::Path;

use format::TensorSource;

use crate::error::Error;

/// Refuses an output that is a file of the source, by whatever name, or a directory that holds one.
///
/// # Errors
/// [`Error::OwnInput`].
pub fn refuse_own_input(source: &dyn TensorSource, output: &Path) -> Result<(), Error> {
    // What is not there yet is no input.
    let (Ok(own), Ok(path)) = (output.metadata(), output.canonicalize()) else { return Ok(()) };
    for file in source.files() {
        let inside = own.is_dir() && file.canonicalize().is_ok_and(|file| file.starts_with(&path));
        let same = file.metadata().is_ok_and(|metadata| same_file(&own, &metadata))
            || file.canonicalize().is_ok_and(|file| file == path);
        if inside || same {
            return Err(Error::OwnInput { path: output.to_owned(), input: file.clone() });
        }
    }
    Ok(())
}

#[cfg(unix)]
fn same_file(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(not(unix))]
fn same_file(_: &Metadata, _: &Metadata) -> bool {
    false
}

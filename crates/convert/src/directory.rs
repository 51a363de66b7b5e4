//! A directory that is being written: there whole, or not at all.

use std::fs;
use std::path::{Path, PathBuf};

use format::{Claim, Existing};
use tempfile::{Builder, TempDir};

use crate::error::Error;

/// A temporary sibling of the directory to be, renamed when complete, removed when dropped.
pub struct Directory {
    path: PathBuf,
    existing: Existing,
    temporary: TempDir,
    /// Nobody else is to clear it away meanwhile.
    _claim: Claim,
}

impl Directory {
    /// Starts what will be `path`.
    ///
    /// # Errors
    /// Something is there and is not to be replaced, or is no checkpoint; or the system refuses.
    pub fn create(path: &Path, existing: Existing) -> Result<Directory, Error> {
        check(path, existing)?;
        let (temporary, claim) = format::directory_beside(path).map_err(|source| Error::Io {
            path: path.to_owned(),
            action: "create a temporary directory beside it",
            source,
        })?;
        Ok(Directory { path: path.to_owned(), existing, temporary, _claim: claim })
    }

    /// Where to write until it is complete.
    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Writes a small file into it.
    ///
    /// # Errors
    /// The system refuses.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let io = |source| Error::Io { path: self.path.join(name), action: "write", source };
        fs::write(self.path().join(name), bytes).map_err(io)
    }

    /// Gives it its name.
    ///
    /// # Errors
    /// Something else has come to be there meanwhile, or the system refuses; the old directory is then still there.
    pub fn finish(self) -> Result<(), Error> {
        let Directory { path, existing, temporary, _claim } = self;
        check(&path, existing)?;
        let io = |source| Error::Io { path: path.clone(), action: "move the finished directory to", source };
        if path.symlink_metadata().is_ok() {
            if exchange(temporary.path(), &path) {
                // Dropped, the temporary takes the old one with it; so does the next run, should this one be killed.
                return Ok(());
            }
            // A directory cannot be renamed over a full one: the old one steps aside first, and back on failure. No run
            // clears away what has this name: whoever is killed here finds the old one in it.
            let aside = Builder::new().prefix(".replaced-").tempdir_in(parent(&path)).map_err(io)?;
            let old = aside.path().join(path.file_name().unwrap_or("replaced".as_ref()));
            fs::rename(&path, &old).map_err(io)?;
            if let Err(error) = fs::rename(temporary.path(), &path) {
                fs::rename(&old, &path).map_err(io)?;
                return Err(io(error));
            }
        } else {
            fs::rename(temporary.path(), &path).map_err(io)?;
        }
        // It has moved; there is nothing left to remove.
        let _ = temporary.keep();
        Ok(())
    }
}

/// Lets two directories change names at once; `false` where the system or the file system cannot.
#[cfg(target_os = "linux")]
fn exchange(one: &Path, other: &Path) -> bool {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn exchange(_: &Path, _: &Path) -> bool {
    false
}

/// Whether something may be put at `path`: replacing takes whole directories away, so only checkpoints and empty ones.
fn check(path: &Path, existing: Existing) -> Result<(), Error> {
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    if existing == Existing::Refuse {
        return Err(Error::Exists { path: path.to_owned() });
    }
    let empty = fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    if empty || path.join("config.json").is_file() {
        return Ok(());
    }
    Err(Error::NotACheckpoint { path: path.to_owned() })
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

//! Writing a file or a directory so that it is there whole or not at all.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile, TempDir};

use crate::Error;

/// An output path that has been promised but not filled.
#[derive(Debug)]
pub(crate) struct Output {
    path: PathBuf,
    replace: bool,
}

/// A temporary directory, locked for as long as it is written to: one that is not was left by a run that was killed,
/// and may be cleared away.
#[derive(Debug)]
pub(crate) struct Room {
    directory: TempDir,
    _lock: Option<File>,
}

impl Room {
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Output {
    /// Refuses a path where something is, unless it is to be replaced.
    pub(crate) fn new(path: &Path, replace: bool) -> Result<Output, Error> {
        let output = Output { path: path.to_owned(), replace };
        output.check_free()?;
        Ok(output)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn check_free(&self) -> Result<(), Error> {
        let taken = !self.replace && self.path.symlink_metadata().is_ok();
        if taken { Err(Error::Exists { path: self.path.clone() }) } else { Ok(()) }
    }

    /// A directory beside the output, on the same file system; it vanishes when dropped.
    pub(crate) fn directory(&self) -> Result<Room, Error> {
        let made = self.with_builder(0o777, |builder, parent| builder.tempdir_in(parent));
        let directory = made.map_err(|e| Error::io("create a directory beside", &self.path, e))?;
        let lock = File::open(directory.path()).ok().filter(|file| file.try_lock().is_ok());
        Ok(Room { directory, _lock: lock })
    }

    /// A file beside the output, on the same file system; it vanishes when dropped.
    pub(crate) fn file(&self) -> Result<NamedTempFile, Error> {
        let made = self.with_builder(0o666, |builder, parent| builder.tempfile_in(parent));
        let file = made.map_err(|e| Error::io("create a file beside", &self.path, e))?;
        // Where there are no locks, nothing is cleared away either.
        let _ = file.as_file().try_lock();
        Ok(file)
    }

    fn with_builder<T>(&self, mode: u32, make: impl FnOnce(&Builder<'_, '_>, &Path) -> T) -> T {
        let parent = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut builder = Builder::new();
        builder.prefix(".etalon-").suffix(".tmp");
        // Temporary files are private by default, but these become what the user asked for: the umask decides.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
        #[cfg(not(unix))]
        let _ = mode;
        make(&builder, parent)
    }

    /// Puts a finished file in the output's place.
    pub(crate) fn persist_file(self, file: NamedTempFile) -> Result<(), Error> {
        let persisted =
            if self.replace { file.persist(&self.path) } else { file.persist_noclobber(&self.path) };
        persisted.map(drop).map_err(|e| Error::io("move the finished trace to", &self.path, e.error))
    }

    /// Puts a finished directory in the output's place.
    pub(crate) fn persist_directory(self, Room { directory, _lock }: Room) -> Result<(), Error> {
        self.check_free()?;
        let fault = |e| Error::io("move the finished trace to", &self.path, e);
        if self.path.symlink_metadata().is_err() {
            fs::rename(directory.path(), &self.path).map_err(fault)?;
        } else {
            // A directory cannot be renamed over a full one: the old one steps aside first, and back on failure.
            let aside = self.directory()?;
            let old = aside.path().join("replaced");
            fs::rename(&self.path, &old).map_err(fault)?;
            if let Err(error) = fs::rename(directory.path(), &self.path) {
                fs::rename(&old, &self.path).map_err(fault)?;
                return Err(fault(error));
            }
        }
        // It has moved; there is nothing left to remove.
        let _ = directory.keep();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn entries(path: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn nothing_is_left_of_what_was_not_finished() {
        let room = tempfile::tempdir().unwrap();
        let output = Output::new(&room.path().join("out"), false).unwrap();
        let directory = output.directory().unwrap();
        fs::write(directory.path().join("x"), "x").unwrap();
        let file = output.file().unwrap();
        assert_eq!(entries(room.path()).len(), 2);
        drop((directory, file));
        assert!(entries(room.path()).is_empty());
    }

    #[test]
    fn an_existing_output_is_replaced_only_when_asked() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("out");
        for round in ["1", "2"] {
            let output = Output::new(&path, true).unwrap();
            let directory = output.directory().unwrap();
            fs::write(directory.path().join(round), "").unwrap();
            output.persist_directory(directory).unwrap();
            assert_eq!(entries(&path), [round]);
            assert_eq!(entries(room.path()), ["out"]);
        }
        assert!(matches!(Output::new(&path, false), Err(Error::Exists { .. })));

        let path = room.path().join("file");
        let late = Output::new(&path, false).unwrap();
        for text in ["1", "2"] {
            let output = Output::new(&path, true).unwrap();
            let mut file = output.file().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            output.persist_file(file).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        let file = late.file().unwrap();
        assert!(late.persist_file(file).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "2");
    }

    #[cfg(unix)]
    #[test]
    fn outputs_have_the_permissions_the_umask_leaves() {
        use std::os::unix::fs::PermissionsExt;
        let room = tempfile::tempdir().unwrap();
        let plain = room.path().join("plain");
        fs::write(&plain, "").unwrap();
        let output = Output::new(&room.path().join("out"), false).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(output.file().unwrap().path()), mode(&plain));
        assert_eq!(mode(output.directory().unwrap().path()) & 0o666, mode(&plain));
    }

    #[test]
    fn a_missing_parent_is_named() {
        let output = Output::new(Path::new("/no/such/place/out"), false).unwrap();
        let error = output.directory().unwrap_err().to_string();
        assert!(error.contains("/no/such/place/out"), "{error}");
    }
}

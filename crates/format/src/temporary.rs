//! Temporary files and directories beside what they will become: whose process lives, and who may clear them away.
//!
//! A process holds an advisory lock on each of its temporaries, which the system lets go of when the process ends,
//! however it ends. One whose lock can be had belongs to nobody.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;

use tempfile::{Builder, NamedTempFile, TempDir};

/// How names of temporaries begin.
const PREFIX: &str = ".etalon-";
/// How they end: this crate's, and those of traces.
const SUFFIXES: [&str; 2] = [".part", ".tmp"];

/// The lock on a temporary; let go of when dropped.
#[derive(Debug)]
pub struct Claim {
    _lock: Option<File>,
}

/// A file beside `path`, so that a rename stays in one file system; it vanishes when dropped. Its permissions are those of
/// any new file.
///
/// # Errors
/// The system's.
pub fn file_beside(path: &Path) -> io::Result<(NamedTempFile, Claim)> {
    beside(path, 0o666, |builder, parent| builder.tempfile_in(parent), NamedTempFile::path)
}

/// A directory beside `path`, as [`file_beside`] makes a file.
///
/// # Errors
/// The system's.
pub fn directory_beside(path: &Path) -> io::Result<(TempDir, Claim)> {
    beside(path, 0o777, |builder, parent| builder.tempdir_in(parent), TempDir::path)
}

fn beside<T>(
    path: &Path,
    mode: u32,
    make: impl Fn(&Builder<'_, '_>, &Path) -> io::Result<T>,
    place: impl Fn(&T) -> &Path,
) -> io::Result<(T, Claim)> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sweep(parent);
    let mut builder = Builder::new();
    builder.prefix(PREFIX).suffix(SUFFIXES[0]);
    // Temporaries are private by default, but these become what was asked for: the umask decides.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    #[cfg(not(unix))]
    let _ = mode;
    // Another process may take it for a dead one's between these two steps.
    loop {
        let made = make(&builder, parent)?;
        if let Some(claim) = claim(place(&made)) {
            return Ok((made, claim));
        }
    }
}

/// Claims a temporary that was just made; `None` if somebody has cleared it away before it could be claimed.
///
/// Where the file system knows no locks nothing is claimed, and nothing ever cleared away.
fn claim(path: &Path) -> Option<Claim> {
    let Ok(file) = File::open(path) else {
        return path.symlink_metadata().is_ok().then_some(Claim { _lock: None });
    };
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => None,
        locked => path.symlink_metadata().is_ok().then(|| Claim { _lock: locked.ok().map(|()| file) }),
    }
}

/// Removes the temporaries in `dir` that killed processes have left; never one that a process still writes to.
///
/// What cannot be removed is left to the next time: it is no reason to fail.
pub fn sweep(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let ours = name.starts_with(PREFIX) && SUFFIXES.iter().any(|suffix| name.ends_with(suffix));
        // Neither links nor pipes are followed or opened.
        let Ok(kind) = entry.file_type() else { continue };
        if !ours || !(kind.is_file() || kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        let Ok(file) = File::open(&path) else { continue };
        if file.try_lock().is_ok() {
            let _ = if kind.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_holds_is_cleared_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in [
            ".etalon-left.part",
            ".etalon-held.part",
            "etalon-mine.part",
            ".etalon-other.txt",
            ".etalon-t.tmp",
        ] {
            fs::write(path(name), "x").unwrap();
        }
        for name in [".etalon-room.part", ".etalon-taken.part"] {
            fs::create_dir(path(name)).unwrap();
            fs::write(path(name).join("inside"), "x").unwrap();
        }
        std::os::unix::fs::symlink(path("etalon-mine.part"), path(".etalon-link.part")).unwrap();
        let claims = [".etalon-held.part", ".etalon-taken.part"].map(|name| claim(&path(name)).unwrap());
        // A second process would find it taken.
        assert!(claim(&path(".etalon-held.part")).is_none());
        let names = || {
            let mut names: Vec<String> = fs::read_dir(dir.path())
                .unwrap()
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        sweep(dir.path());
        let kept = [
            ".etalon-held.part",
            ".etalon-link.part",
            ".etalon-other.txt",
            ".etalon-taken.part",
            "etalon-mine.part",
        ];
        assert_eq!(names(), kept);
        drop(claims);
        sweep(dir.path());
        assert_eq!(names(), [".etalon-link.part", ".etalon-other.txt", "etalon-mine.part"]);
        assert!(claim(&path("gone")).is_none());
    }

    #[test]
    fn what_is_made_is_held_and_what_was_left_goes() {
        let dir = tempfile::tempdir().unwrap();
        let left = dir.path().join(".etalon-left.part");
        fs::write(&left, "x").unwrap();
        let path = dir.path().join("m");
        let (file, _file) = file_beside(&path).unwrap();
        assert!(!left.exists());
        let (directory, _directory) = directory_beside(&path).unwrap();
        sweep(dir.path());
        assert!(file.path().exists() && directory.path().exists());
        assert!([file.path(), directory.path()].iter().all(|made| made.parent() == Some(dir.path())));
    }
}

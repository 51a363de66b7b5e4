//! Small files that commands write: there whole or not at all.

use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Context;

/// Writes a file under a temporary name beside it, then renames. One that is there is replaced only if `force`.
pub fn write(path: &Path, bytes: &[u8], force: bool) -> anyhow::Result<()> {
    write_with(path, force, |out| Ok(out.write_all(bytes)?))
}

/// The same for what is written piece by piece.
pub fn write_with<T>(
    path: &Path,
    force: bool,
    fill: impl FnOnce(&mut dyn Write) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let exists =
        || anyhow::anyhow!("{}: exists already; remove it, write elsewhere, or give --force", path.display());
    if !force && path.symlink_metadata().is_ok() {
        return Err(exists());
    }
    let write = || {
        let (mut file, claim) = format::file_beside(path)?;
        let mut out = BufWriter::with_capacity(1 << 16, &mut file);
        let found = fill(&mut out)?;
        out.flush()?;
        drop(out);
        anyhow::Ok((file, claim, found))
    };
    let (file, _claim, found) = write().with_context(|| format!("cannot write {}", path.display()))?;
    let placed = if force { file.persist(path) } else { file.persist_noclobber(path) };
    match placed {
        Ok(_) => Ok(found),
        Err(e) if !force && e.error.kind() == std::io::ErrorKind::AlreadyExists => Err(exists()),
        Err(e) => Err(e.error).with_context(|| format!("cannot write {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_run_left_is_cleared_away() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".etalon-left.part"), "half").unwrap();
        write(&dir.path().join("page.html"), b"whole", false).unwrap();
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["page.html"]);
    }

    #[test]
    fn what_is_there_is_replaced_only_on_request() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("page.html");
        write(&path, b"one", false).unwrap();
        assert!(write(&path, b"two", false).unwrap_err().to_string().contains("exists already"));
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        write(&path, b"two", true).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert!(write(&dir.path().join("no/such"), b"", false).unwrap_err().to_string().contains("no/such"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

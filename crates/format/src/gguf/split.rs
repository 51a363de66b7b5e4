//! Parts of a split file: `NAME-00001-of-00003.gguf`, whichever of them is named.

use std::io;
use std::path::{Path, PathBuf};

use super::SPLIT_KEYS;
use super::defect::SplitDefect;
use super::key_values::KeyError;
use super::part::Part;
use crate::{Error, Limits};

const NO: &str = SPLIT_KEYS[0];
const COUNT: &str = SPLIT_KEYS[1];
const TENSORS: &str = SPLIT_KEYS[2];

/// The first part and the rest, given any one; a whole file is returned alone.
pub(super) fn siblings(named: Part, limits: &Limits) -> Result<(Part, Vec<Part>), Error> {
    let count = match named.keys.get_u64(COUNT) {
        Err(KeyError::Missing { .. }) | Ok(0 | 1) => return Ok((named, Vec::new())),
        Err(wrong) => return Err(refuse(&named.path, SplitDefect::Key(wrong))),
        Ok(count) => count,
    };
    if count > limits.files {
        return Err(refuse(&named.path, SplitDefect::TooMany { found: count, limit: limits.files }));
    }
    let Some(numbering) = Numbering::of(&named.path, count) else {
        return Err(refuse(&named.path, SplitDefect::Name { count }));
    };
    let (named_number, named_path) = (numbering.number, named.path.clone());
    // All parts are held at once, so what is admitted is admitted of all together.
    let mut left = limits.clone();
    let held = |left: &mut Limits, part: &Part| {
        left.keys = left.keys.saturating_sub(part.keys.len() as u64);
        left.tensors = left.tensors.saturating_sub(part.tensors.len() as u64);
    };
    held(&mut left, &named);
    let mut named = Some(named);
    let mut part = |number: u64| -> Result<Part, Error> {
        let part = match named.take_if(|_| number == named_number) {
            Some(part) => part,
            None => {
                let part = Part::open(&numbering.path(number), &left).map_err(|e| match e {
                    Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                        refuse(&numbering.path(number), SplitDefect::Missing { number, count })
                    }
                    other => other,
                })?;
                held(&mut left, &part);
                part
            }
        };
        check(&part, number, count).map_err(|defect| refuse(&part.path, defect))?;
        Ok(part)
    };
    let first = part(1)?;
    let rest = (2..=count).map(part).collect::<Result<Vec<Part>, Error>>()?;

    let found = first.tensors.len() as u64 + rest.iter().map(|p| p.tensors.len() as u64).sum::<u64>();
    match first.keys.get_u64(TENSORS) {
        Ok(declared) if declared == found => Ok((first, rest)),
        Ok(declared) => Err(refuse(&named_path, SplitDefect::Tensors { declared, found })),
        Err(wrong) => Err(refuse(&first.path, SplitDefect::Key(wrong))),
    }
}

fn check(part: &Part, number: u64, count: u64) -> Result<(), SplitDefect> {
    let found = part.keys.get_u64(COUNT).map_err(SplitDefect::Key)?;
    if found != count {
        return Err(SplitDefect::Count { expected: count, found });
    }
    let found = part.keys.get_u64(NO).map_err(SplitDefect::Key)?;
    if found != number - 1 {
        return Err(SplitDefect::Number { expected: number - 1, found });
    }
    Ok(())
}

fn refuse(path: &Path, defect: SplitDefect) -> Error {
    Error::Split { path: path.to_path_buf(), defect }
}

/// A name that counts: `{stem}-{number:05}-of-{count:05}.gguf`, numbers from 1.
pub(super) struct Numbering {
    dir: PathBuf,
    stem: String,
    number: u64,
    count: u64,
}

impl Numbering {
    /// The names of `count` parts of what would be `path` as one file. A number that stands in the name already is
    /// not kept: parts of parts are counted anew.
    pub(super) fn under(path: &Path, count: u64) -> Numbering {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let stem = name.strip_suffix(".gguf").unwrap_or(&name);
        let digits = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
        let unnumbered = stem.rsplit_once("-of-").filter(|(_, of)| digits(of)).and_then(|(rest, _)| {
            rest.rsplit_once('-').filter(|(_, number)| digits(number)).map(|(unnumbered, _)| unnumbered)
        });
        let stem = unnumbered.unwrap_or(stem).to_owned();
        Numbering { dir: path.with_file_name(""), stem, number: 1, count }
    }

    fn of(path: &Path, count: u64) -> Option<Numbering> {
        let name = path.file_name()?.to_str()?;
        let rest = name.strip_suffix(&format!("-of-{count:05}.gguf"))?;
        let (stem, number) = rest.rsplit_once('-')?;
        let numbering = Numbering {
            dir: path.with_file_name(""),
            stem: stem.to_owned(),
            number: number.parse().ok()?,
            count,
        };
        let exact = (1..=count).contains(&numbering.number) && numbering.name(numbering.number) == name;
        exact.then_some(numbering)
    }

    fn name(&self, number: u64) -> String {
        format!("{}-{number:05}-of-{:05}.gguf", self.stem, self.count)
    }

    /// Where part `number`, from 1, lies.
    pub(super) fn path(&self, number: u64) -> PathBuf {
        self.dir.join(self.name(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_count_their_parts() {
        let of = |name: &str, count| Numbering::of(Path::new(name), count).map(|n| (n.number, n.path(1)));
        assert_eq!(of("d/a-b-00002-of-00003.gguf", 3), Some((2, PathBuf::from("d/a-b-00001-of-00003.gguf"))));
        assert_eq!(of("a-00001-of-00003.gguf", 3), Some((1, PathBuf::from("a-00001-of-00003.gguf"))));
        for wrong in
            ["a-00004-of-00003.gguf", "a-00000-of-00003.gguf", "a-1-of-3.gguf", "a-1-of-00003.gguf", "a.gguf"]
        {
            assert_eq!(of(wrong, 3), None, "{wrong}");
        }
        assert_eq!(of("a-00001-of-00003.gguf", 4), None);
    }

    #[test]
    fn parts_are_named_after_the_whole_or_after_other_parts() {
        for whole in ["d/a-b.gguf", "d/a-b", "d/a-b-00002-of-00009.gguf"] {
            let path = Numbering::under(Path::new(whole), 3).path(2);
            assert_eq!(path, PathBuf::from("d/a-b-00002-of-00003.gguf"), "{whole}");
        }
        assert_eq!(
            Numbering::under(Path::new("a-of-b.gguf"), 1).path(1),
            PathBuf::from("a-of-b-00001-of-00001.gguf")
        );
    }
}

//! A `.npz` file: a zip archive of `.npy` members, stored or deflated.
//!
//! The archive's directory is read here and not by a general zip reader because the members of a trace are read
//! in turns, a few rows of each, from one file; because nothing may be allocated from a declared count; and
//! because a directory whose members overlap, or promise more than deflate can hold, is an attack.

use std::collections::HashSet;
use std::sync::Arc;

use crate::Error;
use crate::entry::{Contents, Entry, Stretch};
use crate::error::Place;
use crate::manifest::Manifest;
use crate::source::Source;

const END: u32 = 0x0605_4b50;
const END_LENGTH: u64 = 22;
const END64: u32 = 0x0606_4b50;
const END64_LENGTH: u64 = 56;
const LOCATOR64: u32 = 0x0706_4b50;
const LOCATOR64_LENGTH: u64 = 20;
const CENTRAL: u32 = 0x0201_4b50;
const CENTRAL_LENGTH: u64 = 46;
const LOCAL: u32 = 0x0403_4b50;
const LOCAL_LENGTH: u64 = 30;
const ZIP64_EXTRA: u16 = 1;
/// In a 32-bit field: the value stands in a 64-bit field elsewhere.
const SATURATED: u64 = u32::MAX as u64;
const ENCRYPTED: u16 = 1;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;

/// Deflate codes 258 bytes in no less than two bits, so no stream grows by more than this factor.
const MAX_DEFLATE_RATIO: u64 = 1032;

/// The arrays of the archive, without their `.npy`, and its manifest.
pub(crate) fn open(source: Source) -> Result<Contents, Error> {
    let place = source.place();
    let source = Arc::new(source);
    let mut manifest = None;
    let mut arrays = Vec::new();
    for member in members(&source, &place)? {
        let place = place.part(&member.name);
        if member.name == Manifest::FILE {
            manifest = Some(Manifest::read(&mut member.stretch.open(), &place)?);
        } else if let Some(name) = member.name.strip_suffix(".npy") {
            arrays.push((name.to_owned(), Entry::npy(member.stretch, place)?));
        }
    }
    Ok(Contents { arrays, manifest })
}

struct Member {
    name: String,
    stretch: Stretch,
}

/// A fixed-length record, checked to be there; fields are little-endian.
struct Record(Vec<u8>);

impl Record {
    fn read(source: &Arc<Source>, at: u64, length: u64, signature: u32, what: &str) -> Result<Record, Error> {
        let place = source.place();
        if at.checked_add(length).is_none_or(|end| end > source.len()) {
            return Err(place.malformed(format!("{what} at byte {at} lies past the end of the file")));
        }
        let record = Record(source.bytes(at, length)?);
        if record.u32(0) != signature {
            return Err(place.malformed(format!("no {what} at byte {at}, where one should be")));
        }
        Ok(record)
    }

    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0[at..at + N].try_into().expect("a slice of N bytes")
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.field(at))
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.field(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.field(at))
    }
}

/// Where the directory lies: its first byte, its length and how many members it lists.
struct Directory {
    start: u64,
    length: u64,
    count: u64,
}

fn directory(source: &Arc<Source>, place: &Place) -> Result<Directory, Error> {
    // The end record is followed by nothing but a comment, whose length it states.
    let searched = source.len().min(END_LENGTH + u64::from(u16::MAX));
    let from = source.len() - searched;
    let tail = source.bytes(from, searched)?;
    let is_end = |at: &usize| {
        let comment = tail.len() - at - END_LENGTH as usize;
        tail[*at..].starts_with(&END.to_le_bytes())
            && usize::from(u16::from_le_bytes([tail[at + 20], tail[at + 21]])) == comment
    };
    let last = (tail.len() + 1).saturating_sub(END_LENGTH as usize);
    let at = (0..last).rev().find(is_end).ok_or_else(|| {
        place.malformed("is no zip archive, or a truncated one: it has no end-of-directory record")
    })?;
    let end = Record(tail[at..at + END_LENGTH as usize].to_vec());
    let end_at = from + at as u64;
    let narrow =
        Directory { start: end.u32(16).into(), length: end.u32(12).into(), count: end.u16(10).into() };
    let saturated =
        narrow.start == SATURATED || narrow.length == SATURATED || narrow.count == u64::from(u16::MAX);
    let (directory, followed_by) = if saturated && end_at >= LOCATOR64_LENGTH {
        let what = "locator of the 64-bit end record";
        let locator = Record::read(source, end_at - LOCATOR64_LENGTH, LOCATOR64_LENGTH, LOCATOR64, what)?;
        let at = locator.u64(8);
        let wide = Record::read(source, at, END64_LENGTH, END64, "64-bit end record")?;
        (Directory { start: wide.u64(48), length: wide.u64(40), count: wide.u64(32) }, at)
    } else {
        (narrow, end_at)
    };
    let Directory { start, length, count } = directory;
    if start.checked_add(length) != Some(followed_by) {
        return Err(place.malformed(format!(
            "the directory of {length} bytes at byte {start} does not end at byte {followed_by}, where its end record starts"
        )));
    }
    if count.checked_mul(CENTRAL_LENGTH).is_none_or(|least| least > length) {
        return Err(
            place.malformed(format!("{count} members cannot be listed in {length} bytes of directory"))
        );
    }
    Ok(directory)
}

fn members(source: &Arc<Source>, place: &Place) -> Result<Vec<Member>, Error> {
    let directory = directory(source, place)?;
    let end = directory.start + directory.length;
    let mut at = directory.start;
    let mut names = HashSet::new();
    // Where each member's local record starts and where its data end.
    let mut extents = Vec::new();
    let mut members = Vec::new();
    for _ in 0..directory.count {
        let record = Record::read(source, at, CENTRAL_LENGTH, CENTRAL, "directory record")?;
        let [name_length, extra_length, comment_length] = [28, 30, 32].map(|at| u64::from(record.u16(at)));
        let variable = name_length + extra_length + comment_length;
        let fixed_end = at + CENTRAL_LENGTH;
        if fixed_end + variable > end {
            return Err(place.malformed(format!("the directory record at byte {at} runs past the directory")));
        }
        let name = String::from_utf8(source.bytes(fixed_end, name_length)?)
            .map_err(|_| place.malformed(format!("the member name at byte {fixed_end} is not UTF-8")))?;
        let extra = source.bytes(fixed_end + name_length, extra_length)?;
        at = fixed_end + variable;

        let place = place.part(&name);
        if !names.insert(name.clone()) {
            return Err(place.malformed("two members have this name"));
        }
        if record.u16(8) & ENCRYPTED != 0 {
            return Err(place.unsupported("is encrypted; write the archive without a password"));
        }
        let deflated = match record.u16(10) {
            STORED => false,
            DEFLATED => true,
            other => {
                let what =
                    format!("compression method {other}; numpy's savez and savez_compressed use 0 and 8");
                return Err(place.unsupported(what));
            }
        };
        let [size, stored, local] = wide_fields(&record, &extra, &place)?;

        let header = Record::read(source, local, LOCAL_LENGTH, LOCAL, "local record")?;
        let start = local + LOCAL_LENGTH + u64::from(header.u16(26)) + u64::from(header.u16(28));
        let Some(data_end) = start.checked_add(stored).filter(|&e| e <= directory.start) else {
            return Err(place.malformed(format!("{stored} bytes at byte {start} run into the directory")));
        };
        let most = if deflated { stored.saturating_mul(MAX_DEFLATE_RATIO) } else { stored };
        if size > most || (!deflated && size != stored) {
            return Err(
                place.malformed(format!("declares {size} bytes, but {stored} stored bytes cannot hold them"))
            );
        }
        extents.push((local, data_end));
        let crc = Some(record.u32(16));
        members.push(Member {
            name,
            stretch: Stretch { source: Arc::clone(source), start, stored, size, deflated, crc },
        });
    }
    extents.sort_unstable();
    if let Some(pair) = extents.windows(2).find(|pair| pair[1].0 < pair[0].1) {
        return Err(place.malformed(format!("two members share the bytes from {} on", pair[1].0)));
    }
    Ok(members)
}

/// Size, stored size and offset of a member: from the record, or from its 64-bit extra field where they do not
/// fit there.
fn wide_fields(record: &Record, extra: &[u8], place: &Place) -> Result<[u64; 3], Error> {
    let mut wide = zip64_extra(extra).chunks_exact(8);
    let mut fields = [24, 20, 42].map(|at| u64::from(record.u32(at)));
    for field in &mut fields {
        if *field == SATURATED {
            let bytes = wide.next().ok_or_else(|| place.malformed("its 64-bit sizes are missing"))?;
            *field = u64::from_le_bytes(bytes.try_into().expect("a chunk of 8 bytes"));
        }
    }
    Ok(fields)
}

/// The content of the 64-bit field among a member's extra fields; empty if there is none.
fn zip64_extra(mut extra: &[u8]) -> &[u8] {
    while let Some((head, rest)) = extra.split_first_chunk::<4>() {
        let length = usize::from(u16::from_le_bytes([head[2], head[3]]));
        let Some((content, after)) = rest.split_at_checked(length) else { break };
        if u16::from_le_bytes([head[0], head[1]]) == ZIP64_EXTRA {
            return content;
        }
        extra = after;
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Dtype;
    use crate::npy::Header;
    use crate::tensor::Values;
    use std::io::{Cursor, Write};
    use zip::write::SimpleFileOptions;
    use zip::{CompressionMethod, ZipWriter};

    fn npy(values: &[f32]) -> Vec<u8> {
        let header = Header::plain(Dtype::F32, &[values.len()]).to_bytes(0).unwrap();
        header.into_iter().chain(values.iter().flat_map(|v| v.to_le_bytes())).collect()
    }

    fn archive(members: &[(&str, &[u8])], options: SimpleFileOptions) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in members {
            writer.start_file(*name, options).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn options(method: CompressionMethod) -> SimpleFileOptions {
        SimpleFileOptions::default().compression_method(method)
    }

    fn read(bytes: Vec<u8>) -> Result<Vec<(String, Values)>, String> {
        let Contents { arrays, .. } = open(Source::memory("t.npz", bytes)).map_err(|e| e.to_string())?;
        let read =
            |(name, entry): (String, Entry)| Ok((name, entry.read().map_err(|e| e.to_string())?.values));
        arrays.into_iter().map(read).collect()
    }

    #[test]
    fn stored_deflated_and_64_bit_members_are_read() {
        let members: [(&str, &[u8]); 3] =
            [("b.npy", &npy(&[1., 2.])), ("note.txt", b"x"), ("a.npy", &npy(&[3.]))];
        let expected =
            vec![("b".to_owned(), Values::F32(vec![1., 2.])), ("a".to_owned(), Values::F32(vec![3.]))];
        for options in [
            options(CompressionMethod::Stored),
            options(CompressionMethod::Deflated),
            options(CompressionMethod::Deflated).large_file(true),
        ] {
            assert_eq!(read(archive(&members, options)), Ok(expected.clone()));
        }
        assert_eq!(read(archive(&[], options(CompressionMethod::Stored))), Ok(vec![]));
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        writer.set_comment("a comment PK\x05\x06").unwrap();
        assert_eq!(read(writer.finish().unwrap().into_inner()), Ok(vec![]));
    }

    /// Where in `bytes` the first record with this signature starts.
    fn record(bytes: &[u8], signature: u32) -> usize {
        bytes.windows(4).position(|w| w == signature.to_le_bytes()).unwrap()
    }

    #[test]
    fn faults_are_named() {
        let sound = archive(
            &[("a.npy", &npy(&[1.; 64])), ("b.npy", &npy(&[2.; 64]))],
            options(CompressionMethod::Deflated),
        );
        let (central, end) = (record(&sound, CENTRAL), record(&sound, END));
        let second = central + 4 + record(&sound[central + 4..], CENTRAL);
        let cases: [(usize, &[u8], &str); 13] = [
            (end, b"X", "no end-of-directory record"),
            (end + 10, &[0xfe, 0xff], "65534 members cannot be listed"),
            (end + 10, &[0xff, 0xff], "no locator of the 64-bit end record"),
            (end + 16, &[1], "does not end at byte"),
            (central, b"X", "no directory record at byte"),
            (central + 8, &[1], "encrypted"),
            (central + 10, &[14], "compression method 14"),
            (central + 16, &[0, 0, 0, 0], "CRC-32"),
            (central + 24, &[0, 0, 0, 1], "cannot hold them"),
            (central + 24, &[0xff, 0xff, 0xff, 0xff], "64-bit sizes are missing"),
            (central + 20, &[0, 0, 0, 1], "run into the directory"),
            (second + 42, &[0, 0, 0, 0], "share the bytes"),
            (central + 28, &[0xff, 0xff], "runs past the directory"),
        ];
        assert_eq!(read(sound.clone()).unwrap().len(), 2);
        for (at, bytes, fault) in cases {
            let mut broken = sound.clone();
            broken[at..at + bytes.len()].copy_from_slice(bytes);
            let error = read(broken).expect_err(fault);
            assert!(error.contains(fault) && error.contains("t.npz"), "{fault}: {error}");
        }
        let renamed = |from: &[u8], to: &[u8]| {
            let mut bytes = sound.clone();
            for at in 0..bytes.len() - from.len() {
                if bytes[at..].starts_with(from) {
                    bytes[at..at + to.len()].copy_from_slice(to);
                }
            }
            read(bytes).unwrap_err()
        };
        assert!(renamed(b"b.npy", b"a.npy").contains("two members have this name"));
        assert!(renamed(b"b.npy", b"\xff").contains("not UTF-8"));
    }

    #[test]
    fn every_truncation_is_refused() {
        let sound = archive(&[("a.npy", &npy(&[1., 2.]))], options(CompressionMethod::Stored));
        for length in 0..sound.len() {
            assert!(read(sound[..length].to_vec()).is_err(), "{length}");
        }
    }

    #[test]
    fn every_flipped_byte_is_refused_or_harmless() {
        let sound = archive(&[("a.npy", &npy(&[1., 2.]))], options(CompressionMethod::Deflated));
        let expected = read(sound.clone());
        for at in 0..sound.len() {
            let mut broken = sound.clone();
            broken[at] ^= 0x10;
            // Times, versions and attributes are not ours to judge; a changed name shows; values never change.
            if let Ok(arrays) = read(broken) {
                for (name, values) in arrays {
                    assert_eq!(Ok(vec![("a".to_owned(), values)]), expected, "byte {at}, {name}");
                }
            }
        }
    }
}

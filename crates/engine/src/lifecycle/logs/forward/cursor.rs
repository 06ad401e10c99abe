// SPDX-License-Identifier: Apache-2.0
//! How far a log was handed on: a small file beside it. The kernel keeps what
//! was written to it over the death of the engine, without a sync; a power cut
//! may repeat lines.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
};

use super::super::line::Place;

/// Two numbers of twenty digits, a space, a newline: always overwritten as a
/// whole, so that it needs no space on a full disk.
const LENGTH: usize = 42;

#[derive(Debug)]
pub(super) struct Cursor {
    file: File,
    place: Place,
}

impl Cursor {
    /// That of the log at `path`; a damaged one begins anew.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut name = OsString::from(path);
        name.push(".cursor");
        let text = fs::read_to_string(&name).unwrap_or_default();
        let place = parse(&text).unwrap_or_default();
        let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(&name)?;
        Ok(Self { file, place })
    }

    pub(super) fn place(&self) -> Place {
        self.place
    }

    pub(super) fn save(&mut self, place: Place) -> io::Result<()> {
        let text = format!("{:020} {:020}\n", place.segment, place.offset);
        debug_assert_eq!(text.len(), LENGTH, "the whole file");
        self.file.write_all_at(text.as_bytes(), 0)?;
        self.place = place;
        Ok(())
    }
}

fn parse(text: &str) -> Option<Place> {
    let (segment, offset) = text.get(..LENGTH)?.trim_end().split_once(' ')?;
    Some(Place { segment: segment.parse().ok()?, offset: offset.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_again_and_damage_begins_anew() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("log");
        let mut cursor = Cursor::open(&path).expect("open");
        assert_eq!(cursor.place(), Place::default());
        for place in [Place { segment: 3, offset: 700 }, Place { segment: u64::MAX, offset: 1 }] {
            cursor.save(place).expect("save");
            assert_eq!(Cursor::open(&path).expect("open").place(), place);
        }
        fs::write(dir.path().join("log.cursor"), "rubbish").expect("write");
        assert_eq!(Cursor::open(&path).expect("open").place(), Place::default());
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Files with holes: GNU's old header and the three pax formats of GNU tar
//! (0.0, 0.1, 1.0). Each says where the stored bytes belong; what Go's reader,
//! and with it every other engine, takes is taken.

use std::io;

use super::{Pieces, bad, decimal};

/// Most pieces of a file.
pub(super) const MAX_PIECES: usize = 65536;
/// Largest file with holes: 16 TiB, as ext4 has it. It costs nothing to make
/// one, and days to read one.
const MAX_SIZE: u64 = 1 << 44;
/// Longest number in a map of format 1.0, its newline included.
const MAX_DIGITS: usize = 20;

/// What the `GNU.sparse.` records of a pax header say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    major: Option<u64>,
    minor: Option<u64>,
    count: Option<u64>,
    size: Option<u64>,
    map: Option<Pieces>,
    /// Format 0.0: a piece whose length is still to come.
    offset: Option<u64>,
    /// The file's name; the header has another.
    pub name: Option<Vec<u8>>,
}

/// Where the map is.
#[derive(Debug)]
pub(super) enum Map {
    Here(Pieces),
    /// In front of the data, in whole blocks.
    InData,
}

impl Records {
    /// Takes the record `GNU.sparse.<key>`.
    pub(super) fn take(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let number = || decimal(value);
        match key {
            b"major" => once(&mut self.major, number()?),
            b"minor" => once(&mut self.minor, number()?),
            b"numblocks" => once(&mut self.count, number()?),
            // Of 0.x and of 1.0: readers differ in which one they ask first.
            b"size" | b"realsize" => once(&mut self.size, number()?),
            b"name" if !value.is_empty() && !value.contains(&0) => once(&mut self.name, value.to_vec()),
            b"map" => once(&mut self.map, parse_map(value)?),
            b"offset" => once(&mut self.offset, number()?),
            b"numbytes" => {
                let offset = self.offset.take().ok_or_else(malformed)?;
                let map = self.map.get_or_insert_default();
                map.push((offset, number()?));
                if map.len() > MAX_PIECES { Err(too_many()) } else { Ok(()) }
            }
            _ => Err(malformed()),
        }
    }

    /// The map, and the size that the file unfolds to.
    pub(super) fn resolve(self) -> io::Result<(Map, u64)> {
        let size = self.size.ok_or_else(malformed)?;
        let map = match (self.major, self.minor, self.map) {
            (Some(1), Some(0), None) if self.count.is_none() => Map::InData,
            (None, None, map) | (Some(0), Some(0 | 1), map) => {
                let map = map.unwrap_or_default();
                if self.offset.is_some() || self.count != Some(map.len() as u64) {
                    return Err(malformed());
                }
                Map::Here(map)
            }
            _ => return Err(bad("unknown format of a sparse file")),
        };
        Ok((map, size))
    }
}

fn malformed() -> io::Error {
    bad("malformed map of a sparse file")
}

fn too_many() -> io::Error {
    bad("sparse file with too many pieces")
}

/// What is said twice is believed by nobody in the same way.
fn once<T>(slot: &mut Option<T>, value: T) -> io::Result<()> {
    if slot.replace(value).is_some() { Err(malformed()) } else { Ok(()) }
}

/// `offset,length,offset,length`.
fn parse_map(value: &[u8]) -> io::Result<Pieces> {
    let mut pieces = Pieces::new();
    if value.is_empty() {
        return Ok(pieces);
    }
    let mut numbers = value.split(|&b| b == b',');
    while let Some(offset) = numbers.next() {
        let length = numbers.next().ok_or_else(malformed)?;
        pieces.push((decimal(offset)?, decimal(length)?));
        if pieces.len() > MAX_PIECES {
            return Err(too_many());
        }
    }
    Ok(pieces)
}

/// Reads a map of format 1.0: decimal numbers, a line each, first how many
/// pieces there are. `block` gives the next block of the file's data.
pub(super) fn read_map(mut block: impl FnMut(&mut [u8; 512]) -> io::Result<()>) -> io::Result<Pieces> {
    let mut buffer = [0_u8; 512];
    let mut at = buffer.len();
    let mut number = || {
        let mut digits = Vec::with_capacity(MAX_DIGITS);
        loop {
            if at == buffer.len() {
                block(&mut buffer)?;
                at = 0;
            }
            let byte = buffer[at];
            at += 1;
            match byte {
                b'\n' => return decimal(&digits),
                byte if digits.len() < MAX_DIGITS => digits.push(byte),
                _ => return Err(malformed()),
            }
        }
    };
    let count = number()?;
    if count > MAX_PIECES as u64 {
        return Err(too_many());
    }
    (0..count).map(|_| Ok((number()?, number()?))).collect()
}

/// Whether `stored` bytes, cut into these pieces, make a file of `size`.
pub(super) fn check(pieces: &[(u64, u64)], stored: u64, size: u64) -> io::Result<()> {
    if size > MAX_SIZE {
        return Err(bad("sparse file too large"));
    }
    let mut end = 0_u64;
    let mut total = 0_u64;
    for &(offset, length) in pieces {
        if offset < end {
            return Err(bad("pieces of a sparse file overlap"));
        }
        end = offset.checked_add(length).ok_or_else(|| bad("sparse file too large"))?;
        total += length;
    }
    if end > size || total != stored { Err(bad("sparse file's pieces don't add up")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(records: &[(&str, &str)]) -> io::Result<(Option<Pieces>, u64)> {
        let mut all = Records::default();
        for (key, value) in records {
            all.take(key.as_bytes(), value.as_bytes())?;
        }
        all.resolve().map(|(map, size)| match map {
            Map::Here(pieces) => (Some(pieces), size),
            Map::InData => (None, size),
        })
    }

    #[test]
    fn records_of_each_format_are_a_map() {
        let two = || Some(vec![(0, 1), (512, 3)]);
        for (records, expected) in [
            (
                vec![
                    ("size", "600"),
                    ("numblocks", "2"),
                    ("offset", "0"),
                    ("numbytes", "1"),
                    ("offset", "512"),
                    ("numbytes", "3"),
                ],
                two(),
            ),
            (vec![("size", "600"), ("numblocks", "2"), ("map", "0,1,512,3"), ("name", "f")], two()),
            (vec![("size", "600"), ("numblocks", "0"), ("map", "")], Some(vec![])),
            (vec![("major", "1"), ("minor", "0"), ("name", "f"), ("realsize", "600")], None),
        ] {
            assert_eq!(resolved(&records).expect("sound"), (expected, 600), "{records:?}");
        }
    }

    #[test]
    fn records_that_contradict_each_other_are_refused() {
        for records in [
            &[("size", "1")][..],
            &[("numblocks", "1"), ("map", "0,1")],
            &[("size", "1"), ("numblocks", "2"), ("map", "0,1")],
            &[("size", "1"), ("numblocks", "1"), ("map", "0")],
            &[("size", "1"), ("numblocks", "1"), ("map", "0,x")],
            &[("size", "1"), ("numblocks", "1"), ("map", "0,1"), ("map", "0,1")],
            &[("size", "1"), ("realsize", "2"), ("numblocks", "0"), ("map", "")],
            &[("size", "1"), ("numblocks", "1"), ("offset", "0")],
            &[("size", "1"), ("numblocks", "1"), ("numbytes", "1")],
            &[("size", "1"), ("offset", "0"), ("offset", "1")],
            &[("major", "1"), ("minor", "0")],
            &[("major", "1"), ("minor", "0"), ("realsize", "1"), ("map", "0,1")],
            &[("major", "2"), ("minor", "0"), ("realsize", "1")],
            &[("major", "1"), ("minor", "1"), ("realsize", "1")],
            &[("major", "-1")],
            &[("name", "")],
            &[("name", "a\0b")],
            &[("unheard", "1")],
        ] {
            assert!(resolved(records).is_err(), "{records:?}");
        }
    }

    #[test]
    fn a_map_in_the_data_may_cross_blocks_and_is_bounded() {
        let read = |text: &str| {
            let mut data = text.as_bytes().to_vec();
            data.resize(data.len().next_multiple_of(512), 0);
            let mut blocks = data.chunks_exact(512);
            let map = read_map(|block| {
                block.copy_from_slice(blocks.next().ok_or_else(malformed)?);
                Ok(())
            });
            map.map(|map| (map, blocks.len()))
        };
        assert_eq!(read("1\n0\n5\n").expect("one"), (vec![(0, 5)], 0));
        let many: String = (0..200).map(|n| format!("{n}\n0\n")).collect();
        let (map, left) = read(&format!("200\n{many}")).expect("many");
        assert_eq!((map.len(), map[199], left), (200, (199, 0), 0));
        for text in [
            "",
            "1\n0\n",
            "x\n",
            "-1\n",
            "65537\n",
            "000000000000000000001\n",
            "1\n0\n99999999999999999999\n",
        ] {
            assert!(read(text).is_err(), "{text:?}");
        }
    }
}

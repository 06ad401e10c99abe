// SPDX-License-Identifier: Apache-2.0
//! Writes tar archives: ustar, with a pax header where ustar can't say it.
//! The same entries always give the same bytes.

use std::io::{self, Read, Seek, SeekFrom, Write};

use super::{Entry, Kind, header::BLOCK};

/// The largest number of eleven and of seven octal digits.
const MAX_SIZE: u64 = 0o77_777_777_777;
const MAX_ID: u32 = 0o7_777_777;
const NAME: usize = 100;
const PREFIX: usize = 155;
/// Data are copied in pieces of this size.
const CHUNK: usize = 64 << 10;

/// Writes entry after entry.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
}

impl<W: Write> Writer<W> {
    /// Starts an archive. Headers are written in pieces of 512 bytes: `to`
    /// should be buffered.
    pub fn new(to: W) -> Self {
        Self { to }
    }

    /// Writes an entry without data.
    ///
    /// # Errors
    /// Those of the writer, and `InvalidInput` for what no header can say.
    pub fn append(&mut self, entry: &Entry) -> io::Result<()> {
        self.append_file(&Entry { size: 0, ..entry.clone() }, &mut io::empty())
    }

    /// Writes an entry and its data: `entry.size` bytes, whatever `data` has.
    /// What it lacks is made up with zeros (the file has shrunk meanwhile).
    ///
    /// # Errors
    /// Those of the writer and of `data`, `InvalidInput` for what no header
    /// can say.
    pub fn append_file(&mut self, entry: &Entry, data: &mut dyn Read) -> io::Result<()> {
        self.header(entry, Vec::new())?;
        self.data(entry.size, data)
    }

    /// Writes a file with holes: where its data are and those data alone, as
    /// GNU tar does it (pax, version 1.0). `pieces` are offsets and lengths, in
    /// their order, within `entry.size`.
    ///
    /// # Errors
    /// As [`Writer::append_file`].
    pub fn append_sparse(
        &mut self,
        entry: &Entry,
        pieces: &[(u64, u64)],
        data: &mut (impl Read + Seek),
    ) -> io::Result<()> {
        let mut pieces = pieces.to_vec();
        // The last one says where the file ends.
        if pieces.last().is_none_or(|(offset, length)| offset + length < entry.size) {
            pieces.push((entry.size, 0));
        }
        let numbers = pieces.iter().flat_map(|(offset, length)| [*offset, *length]);
        let numbers = std::iter::once(pieces.len() as u64).chain(numbers);
        let mut map: Vec<u8> = numbers.flat_map(|number| format!("{number}\n").into_bytes()).collect();
        map.resize(map.len().next_multiple_of(BLOCK), 0);
        let mut records = Vec::new();
        record(&mut records, b"GNU.sparse.major", b"1");
        record(&mut records, b"GNU.sparse.minor", b"0");
        record(&mut records, b"GNU.sparse.name", &entry.path);
        record(&mut records, b"GNU.sparse.realsize", entry.size.to_string().as_bytes());
        // Who knows nothing of it finds the map under another name.
        let base = entry.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let path = [b"GNUSparseFile.0/", &base[..base.len().min(NAME / 2)]].concat();
        let stored = map.len() as u64 + pieces.iter().map(|(_, length)| length).sum::<u64>();
        self.header(&Entry { path, size: stored, ..entry.clone() }, records)?;
        self.to.write_all(&map)?;
        for (offset, length) in pieces {
            data.seek(SeekFrom::Start(offset))?;
            self.exactly(length, data)?;
        }
        self.pad(stored)
    }

    /// What is in front of an entry's data; `records` come after those that its
    /// header has no room for.
    fn header(&mut self, entry: &Entry, records: Vec<u8>) -> io::Result<()> {
        let mut header = Header([0; BLOCK]);
        let mut all = Vec::new();
        header.describe(entry, &mut all)?;
        for (name, value) in &entry.xattrs {
            record(&mut all, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
        all.extend(records);
        if !all.is_empty() {
            self.extension(&entry.path, &all)?;
        }
        self.to.write_all(&header.sealed())
    }

    /// Ends the archive. What was written to is given back, flushed.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn finish(mut self) -> io::Result<W> {
        self.to.write_all(&[0; 2 * BLOCK])?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn extension(&mut self, path: &[u8], records: &[u8]) -> io::Result<()> {
        let mut header = Header([0; BLOCK]);
        let tail = &path[path.len().saturating_sub(NAME - 12)..];
        header.0[..11].copy_from_slice(b"PaxHeaders/");
        header.0[11..11 + tail.len()].copy_from_slice(tail);
        header.number(100..108, 0o644);
        header.number(108..116, 0);
        header.number(116..124, 0);
        header.number(124..136, records.len() as u64);
        header.number(136..148, 0);
        header.0[156] = b'x';
        self.to.write_all(&header.sealed())?;
        self.data(records.len() as u64, &mut &records[..])
    }

    fn data(&mut self, size: u64, data: &mut dyn Read) -> io::Result<()> {
        self.exactly(size, data)?;
        self.pad(size)
    }

    fn exactly(&mut self, size: u64, data: &mut dyn Read) -> io::Result<()> {
        let mut buffer = vec![0_u8; CHUNK.min(usize::try_from(size).unwrap_or(CHUNK))];
        let mut left = size;
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let read = match data.read(&mut buffer[..wanted]) {
                Ok(read) => read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            if read == 0 {
                io::copy(&mut io::repeat(0).take(left), &mut self.to)?;
                break;
            }
            self.to.write_all(&buffer[..read])?;
            left -= read as u64;
        }
        Ok(())
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        io::copy(&mut io::repeat(0).take(padding), &mut self.to).map(drop)
    }
}

struct Header([u8; BLOCK]);

impl Header {
    fn describe(&mut self, entry: &Entry, records: &mut Vec<u8>) -> io::Result<()> {
        if entry.path.is_empty() || entry.path.contains(&0) || entry.link.contains(&0) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no name for a tar archive"));
        }
        if !self.path(&entry.path) {
            record(records, b"path", &entry.path);
        }
        if entry.link.len() > NAME {
            record(records, b"linkpath", &entry.link);
        }
        let link = &entry.link[..entry.link.len().min(NAME)];
        self.0[157..157 + link.len()].copy_from_slice(link);
        self.number(100..108, u64::from(entry.mode & 0o7777));
        for (field, key, id) in [(108..116, b"uid", entry.uid), (116..124, b"gid", entry.gid)] {
            if id > MAX_ID {
                record(records, key, id.to_string().as_bytes());
            }
            self.number(field, u64::from(id.min(MAX_ID)));
        }
        if entry.size > MAX_SIZE {
            record(records, b"size", entry.size.to_string().as_bytes());
        }
        self.number(124..136, entry.size.min(MAX_SIZE));
        let seconds = u64::try_from(entry.mtime.0).unwrap_or(0).min(MAX_SIZE);
        if i64::try_from(seconds) != Ok(entry.mtime.0) || entry.mtime.1 != 0 {
            record(records, b"mtime", time(entry.mtime).as_bytes());
        }
        self.number(136..148, seconds);
        self.0[156] = flag(entry.kind);
        let (major, minor) = entry.device;
        if major.max(minor) > MAX_ID {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a device number beyond tar's"));
        }
        self.number(329..337, u64::from(major));
        self.number(337..345, u64::from(minor));
        Ok(())
    }

    /// Whether the name fits, where needed into both of its fields.
    fn path(&mut self, path: &[u8]) -> bool {
        if path.len() <= NAME {
            self.0[..path.len()].copy_from_slice(path);
            return true;
        }
        let fits =
            |at: &usize| *at > 0 && *at <= PREFIX && path.len() - at - 1 <= NAME && at + 1 < path.len();
        let slashes = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
        match slashes.into_iter().find(fits) {
            Some(at) => {
                self.0[345..345 + at].copy_from_slice(&path[..at]);
                let name = &path[at + 1..];
                self.0[..name.len()].copy_from_slice(name);
                true
            }
            None => {
                self.0[..NAME].copy_from_slice(&path[..NAME]);
                false
            }
        }
    }

    fn number(&mut self, field: std::ops::Range<usize>, number: u64) {
        let width = field.len() - 1;
        let digits = format!("{number:0width$o}\0");
        self.0[field].copy_from_slice(digits.as_bytes());
    }

    fn sealed(mut self) -> [u8; BLOCK] {
        self.0[257..265].copy_from_slice(b"ustar\x0000");
        self.0[148..156].fill(b' ');
        let sum: u64 = self.0.iter().map(|&b| u64::from(b)).sum();
        self.0[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

fn flag(kind: Kind) -> u8 {
    match kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::Character => b'3',
        Kind::Block => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    }
}

/// `length key=value\n`, where the length counts its own digits.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// Seconds with a fraction: -2 s + 0.75 s is `-1.25`.
fn time((seconds, nanos): (i64, u32)) -> String {
    let (sign, seconds, nanos) = match (seconds < 0, nanos) {
        (false, nanos) => ("", seconds.unsigned_abs(), nanos),
        (true, 0) => ("-", seconds.unsigned_abs(), 0),
        (true, nanos) => ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanos),
    };
    if nanos == 0 {
        return format!("{sign}{seconds}");
    }
    let fraction = format!("{nanos:09}");
    format!("{sign}{seconds}.{}", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tar::Reader;

    fn entry() -> impl Strategy<Value = (Entry, Vec<u8>)> {
        let name = || prop::collection::vec(1_u8..=255, 1..400);
        let ids = (any::<u32>(), any::<u32>()).prop_map(|(a, b)| (a.min(u32::MAX - 1), b.min(u32::MAX - 1)));
        let times = (-(1_i64 << 40)..(1_i64 << 40), 0_u32..1_000_000_000);
        let xattr = (prop::collection::vec(b'a'..=b'z', 1..20), prop::collection::vec(any::<u8>(), 0..50));
        let data = prop::collection::vec(any::<u8>(), 0..2000);
        let kinds = prop::sample::select(vec![
            Kind::File,
            Kind::HardLink,
            Kind::Symlink,
            Kind::Character,
            Kind::Block,
            Kind::Directory,
            Kind::Fifo,
        ]);
        (kinds, name(), name(), ids, times, prop::collection::vec(xattr, 0..3), data, 0_u32..0o10000)
            .prop_map(|(kind, mut path, link, (uid, gid), mtime, xattrs, data, mode)| {
                // A file whose name ends so is a directory to every reader.
                if path.ends_with(b"/") {
                    path.push(b'x');
                }
                let device = if matches!(kind, Kind::Character | Kind::Block) { (7, 12) } else { (0, 0) };
                let data = if kind == Kind::File { data } else { Vec::new() };
                let link = if matches!(kind, Kind::HardLink | Kind::Symlink) { link } else { Vec::new() };
                let size = data.len() as u64;
                let entry =
                    Entry { path, link, kind, mode, uid, gid, mtime, device, size, xattrs, sparse: None };
                (entry, data)
            })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(entries in prop::collection::vec(entry(), 0..6)) {
            let mut writer = Writer::new(Vec::new());
            for (entry, data) in &entries {
                writer.append_file(entry, &mut &data[..]).expect("append");
            }
            let bytes = writer.finish().expect("finish");
            let mut reader = Reader::new(&bytes[..]);
            for (entry, data) in &entries {
                let read = reader.next_entry().expect("read");
                prop_assert_eq!(read.as_ref(), Some(entry));
                let mut read = vec![0; data.len()];
                let mut at = 0;
                while at < read.len() {
                    at += reader.read_data(&mut read[at..]).expect("data");
                }
                prop_assert_eq!(&read, data);
            }
            prop_assert!(reader.next_entry().expect("read").is_none());
        }
    }

    #[test]
    fn a_file_with_holes_is_read_back_by_us_by_gnu_tar_and_by_python() {
        let long = [b"d/".repeat(70), b"with holes".to_vec()].concat();
        let mut content = vec![0_u8; 400_000];
        content[70_000..70_005].copy_from_slice(b"first");
        content[200_000..300_000].fill(b'x');
        let pieces = [(69_632, 4096), (196_608, 104_000)];
        for (path, pieces, size) in
            [(&b"f"[..], &pieces[..], 400_000_u64), (&long, &pieces, 400_000), (b"a/none", &[], 1 << 40)]
        {
            let xattrs = vec![(b"user.a".to_vec(), b"1".to_vec())];
            let entry = Entry { path: path.to_vec(), size, mode: 0o644, xattrs, ..Entry::new(Kind::File) };
            let mut writer = Writer::new(Vec::new());
            writer.append_sparse(&entry, pieces, &mut io::Cursor::new(&content)).expect("append");
            writer.append(&Entry { path: b"after".to_vec(), ..Entry::new(Kind::File) }).expect("append");
            let bytes = writer.finish().expect("finish");
            assert!(bytes.len() < 150_000, "{}", bytes.len());
            let mut reader = Reader::new(&bytes[..]);
            let read = reader.next_entry().expect("read").expect("an entry");
            let ours = read.sparse.clone().expect("pieces");
            assert_eq!(ours[..pieces.len()], *pieces);
            assert_eq!(Entry { sparse: None, ..read }, entry);
            for (offset, length) in pieces {
                let mut data = vec![0; usize::try_from(*length).expect("small")];
                let mut at = 0;
                while at < data.len() {
                    at += reader.read_data(&mut data[at..]).expect("data");
                }
                let from = usize::try_from(*offset).expect("small");
                assert_eq!(data, content[from..from + data.len()]);
            }
            assert_eq!(reader.next_entry().expect("read").expect("the next").path, b"after");

            let dir = tempfile::tempdir().expect("tempdir");
            std::fs::write(dir.path().join("a.tar"), &bytes).expect("write");
            let python = "import sys,tarfile\nfor m in tarfile.open(sys.argv[1]):\n print(m.name, m.size)";
            let tar = dir.path().join("a.tar");
            let said = std::process::Command::new("python3").args(["-c", python]).arg(&tar).output();
            let name = String::from_utf8_lossy(path).into_owned();
            if let Ok(said) = said {
                assert_eq!(String::from_utf8_lossy(&said.stdout), format!("{name} {size}\nafter 0\n"));
            }
            if size > 400_000 {
                continue;
            }
            let gnu = std::process::Command::new("tar").arg("-xf").arg(&tar).current_dir(dir.path()).output();
            if let Ok(gnu) = gnu {
                assert!(gnu.status.success(), "{}", String::from_utf8_lossy(&gnu.stderr));
                assert!(std::fs::read(dir.path().join(&name)).expect("read") == content, "GNU tar");
            }
        }
    }

    #[test]
    fn a_file_that_shrinks_is_made_up_and_one_that_grows_cut() {
        let entry = Entry { path: b"f".to_vec(), size: 4, ..Entry::new(Kind::File) };
        for (data, read) in [(&b"ab"[..], b"ab\0\0"), (b"abcdef", b"abcd")] {
            let mut writer = Writer::new(Vec::new());
            writer.append_file(&entry, &mut &data[..]).expect("append");
            let bytes = writer.finish().expect("finish");
            assert_eq!(&bytes[512..516], read);
            assert_eq!(bytes.len(), 4 * 512);
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Tar archives: a reader of POSIX (ustar, pax) and GNU, and a [`Writer`].
//!
//! Our own because layers are hostile and exact at once: the lengths of
//! extension headers are bounded before anything is allocated, pax records are
//! read by their length (values hold newlines: `security.capability`), and
//! what parsers could disagree about is refused. It opens no file.

#[cfg(test)]
mod differential;
mod header;
mod pax;
#[cfg(test)]
mod raw;
mod sparse;
mod write;

use std::io::{self, BufRead, Read};

pub use self::write::Writer;
use self::{
    header::{BLOCK, Header},
    pax::Pax,
};

/// Largest pax header, long name or long link: 1 MiB, as Go's reader has it.
const MAX_EXTENSION: u64 = 1 << 20;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// Another name of an earlier entry.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Character,
    /// A block device.
    Block,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// Offset and length of a sparse file's pieces.
pub type Pieces = Vec<(u64, u64)>;

/// One member of an archive, without its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// As in the archive: neither cleaned nor checked, but for NULs.
    pub path: Vec<u8>,
    /// Target of a hard or symbolic link.
    pub link: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, 0 to 07777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds and nanoseconds of the modification.
    pub mtime: (i64, u32),
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Bytes of the file that it describes.
    pub size: u64,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where its data belong, when the file has holes: offset and length.
    pub sparse: Option<Pieces>,
}

impl Entry {
    /// Of this kind, and nothing else.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self {
            path: Vec::new(),
            link: Vec::new(),
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            device: (0, 0),
            size: 0,
            xattrs: Vec::new(),
            sparse: None,
        }
    }
}

/// Reads entry after entry.
#[derive(Debug)]
pub struct Reader<R> {
    source: Counted<R>,
    /// Data of the current entry that weren't read yet.
    remaining: u64,
    /// Zeros after the data, up to the next block.
    padding: u64,
    finished: bool,
}

impl<R: Read> Reader<R> {
    /// At the start of an archive. Headers are read in pieces of 512 bytes:
    /// `source` should be buffered.
    pub fn new(source: R) -> Self {
        Self { source: Counted { source, position: 0 }, remaining: 0, padding: 0, finished: false }
    }

    /// The next entry; what is left of the current one's data is skipped.
    ///
    /// # Errors
    /// `InvalidData` for what isn't sound tar, `UnexpectedEof` when it ends too
    /// early, and those of the source.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        loop {
            let Some(header) = self.next_header()? else {
                return if extensions.is_empty() {
                    Ok(None)
                } else {
                    Err(bad("extension headers without an entry"))
                };
            };
            match header.kind() {
                b'x' => {
                    extensions.pax = Some(unique(&extensions.pax, Pax::parse(&self.extension(&header)?)?)?)
                }
                b'L' => extensions.path = Some(unique(&extensions.path, self.long_name(&header)?)?),
                b'K' => extensions.link = Some(unique(&extensions.link, self.long_name(&header)?)?),
                // A global header speaks of every entry after it to some
                // readers, and to none that unpack layers.
                b'g' => {
                    let global = Pax::parse(&self.extension(&header)?)?;
                    if global.frames() || !extensions.is_empty() {
                        return Err(bad("a global header that changes names or sizes"));
                    }
                }
                _ => return self.entry(&header, extensions).map(Some),
            }
        }
    }

    /// Reads the current entry's data, in the archive's order.
    ///
    /// # Errors
    /// `UnexpectedEof` when the archive ends within them, the source's.
    pub fn read_data(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.source.read(&mut buffer[..wanted])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.remaining -= read as u64;
        Ok(read)
    }

    /// What is at hand of the current entry's data, in the archive's order.
    /// Empty at their end. [`Reader::consume`] goes past it.
    ///
    /// # Errors
    /// As [`Reader::read_data`].
    pub fn data(&mut self) -> io::Result<&[u8]>
    where
        R: BufRead,
    {
        let left = usize::try_from(self.remaining).unwrap_or(usize::MAX);
        if left == 0 {
            return Ok(&[]);
        }
        let piece = self.source.source.fill_buf()?;
        if piece.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(&piece[..left.min(piece.len())])
    }

    /// Goes past so many bytes of what [`Reader::data`] gave.
    pub fn consume(&mut self, amount: usize)
    where
        R: BufRead,
    {
        self.source.source.consume(amount);
        self.source.position += amount as u64;
        self.remaining = self.remaining.saturating_sub(amount as u64);
    }

    /// Reads what follows the archive's end; the sender may still be writing.
    ///
    /// # Errors
    /// The source's.
    pub fn drain(&mut self) -> io::Result<()> {
        io::copy(&mut self.source, &mut io::sink()).map(drop)
    }

    /// Where the source stands: before the first read, where the current
    /// entry's data begin.
    pub fn position(&self) -> u64 {
        self.source.position
    }

    /// The source, wherever it stands.
    pub fn into_inner(self) -> R {
        self.source.source
    }

    fn next_header(&mut self) -> io::Result<Option<Header>> {
        self.skip()?;
        if self.finished {
            return Ok(None);
        }
        let mut block = [0_u8; BLOCK];
        if read_block(&mut self.source, &mut block)? && !is_zero(&block) {
            return Header::parse(block).map(Some);
        }
        self.finished = true;
        // Two blocks of zeros end an archive. Of one alone some readers say the
        // same, and some go on behind it.
        if read_block(&mut self.source, &mut block)? && !is_zero(&block) {
            return Err(bad("content after a single block of zeros"));
        }
        Ok(None)
    }

    fn skip(&mut self) -> io::Result<()> {
        let rest = self.remaining.checked_add(self.padding).ok_or_else(|| bad("entry too large"))?;
        let skipped = io::copy(&mut (&mut self.source).take(rest), &mut io::sink())?;
        // The last entry's padding may be cut off, its data may not.
        if skipped < self.remaining {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        (self.remaining, self.padding) = (0, 0);
        Ok(())
    }

    fn expect_data(&mut self, size: u64) {
        self.remaining = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn extension(&mut self, header: &Header) -> io::Result<Vec<u8>> {
        let size = header.size()?;
        if size > MAX_EXTENSION {
            return Err(bad("extension header too large"));
        }
        self.expect_data(size);
        let mut data = Vec::new();
        (&mut self.source).take(size).read_to_end(&mut data)?;
        if (data.len() as u64) < size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.remaining = 0;
        Ok(data)
    }

    fn long_name(&mut self, header: &Header) -> io::Result<Vec<u8>> {
        let mut name = self.extension(header)?;
        let end = name.iter().position(|&b| b == 0).unwrap_or(name.len());
        name.truncate(end);
        Ok(name)
    }

    fn entry(&mut self, header: &Header, extensions: Extensions) -> io::Result<Entry> {
        let mut pax = extensions.pax.unwrap_or_default();
        // The header of a sparse file has a name that is made up.
        let named = pax.sparse.as_mut().and_then(|sparse| sparse.name.take());
        let path = agreed(extensions.path, named.or(pax.path))?.map_or_else(|| header.path(), Ok)?;
        let link = agreed(extensions.link, pax.link)?.unwrap_or_else(|| header.link());
        let stored = pax.size.map_or_else(|| header.size(), Ok)?;
        let kind = entry_kind(header.kind(), &path)?;
        // Readers differ in whether it is there. A hard link may have its file's
        // size, and a directory any.
        if stored > 0 && matches!(kind, Kind::Symlink | Kind::Character | Kind::Block | Kind::Fifo) {
            return Err(bad("data of an entry that can have none"));
        }
        if kind != Kind::File && pax.sparse.is_some() {
            return Err(bad("holes in what is no file"));
        }
        let (sparse, size) = self.sparse(header, pax.sparse, stored)?;
        // Only files have data, whatever the size says.
        let size = if kind == Kind::File { size } else { 0 };
        if kind != Kind::File {
            self.expect_data(0);
        }
        Ok(Entry {
            path,
            link,
            kind,
            mode: header.mode()?,
            uid: pax.uid.map_or_else(|| header.uid(), Ok)?,
            gid: pax.gid.map_or_else(|| header.gid(), Ok)?,
            mtime: pax.mtime.map_or_else(|| header.mtime().map(|seconds| (seconds, 0)), Ok)?,
            device: header.device(kind)?,
            size,
            xattrs: pax.xattrs,
            sparse,
        })
    }

    /// Goes to the `stored` bytes of an entry's data. Where they belong, if the
    /// file has holes, and the size that it unfolds to.
    fn sparse(
        &mut self,
        header: &Header,
        records: Option<sparse::Records>,
        stored: u64,
    ) -> io::Result<(Option<Pieces>, u64)> {
        let (pieces, size) = match (header.kind() == b'S', records) {
            (false, None) => {
                self.expect_data(stored);
                return Ok((None, stored));
            }
            (false, Some(records)) => {
                let (map, size) = records.resolve()?;
                self.expect_data(stored);
                let pieces = match map {
                    sparse::Map::Here(pieces) => pieces,
                    sparse::Map::InData => sparse::read_map(|block| self.read_whole(block))?,
                };
                (pieces, size)
            }
            // The map lies where POSIX has a part of the name.
            (true, None) if header.is_gnu() => {
                let pieces = self.old_map(header)?;
                self.expect_data(stored);
                (pieces, header.real_size()?)
            }
            (true, _) => return Err(bad("unknown format of a sparse file")),
        };
        sparse::check(&pieces, self.remaining, size)?;
        Ok((Some(pieces), size))
    }

    /// Reads a block of the current entry's data.
    fn read_whole(&mut self, block: &mut [u8; BLOCK]) -> io::Result<()> {
        let mut filled = 0;
        while filled < BLOCK {
            match self.read_data(&mut block[filled..])? {
                0 => return Err(bad("sparse file without its map")),
                read => filled += read,
            }
        }
        Ok(())
    }

    /// The map of an old GNU sparse file, which goes on in blocks of its own.
    fn old_map(&mut self, header: &Header) -> io::Result<Pieces> {
        let mut pieces = header.sparse_pieces()?;
        let mut more = header.is_extended();
        while more {
            let mut block = [0_u8; BLOCK];
            self.source.read_exact(&mut block)?;
            more = header::extended_pieces(&block, &mut pieces)?;
            if pieces.len() > sparse::MAX_PIECES {
                return Err(bad("sparse file with too many pieces"));
            }
        }
        Ok(pieces)
    }
}

/// A name that two formats may have given: readers differ in which one they
/// believe.
fn agreed(gnu: Option<Vec<u8>>, pax: Option<Vec<u8>>) -> io::Result<Option<Vec<u8>>> {
    match (gnu, pax) {
        (Some(gnu), Some(pax)) if gnu != pax => Err(bad("an entry with two names")),
        (gnu, pax) => Ok(gnu.or(pax)),
    }
}

/// Counts what is read through it.
#[derive(Debug)]
struct Counted<R> {
    source: R,
    position: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.position += read as u64;
        Ok(read)
    }
}

#[derive(Debug, Default)]
struct Extensions {
    pax: Option<Pax>,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl Extensions {
    fn is_empty(&self) -> bool {
        self.pax.is_none() && self.path.is_none() && self.link.is_none()
    }
}

/// Parsers disagree about which of two extension headers counts.
fn unique<T>(before: &Option<T>, new: T) -> io::Result<T> {
    if before.is_some() { Err(bad("two extension headers of one kind for an entry")) } else { Ok(new) }
}

fn entry_kind(flag: u8, path: &[u8]) -> io::Result<Kind> {
    Ok(match flag {
        b'0' | 0 | b'7' | b'S' if flag != b'S' && path.last() == Some(&b'/') => Kind::Directory,
        b'0' | 0 | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::Character,
        b'4' => Kind::Block,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        other => return Err(bad(&format!("unsupported entry type {:?}", char::from(other)))),
    })
}

fn is_zero(block: &[u8; BLOCK]) -> bool {
    block.iter().all(|&b| b == 0)
}

/// A number as extension headers have it.
fn decimal(value: &[u8]) -> io::Result<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| digits);
    text.and_then(|text| text.parse().ok()).ok_or_else(|| bad("malformed number in an extension header"))
}

/// Reads a whole block; `false` at the end of the stream.
fn read_block(source: &mut impl Read, block: &mut [u8; BLOCK]) -> io::Result<bool> {
    let mut filled = 0;
    while filled < BLOCK {
        match source.read(&mut block[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => filled += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(true)
}

/// What isn't sound tar.
fn bad(words: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, words.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(super) fn all(bytes: &[u8]) -> io::Result<Vec<(Entry, Vec<u8>)>> {
        let mut reader = Reader::new(bytes);
        let mut entries = Vec::new();
        while let Some(entry) = reader.next_entry()? {
            let mut data = Vec::new();
            let mut buffer = [0_u8; 700];
            loop {
                match reader.read_data(&mut buffer)? {
                    0 => break,
                    n => data.extend_from_slice(&buffer[..n]),
                }
            }
            entries.push((entry, data));
        }
        Ok(entries)
    }

    fn header(kind: ::tar::EntryType, size: u64) -> ::tar::Header {
        let mut header = ::tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o4755);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(9);
        header
    }

    #[test]
    fn what_the_tar_crate_writes_is_read() {
        let mut builder = ::tar::Builder::new(Vec::new());
        let long = format!("{}/file", "d".repeat(200));
        builder.append_data(&mut header(::tar::EntryType::Regular, 5), "a/b", &b"hello"[..]).expect("append");
        let mut gnu = ::tar::Header::new_gnu();
        gnu.set_size(0);
        gnu.set_mode(0o644);
        builder.append_data(&mut gnu, &long, &b""[..]).expect("append");
        builder
            .append_pax_extensions([
                ("mtime", &b"1.5"[..]),
                ("SCHILY.xattr.user.x", &b"a\nb=\0"[..]),
                ("uid", b"70000"),
            ])
            .expect("pax");
        builder.append_data(&mut header(::tar::EntryType::Directory, 0), "dir/", &b""[..]).expect("append");
        builder.append_link(&mut header(::tar::EntryType::Symlink, 0), "ln", "../x").expect("append");
        let entries = all(&builder.into_inner().expect("finish")).expect("read");
        let (file, data) = &entries[0];
        assert_eq!(
            (&*file.path, &**data, file.kind, file.mode),
            (&b"a/b"[..], &b"hello"[..], Kind::File, 0o4755)
        );
        assert_eq!((file.uid, file.gid, file.mtime), (7, 8, (9, 0)));
        assert_eq!(entries[1].0.path, long.as_bytes());
        let dir = &entries[2].0;
        assert_eq!((dir.kind, dir.mtime, dir.uid), (Kind::Directory, (1, 500_000_000), 70000));
        assert_eq!(dir.xattrs, [(b"user.x".to_vec(), b"a\nb=\0".to_vec())]);
        assert_eq!((entries[3].0.kind, &*entries[3].0.link), (Kind::Symlink, &b"../x"[..]));
    }

    #[test]
    fn what_is_no_sound_archive_is_refused() {
        let mut builder = ::tar::Builder::new(Vec::new());
        builder
            .append_data(&mut header(::tar::EntryType::Regular, 600), "a", &[1_u8; 600][..])
            .expect("append");
        let good = builder.into_inner().expect("finish");
        assert_eq!(all(&good).expect("read")[0].1.len(), 600);
        for cut in [1, 100, 511, 513, 1000, 1111] {
            let error = all(&good[..cut]).expect_err("cut");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{cut}");
        }
        let mut flipped = good.clone();
        flipped[0] ^= 1;
        assert_eq!(all(&flipped).expect_err("checksum").kind(), io::ErrorKind::InvalidData);
        let mut huge = header(::tar::EntryType::GNULongName, 1 << 31);
        huge.set_cksum();
        assert_eq!(all(huge.as_bytes()).expect_err("huge name").kind(), io::ErrorKind::InvalidData);
        let mut unknown = header(::tar::EntryType::new(b'V'), 0);
        unknown.set_cksum();
        assert_eq!(all(unknown.as_bytes()).expect_err("type").kind(), io::ErrorKind::InvalidData);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(mut bytes in proptest::collection::vec(any::<u8>(), 512..2048)) {
            let _refused = all(&bytes);
            // With a right checksum the header itself is reached.
            if let Some(block) = bytes.first_chunk_mut::<512>() {
                let mut header = ::tar::Header::new_ustar();
                header.as_mut_bytes().copy_from_slice(block);
                header.set_cksum();
                block.copy_from_slice(header.as_bytes());
            }
            let _refused = all(&bytes);
        }

        #[test]
        fn no_record_makes_the_pax_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _refused = Pax::parse(&bytes);
        }
    }
}

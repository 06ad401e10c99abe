// SPDX-License-Identifier: Apache-2.0
//! pax extended headers: `length key=value\n` records.

use std::io;

use super::{bad, decimal, header::id, sparse};

const XATTR: &[u8] = b"SCHILY.xattr.";
const SPARSE: &[u8] = b"GNU.sparse.";
/// Names and values of one entry's extended attributes, in all.
const MAX_XATTRS: usize = 64 << 10;

/// What an extended header says of the entry after it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mtime: Option<(i64, u32)>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: Option<sparse::Records>,
}

impl Pax {
    pub(super) fn parse(mut data: &[u8]) -> io::Result<Self> {
        let mut pax = Self::default();
        let mut xattr_bytes = 0;
        while !data.is_empty() {
            let (key, value, rest) = record(data)?;
            data = rest;
            match key {
                b"path" => pax.path = name(value)?,
                b"linkpath" => pax.link = name(value)?,
                b"size" => pax.size = Some(decimal(value)?),
                b"uid" => pax.uid = Some(id(signed(value)?)?),
                b"gid" => pax.gid = Some(id(signed(value)?)?),
                b"mtime" => pax.mtime = Some(time(value)?),
                _ => {
                    if let Some(key) = key.strip_prefix(SPARSE) {
                        pax.sparse.get_or_insert_default().take(key, value)?;
                    } else if let Some(attribute) = key.strip_prefix(XATTR) {
                        xattr_bytes += attribute.len() + value.len();
                        pax.xattrs.push((attribute.to_vec(), value.to_vec()));
                    }
                }
            }
            if xattr_bytes > MAX_XATTRS {
                return Err(bad("extended attributes too large"));
            }
        }
        Ok(pax)
    }

    /// Whether it says where an entry's data end, or what it is called.
    pub(super) fn frames(&self) -> bool {
        self.path.is_some() || self.link.is_some() || self.size.is_some() || self.sparse.is_some()
    }
}

/// One record and what follows it. Its own length, not a newline, ends it.
fn record(data: &[u8]) -> io::Result<(&[u8], &[u8], &[u8])> {
    let malformed = || bad("malformed pax record");
    let space = data.iter().take(8).position(|&b| b == b' ').ok_or_else(malformed)?;
    let length = usize::try_from(decimal(&data[..space])?).map_err(|_| malformed())?;
    if length <= space + 1 || length > data.len() {
        return Err(malformed());
    }
    let (record, rest) = data.split_at(length);
    let record = record[space + 1..].strip_suffix(b"\n").ok_or_else(malformed)?;
    let equals = record.iter().position(|&b| b == b'=').filter(|&at| at > 0).ok_or_else(malformed)?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    if key.contains(&0) { Err(malformed()) } else { Ok((key, value, rest)) }
}

/// An empty value takes an earlier one back.
fn name(value: &[u8]) -> io::Result<Option<Vec<u8>>> {
    match value {
        [] => Ok(None),
        value if value.contains(&0) => Err(bad("name with a NUL")),
        value => Ok(Some(value.to_vec())),
    }
}

fn signed(value: &[u8]) -> io::Result<i64> {
    i64::try_from(decimal(value)?).map_err(|_| bad("number out of range"))
}

/// Seconds with a fraction, possibly before 1970: `-1.25` is -2 s + 0.75 s.
fn time(value: &[u8]) -> io::Result<(i64, u32)> {
    let malformed = || bad("malformed time in a pax record");
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(value) => (true, value),
        None => (false, value),
    };
    let mut parts = value.splitn(2, |&b| b == b'.');
    let seconds = signed(parts.next().unwrap_or_default())?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(malformed());
    }
    let nanos =
        (0..9).fold(0_u32, |nanos, at| nanos * 10 + fraction.get(at).map_or(0, |d| u32::from(d - b'0')));
    Ok(match (negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_end_where_their_length_says() {
        let pax = Pax::parse(b"26 SCHILY.xattr.user.a=\n\n\n12 path=a/b\n").expect("valid");
        assert_eq!(pax.xattrs, [(b"user.a".to_vec(), b"\n\n".to_vec())]);
        assert_eq!(pax.path.as_deref(), Some(&b"a/b"[..]));
    }

    #[test]
    fn lying_records_are_refused() {
        for bad in [
            &b"99 path=a\n"[..],
            b"99999999999 path=a\n",
            b"10 path=ab",
            b"8 path=a\n",
            b"0 path=a\n",
            b"x path=a\n",
            b"5 a=\n\n",
            b"6 =ab\n",
            b"11 path=a\0b\n",
            b"9 size=x\n",
            b"18 uid=4294967295\n",
            b"18 uid=4294967296\n",
            b"10 uid=-1\n",
            b"12 mtime=1e3\n",
            b"25 GNU.sparse.unheard=1\n",
            b"22 GNU.sparse.map=0,1,\n",
        ] {
            assert!(Pax::parse(bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn times_have_nanoseconds_and_may_lie_before_1970() {
        assert_eq!(time(b"1.000000001").ok(), Some((1, 1)));
        assert_eq!(time(b"12.5").ok(), Some((12, 500_000_000)));
        assert_eq!(time(b"-1.25").ok(), Some((-2, 750_000_000)));
        assert_eq!(time(b"-3").ok(), Some((-3, 0)));
        assert_eq!(time(b"1.1234567899").ok(), Some((1, 123_456_789)));
    }
}

// SPDX-License-Identifier: Apache-2.0
//! The 512 bytes in front of each member (POSIX.1-2017 pax(1), and GNU's).

use std::io;

use super::{Kind, bad};

/// Headers and data come in blocks of this size.
pub(super) const BLOCK: usize = 512;

/// A header whose checksum is right.
#[derive(Debug)]
pub(super) struct Header([u8; BLOCK]);

impl Header {
    pub(super) fn parse(block: [u8; BLOCK]) -> io::Result<Self> {
        let stored = number(&block[148..156])?;
        // The checksum counts itself as spaces. Some old writers summed signed
        // characters.
        let outside = || block[..148].iter().chain(&block[156..]);
        let unsigned: i64 = outside().map(|&b| i64::from(b)).sum::<i64>() + 8 * 32;
        let signed: i64 = outside().map(|&b| i64::from(b.cast_signed())).sum::<i64>() + 8 * 32;
        if stored == unsigned || stored == signed {
            Ok(Self(block))
        } else {
            Err(bad("header checksum is wrong"))
        }
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    /// Whether it is GNU's own format, which has other fields than POSIX's.
    pub(super) fn is_gnu(&self) -> bool {
        &self.0[257..265] == b"ustar  \0"
    }

    /// The name, with POSIX's prefix in front; GNU uses those bytes otherwise.
    pub(super) fn path(&self) -> io::Result<Vec<u8>> {
        let name = text(&self.0[..100]);
        let prefix = if &self.0[257..263] == b"ustar\0" { text(&self.0[345..500]) } else { b"" };
        if prefix.is_empty() { Ok(name.to_vec()) } else { Ok([prefix, b"/", name].concat()) }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    pub(super) fn mode(&self) -> io::Result<u32> {
        // Some writers put the file type's bits in as well.
        let mode = number(&self.0[100..108])?;
        u32::try_from(mode & 0o7777).map_err(|_| bad("mode out of range"))
    }

    pub(super) fn uid(&self) -> io::Result<u32> {
        id(number(&self.0[108..116])?)
    }

    pub(super) fn gid(&self) -> io::Result<u32> {
        id(number(&self.0[116..124])?)
    }

    pub(super) fn size(&self) -> io::Result<u64> {
        u64::try_from(number(&self.0[124..136])?).map_err(|_| bad("size below zero"))
    }

    pub(super) fn mtime(&self) -> io::Result<i64> {
        number(&self.0[136..148])
    }

    pub(super) fn device(&self, kind: Kind) -> io::Result<(u32, u32)> {
        if !matches!(kind, Kind::Character | Kind::Block) {
            return Ok((0, 0));
        }
        let part =
            |field: &[u8]| u32::try_from(number(field)?).map_err(|_| bad("device number out of range"));
        Ok((part(&self.0[329..337])?, part(&self.0[337..345])?))
    }

    /// The first pieces of an old GNU sparse file.
    pub(super) fn sparse_pieces(&self) -> io::Result<Vec<(u64, u64)>> {
        let mut found = Vec::new();
        pieces(&self.0[386..482], &mut found)?;
        Ok(found)
    }

    pub(super) fn is_extended(&self) -> bool {
        self.0[482] != 0
    }

    pub(super) fn real_size(&self) -> io::Result<u64> {
        u64::try_from(number(&self.0[483..495])?).map_err(|_| bad("size below zero"))
    }
}

/// More pieces from a block of their own; whether yet another follows.
pub(super) fn extended_pieces(block: &[u8; BLOCK], into: &mut Vec<(u64, u64)>) -> io::Result<bool> {
    pieces(&block[..504], into)?;
    Ok(block[504] != 0)
}

fn pieces(bytes: &[u8], into: &mut Vec<(u64, u64)>) -> io::Result<()> {
    for piece in bytes.chunks_exact(24) {
        let (offset, length) = piece.split_at(12);
        if offset[0] == 0 || length[0] == 0 {
            return Ok(());
        }
        let part = |field| u64::try_from(number(field)?).map_err(|_| bad("sparse piece below zero"));
        into.push((part(offset)?, part(length)?));
    }
    Ok(())
}

/// Owners that Linux can have; the last number means "leave as it is" to
/// chown and must never get there.
pub(super) fn id(number: i64) -> io::Result<u32> {
    match u32::try_from(number) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(bad("owner or group out of range")),
    }
}

/// Up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    &field[..end]
}

/// Octal digits, or GNU's binary form: the top bit set, then two's complement.
fn number(field: &[u8]) -> io::Result<i64> {
    if field[0] & 0x80 == 0 {
        return octal(field);
    }
    // Bit 6 is the sign.
    let negative = field[0] & 0x40 != 0;
    let first = if negative { field[0] | 0x80 } else { field[0] & 0x7f };
    let mut value = i128::from(if negative { first.cast_signed() } else { first.cast_signed() & 0x7f });
    for &byte in &field[1..] {
        value = (value << 8) | i128::from(byte);
        if value > i128::from(i64::MAX) || value < i128::from(i64::MIN) {
            return Err(bad("number out of range"));
        }
    }
    i64::try_from(value).map_err(|_| bad("number out of range"))
}

fn octal(field: &[u8]) -> io::Result<i64> {
    let is_fill = |b: &u8| matches!(b, b' ' | 0);
    let start = field.iter().position(|b| !is_fill(b)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(is_fill).unwrap_or(digits.len());
    digits[..end].iter().try_fold(0_i64, |value, &digit| match digit {
        b'0'..=b'7' => value
            .checked_mul(8)
            .and_then(|value| value.checked_add(i64::from(digit - b'0')))
            .ok_or_else(|| bad("number out of range")),
        _ => Err(bad("not an octal number")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"    644 ", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"12x4567\0", None),
            (b"-000001\0", None),
        ] {
            assert_eq!(number(field).ok(), value, "{field:?}");
        }
        assert!(id(-1).is_err() && id(i64::from(u32::MAX)).is_err() && id(1 << 32).is_err());
        assert_eq!(id(4_294_967_294).ok(), Some(u32::MAX - 1));
    }
}

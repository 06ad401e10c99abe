// SPDX-License-Identifier: Apache-2.0
//! Lines out of a stream of bytes that arrives in chunks of any size.

/// Longest piece of a line, in bytes; longer lines come in several. CRI and
/// Docker agree on the number.
pub const MAX_LINE: usize = 16 * 1024;

/// Why a piece of a line ends where it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A newline followed; it isn't part of the piece.
    Newline,
    /// The line was too long, or the stream ended within it.
    Cut,
}

/// The part of a line that has been read so far.
#[derive(Debug, Default)]
pub struct Splitter {
    pending: Vec<u8>,
}

impl Splitter {
    /// Takes bytes and emits the pieces that are complete with them.
    ///
    /// What is emitted depends on the stream only, not on how it was cut into
    /// chunks.
    pub fn push(&mut self, mut bytes: &[u8], mut emit: impl FnMut(&[u8], End)) {
        while !bytes.is_empty() {
            let room = MAX_LINE - self.pending.len();
            // One byte more: a newline there ends a line of exactly MAX_LINE.
            let newline = bytes.iter().take(room + 1).position(|&b| b == b'\n');
            if let Some(at) = newline {
                self.take(&bytes[..at], |line| emit(line, End::Newline));
                bytes = &bytes[at + 1..];
            } else if bytes.len() > room {
                self.pending.extend_from_slice(&bytes[..room]);
                let cut = whole_characters(&self.pending);
                emit(&self.pending[..cut], End::Cut);
                self.pending.drain(..cut);
                bytes = &bytes[room..];
            } else {
                self.pending.extend_from_slice(bytes);
                return;
            }
        }
    }

    /// What was taken and not emitted yet.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        &self.pending
    }

    /// The stream has ended: emits what is left of a line without newline.
    pub fn finish(&mut self, mut emit: impl FnMut(&[u8], End)) {
        if !self.pending.is_empty() {
            emit(&self.pending, End::Cut);
            self.pending = Vec::new();
        }
    }

    /// Passes what is pending and `rest` on as one, without a copy where
    /// nothing is pending.
    fn take(&mut self, rest: &[u8], emit: impl FnOnce(&[u8])) {
        if self.pending.is_empty() {
            return emit(rest);
        }
        self.pending.extend_from_slice(rest);
        emit(&self.pending);
        self.pending.clear();
    }
}

/// The length of `bytes` without a UTF-8 sequence that its end would tear.
fn whole_characters(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let width = match bytes[bytes.len() - back] {
            0x80..=0xbf => continue,
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => 1,
        };
        return if width > back { bytes.len() - back } else { bytes.len() };
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(input: &[u8]) -> Vec<(Vec<u8>, End)> {
        let mut out = Vec::new();
        let mut splitter = Splitter::default();
        splitter.push(input, |line, end| out.push((line.to_vec(), end)));
        splitter.finish(|line, end| out.push((line.to_vec(), end)));
        out
    }

    #[test]
    fn lines_of_the_limit_and_one_more() {
        let exact = vec![b'a'; MAX_LINE];
        assert_eq!(split(&[&exact[..], b"\n"].concat()), [(exact.clone(), End::Newline)]);
        assert_eq!(
            split(&[&exact[..], b"b\n"].concat()),
            [(exact.clone(), End::Cut), (b"b".to_vec(), End::Newline)]
        );
        assert_eq!(split(&exact), [(exact, End::Cut)]);
    }

    #[test]
    fn empty_lines_are_lines() {
        assert_eq!(
            split(b"\n\na"),
            [(vec![], End::Newline), (vec![], End::Newline), (b"a".to_vec(), End::Cut)]
        );
        assert_eq!(split(b""), []);
    }

    #[test]
    fn a_cut_never_tears_a_character() {
        let line = format!("x{}\n", "€".repeat(6000));
        let pieces = split(line.as_bytes());
        assert!(pieces.iter().all(|(piece, _)| std::str::from_utf8(piece).is_ok()));
        assert_eq!(pieces.concat_pieces(), line.trim_end().as_bytes());
    }

    #[test]
    fn bytes_that_only_look_like_a_character_are_cut_at_the_limit() {
        let line = vec![0x80; MAX_LINE + 5];
        assert_eq!(split(&line)[0].0.len(), MAX_LINE);
    }

    trait Concat {
        fn concat_pieces(&self) -> Vec<u8>;
    }
    impl Concat for Vec<(Vec<u8>, End)> {
        fn concat_pieces(&self) -> Vec<u8> {
            self.iter().flat_map(|(piece, _)| piece.iter().copied()).collect()
        }
    }
}

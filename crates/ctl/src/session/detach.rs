// SPDX-License-Identifier: Apache-2.0
//! Detach keys: `ctrl-p,ctrl-q` typed in a row leave a container's terminal.

use std::str::FromStr;

/// A sequence of keys. An empty one never matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys(Vec<u8>);

impl FromStr for Keys {
    type Err = String;

    /// Comma-separated: a character, or `ctrl-` and one of `a-z @ [ \ ] ^ _`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        text.split(',').map(key).collect::<Result<_, _>>().map(Self)
    }
}

fn key(text: &str) -> Result<u8, String> {
    let unknown = || format!("Unknown character: '{text}'");
    if let [byte] = text.as_bytes() {
        return Ok(*byte);
    }
    match text.strip_prefix("ctrl-").map(str::as_bytes) {
        Some([byte @ (b'a'..=b'z' | b'@' | b'[' | b'\\' | b']' | b'^' | b'_')]) => Ok(byte & 0x1f),
        _ => Err(unknown()),
    }
}

/// Finds the keys in what is typed, and holds back what may be their start.
#[derive(Debug)]
pub(super) struct Detector {
    keys: Keys,
    matched: usize,
}

/// What to do with typed bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// Hand these on; may be none.
    Bytes(Vec<u8>),
    /// Hand these on, then detach.
    Detach(Vec<u8>),
}

impl Detector {
    pub(super) fn new(keys: Keys) -> Self {
        Self { keys, matched: 0 }
    }

    /// Takes in what was typed.
    pub(super) fn feed(&mut self, typed: &[u8]) -> Typed {
        let keys = &self.keys.0;
        let mut out = Vec::with_capacity(typed.len());
        for &byte in typed {
            // A broken sequence was input after all, up to where another one
            // may have begun.
            while self.matched > 0 && keys[self.matched] != byte {
                let shorter =
                    (1..self.matched).find(|skip| keys[*skip..self.matched] == keys[..self.matched - skip]);
                let skip = shorter.unwrap_or(self.matched);
                out.extend_from_slice(&keys[..skip]);
                self.matched -= skip;
            }
            if keys.get(self.matched) == Some(&byte) {
                self.matched += 1;
                if self.matched == keys.len() {
                    return Typed::Detach(out);
                }
            } else {
                out.push(byte);
            }
        }
        Typed::Bytes(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn detector(keys: &str) -> Detector {
        Detector::new(keys.parse().expect("keys"))
    }

    #[test]
    fn keys_are_parsed() {
        assert_eq!("ctrl-p,ctrl-q".parse(), Ok(Keys(vec![16, 17])));
        assert_eq!("a,ctrl-@,ctrl-[".parse(), Ok(Keys(vec![b'a', 0, 27])));
        assert_eq!("".parse(), Ok(Keys(vec![])));
        assert_eq!("ctrl-1".parse::<Keys>(), Err("Unknown character: 'ctrl-1'".into()));
        assert!("ctrl-".parse::<Keys>().is_err());
        assert!("a,,b".parse::<Keys>().is_err());
    }

    #[test]
    fn the_sequence_is_found_across_reads() {
        let mut d = detector("ctrl-p,ctrl-q");
        assert_eq!(d.feed(b"ls\n\x10"), Typed::Bytes(b"ls\n".into()));
        assert_eq!(d.feed(b"\x11rest"), Typed::Detach(vec![]));
    }

    #[test]
    fn a_broken_sequence_was_input() {
        let mut d = detector("ctrl-p,ctrl-q");
        assert_eq!(d.feed(b"\x10x"), Typed::Bytes(b"\x10x".into()));
        assert_eq!(d.feed(b"\x10\x10"), Typed::Bytes(b"\x10".into()));
        assert_eq!(d.feed(b"\x11"), Typed::Detach(vec![]));
    }

    #[test]
    fn a_sequence_may_begin_inside_a_broken_one() {
        let mut d = detector("a,a,b");
        assert_eq!(d.feed(b"aaab"), Typed::Detach(b"a".into()));
    }

    #[test]
    fn without_keys_everything_is_input() {
        assert_eq!(detector("").feed(b"\x10\x11"), Typed::Bytes(b"\x10\x11".into()));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_but_the_keys(typed in prop::collection::vec(b'a'..b'd', 0..40), step in 1_usize..6) {
            let mut d = detector("a,b,a,c");
            let mut out = Vec::new();
            let mut found = false;
            for part in typed.chunks(step) {
                match d.feed(part) {
                    Typed::Bytes(bytes) => out.extend(bytes),
                    Typed::Detach(bytes) => { out.extend(bytes); found = true; break }
                }
            }
            let at = typed.windows(4).position(|w| w == b"abac");
            prop_assert_eq!(found, at.is_some());
            match at {
                Some(at) => prop_assert_eq!(&out[..], &typed[..at]),
                None => prop_assert_eq!(&out[..], &typed[..typed.len() - d.matched]),
            }
        }
    }
}

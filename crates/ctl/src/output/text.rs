// SPDX-License-Identifier: Apache-2.0
//! Strings for people: cut, quoted, made harmless.

use std::{borrow::Cow, fmt::Write as _};

/// At most `width` characters; a cut is shown by `…`.
#[must_use]
pub fn ellipsis(text: &str, width: usize) -> Cow<'_, str> {
    if text.chars().count() <= width {
        return Cow::Borrowed(text);
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    Cow::Owned(cut)
}

/// `text` in double quotes, with everything escaped that would break a line
/// or move a cursor.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c => push_visible(&mut out, c, ""),
        }
    }
    out.push('"');
    out
}

/// `text` with control characters escaped, line breaks and tabs apart.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(|c: char| c.is_control() && c != '\n' && c != '\t') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        push_visible(&mut out, c, "\n\t");
    }
    Cow::Owned(out)
}

fn push_visible(out: &mut String, c: char, keep: &str) {
    match c {
        c if !c.is_control() || keep.contains(c) => out.push(c),
        '\n' => out.push_str("\\n"),
        '\t' => out.push_str("\\t"),
        '\r' => out.push_str("\\r"),
        c if u32::from(c) < 0x100 => {
            // Writing to a string can't fail.
            let _ = write!(out, "\\x{:02x}", u32::from(c));
        }
        c => {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_counts_characters() {
        assert_eq!(ellipsis("12345678901234567890", 20), "12345678901234567890");
        assert_eq!(ellipsis("123456789012345678901", 20), "1234567890123456789…");
        assert_eq!(ellipsis("ääää", 3), "ää…");
    }

    #[test]
    fn nothing_moves_the_cursor() {
        assert_eq!(quote("a\"b\\c\n\x1b[2J"), r#""a\"b\\c\n\x1b[2J""#);
        assert_eq!(visible("a\n\tb\x1b[2J\u{9b}"), "a\n\tb\\x1b[2J\\x9b");
        assert_eq!(visible("plain ä"), "plain ä");
    }
}

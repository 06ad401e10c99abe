// SPDX-License-Identifier: Apache-2.0
//! Fresh ids of containers and of what runs in them.

use std::str::FromStr;

use berth::ids::InvalidId;

use crate::error::{Error, Kind, Result};

/// 64 random hex digits. Never digits alone in the first twelve: those are a
/// default host name, and some programs take such a name for an address.
///
/// # Errors
/// `Internal` when the kernel gives no random bytes.
pub fn fresh<T: FromStr<Err = InvalidId>>() -> Result<T> {
    loop {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes)
            .map_err(|e| Error::new(Kind::Internal, "draw an id").with_source(e.to_string()))?;
        let text = hex::encode(bytes);
        if text.bytes().take(12).all(|b| b.is_ascii_digit()) {
            continue;
        }
        return text
            .parse()
            .map_err(|e: InvalidId| Error::new(Kind::Internal, "check a fresh id").with_source(e));
    }
}

/// Whether `text` may be of [`fresh`]'s making.
#[must_use]
pub fn is_fresh(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    #[test]
    fn ids_differ_and_have_64_digits() {
        use berth::ids::ContainerId;
        let fresh = || super::fresh::<ContainerId>().expect("id");
        let (a, b) = (fresh(), fresh());
        assert_ne!(a, b);
        assert!(super::is_fresh(a.as_str()), "{a}");
        for other in ["", "0123456789ab", &a.as_str().to_uppercase(), &format!("{a}0")] {
            assert!(!super::is_fresh(other), "{other}");
        }
    }
}

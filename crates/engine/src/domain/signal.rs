// SPDX-License-Identifier: Apache-2.0
//! Signal names and numbers.

use nix::sys::signal::Signal;

use crate::error::{Error, Kind, Result};

/// Real-time signals as user space numbers them: signal(7). 32 and 33 belong
/// to the C library.
const REAL_TIME_MIN: i32 = 34;
const REAL_TIME_MAX: i32 = 64;

/// The number of a signal given by name (`TERM`, `SIGTERM`, `sigterm`,
/// `RTMIN+3`) or number.
///
/// # Errors
/// `InvalidArgument` in Docker's words.
pub fn parse(text: &str) -> Result<i32> {
    let invalid = || Error::new(Kind::InvalidArgument, format!("invalid signal: {}", text.escape_debug()));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=REAL_TIME_MAX).contains(&number) { Ok(number) } else { Err(invalid()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(number) = real_time(name) {
        return Ok(number);
    }
    match name {
        "CLD" => return Ok(libc::SIGCHLD),
        "POLL" => return Ok(libc::SIGIO),
        _ => {}
    }
    format!("SIG{name}").parse::<Signal>().map(|signal| signal as i32).map_err(|_| invalid())
}

fn real_time(name: &str) -> Option<i32> {
    let number = match name {
        "RTMIN" => REAL_TIME_MIN,
        "RTMAX" => REAL_TIME_MAX,
        _ => match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX-")) {
            (Some(n), _) => REAL_TIME_MIN.checked_add(n.parse::<u8>().ok()?.into())?,
            (_, Some(n)) => REAL_TIME_MAX.checked_sub(n.parse::<u8>().ok()?.into())?,
            _ => return None,
        },
    };
    (REAL_TIME_MIN..=REAL_TIME_MAX).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn names_and_numbers_are_understood() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigkill", 9),
            ("9", 9),
            ("HUP", 1),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("RTMIN", 34),
            ("CLD", 17),
            ("64", 64),
        ] {
            assert_eq!(parse(text).expect(text), number, "{text}");
        }
    }

    #[test]
    fn others_are_refused_in_dockers_words() {
        for bad in ["", "0", "65", "-9", "FOO", "SIG", "RTMIN+31", "RTMAX-99", "TERM\n"] {
            let error = parse(bad).expect_err(bad);
            assert!(error.to_string().starts_with("invalid signal: "), "{error}");
        }
    }
}

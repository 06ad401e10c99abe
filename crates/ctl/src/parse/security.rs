// SPDX-License-Identifier: Apache-2.0
//! `--security-opt`: a seccomp profile is a file here and a text to the
//! engine, which knows all other options by itself.

use std::{fs, path::Path};

use super::Parsed;
use crate::error::os_words;

/// The option as the engine takes it.
///
/// # Errors
/// When the file of a profile can't be read, or is no JSON.
pub fn option(text: &str) -> Parsed<String> {
    match text.split_once(['=', ':']) {
        Some(("seccomp", file)) if !matches!(file, "" | "unconfined" | "builtin") => {
            Ok(format!("seccomp={}", profile(Path::new(file))?))
        }
        _ => Ok(text.to_owned()),
    }
}

/// The profile without its white space.
fn profile(file: &Path) -> Parsed<String> {
    let shown = file.display();
    let text =
        fs::read(file).map_err(|e| format!("opening seccomp profile ({shown}) failed: {}", os_words(&e)))?;
    let value: serde_json::Value = serde_json::from_slice(&text)
        .map_err(|e| format!("compacting json for seccomp profile ({shown}) failed: {e}"))?;
    Ok(value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_read_and_the_rest_left_alone() {
        let dir = tempfile::tempdir().expect("directory");
        let file = dir.path().join("profile.json");
        fs::write(
            &file,
            "{\n  \"defaultAction\": \"SCMP_ACT_ALLOW\",\n  \"value\": 18446744073709551615 }\n",
        )
        .expect("write");
        let expected = r#"seccomp={"defaultAction":"SCMP_ACT_ALLOW","value":18446744073709551615}"#;
        for sign in ['=', ':'] {
            assert_eq!(option(&format!("seccomp{sign}{}", file.display())).expect("read"), expected);
        }
        for same in
            ["seccomp=unconfined", "seccomp=builtin", "no-new-privileges", "apparmor=/a/b", "seccomp="]
        {
            assert_eq!(option(same).expect(same), same);
        }
    }

    #[test]
    fn what_cannot_be_read_is_said_as_docker_says_it() {
        let error = option("seccomp=/no/such/file").expect_err("no file");
        assert_eq!(error, "opening seccomp profile (/no/such/file) failed: no such file or directory");
        let error = option("seccomp=/proc/self/cmdline").expect_err("no JSON");
        assert!(
            error.starts_with("compacting json for seccomp profile (/proc/self/cmdline) failed: "),
            "{error}"
        );
    }
}

// SPDX-License-Identifier: Apache-2.0
//! `--security-opt`: what one of them asks for, in Docker's words.

use super::seccomp::{self, Profile};
use crate::error::{Error, Kind, Result};

/// A choice of `--security-opt`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecurityOpt {
    /// `no-new-privileges[=true|false]`.
    NoNewPrivileges(bool),
    /// `seccomp=…`.
    Seccomp(Filter),
    /// `systempaths=unconfined`: nothing in /proc and /sys is masked or
    /// read-only.
    SystemPathsUnconfined,
    /// `apparmor=NAME`; `unconfined` is a name.
    AppArmor(String),
    /// `label=disable`: there is no SELinux label, which is how it is.
    NoLabel,
    /// A part of an SELinux label: of no effect on a host without SELinux, as
    /// with Docker.
    Label(String),
}

/// Which filter of system calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// `unconfined`
    None,
    /// `builtin`
    BuiltIn,
    /// A profile, whose JSON the client sends.
    Profile(Box<Profile>),
}

/// What one `--security-opt` asks for.
///
/// # Errors
/// `InvalidArgument` for what isn't known, or is no profile.
pub fn security_opt(opt: &str) -> Result<SecurityOpt> {
    let unknown = || Err(invalid(format!("invalid --security-opt: {opt:?}")));
    if opt == "no-new-privileges" {
        return Ok(SecurityOpt::NoNewPrivileges(true));
    }
    let Some((name, value)) = opt.split_once(['=', ':']) else { return unknown() };
    match (name, value) {
        ("no-new-privileges", "true" | "True" | "TRUE" | "1") => Ok(SecurityOpt::NoNewPrivileges(true)),
        ("no-new-privileges", "false" | "False" | "FALSE" | "0") => Ok(SecurityOpt::NoNewPrivileges(false)),
        ("seccomp", "unconfined") => Ok(SecurityOpt::Seccomp(Filter::None)),
        ("seccomp", "builtin") => Ok(SecurityOpt::Seccomp(Filter::BuiltIn)),
        ("seccomp", text) => Ok(SecurityOpt::Seccomp(Filter::Profile(Box::new(seccomp::decode(text)?)))),
        ("systempaths", "unconfined") => Ok(SecurityOpt::SystemPathsUnconfined),
        ("apparmor", profile) if is_profile_name(profile) => Ok(SecurityOpt::AppArmor(profile.to_owned())),
        ("label", "disable") => Ok(SecurityOpt::NoLabel),
        ("label", part) if is_label_part(part) => Ok(SecurityOpt::Label(part.to_owned())),
        ("label", _) => Err(invalid(format!(
            "invalid --security-opt: {opt:?}: valid are 'disable', or 'user', 'role', 'type', 'level' and \
             'filetype' with ':' and a value"
        ))),
        _ => unknown(),
    }
}

/// `user:U`, `role:R`, `type:T`, `level:L` or `filetype:T`.
fn is_label_part(text: &str) -> bool {
    let parts = ["user", "role", "type", "level", "filetype"];
    text.split_once(':').is_some_and(|(name, value)| parts.contains(&name) && is_profile_name(value))
}

/// One word of printable characters: it is written to /proc.
fn is_profile_name(name: &str) -> bool {
    !name.is_empty() && name.len() < 256 && name.chars().all(|c| !c.is_whitespace() && !c.is_control())
}

fn invalid(message: String) -> Error {
    Error::new(Kind::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_word_of_dockers_is_known() {
        for (text, expected) in [
            ("no-new-privileges", SecurityOpt::NoNewPrivileges(true)),
            ("no-new-privileges:true", SecurityOpt::NoNewPrivileges(true)),
            ("no-new-privileges=false", SecurityOpt::NoNewPrivileges(false)),
            ("seccomp=unconfined", SecurityOpt::Seccomp(Filter::None)),
            ("seccomp:builtin", SecurityOpt::Seccomp(Filter::BuiltIn)),
            ("systempaths=unconfined", SecurityOpt::SystemPathsUnconfined),
            ("apparmor=my-profile", SecurityOpt::AppArmor("my-profile".to_owned())),
            ("label=disable", SecurityOpt::NoLabel),
            ("label=type:svirt_t", SecurityOpt::Label("type:svirt_t".to_owned())),
            ("label:level:s0:c1,c2", SecurityOpt::Label("level:s0:c1,c2".to_owned())),
        ] {
            assert_eq!(security_opt(text).expect(text), expected, "{text}");
        }
        let own = security_opt(r#"seccomp={"defaultAction":"SCMP_ACT_ALLOW"}"#).expect("a profile");
        assert!(matches!(own, SecurityOpt::Seccomp(Filter::Profile(_))));
    }

    #[test]
    fn everything_else_is_an_error_that_shows_it() {
        for text in [
            "",
            "disable",
            "no-new-privileges=perhaps",
            "systempaths=confined",
            "apparmor=",
            "apparmor=two words",
            "label=svirt_t",
            "label=type:",
            "label=colour:red",
            "label=user:a b",
            "fly=yes",
        ] {
            let error = security_opt(text).expect_err(text).to_string();
            assert!(error.starts_with(&format!("invalid --security-opt: {text:?}")), "{error}");
        }
        let error = security_opt("seccomp=/a/file").expect_err("no profile").to_string();
        assert!(error.starts_with("Decoding seccomp profile failed: "), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,40}") {
            let _ = security_opt(&text);
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
//! `-v host:container[:options]`: a bind mount in short form.

use std::path::Path;

use berth::api::v1::{Mount, mount::Type};

use super::Parsed;

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/// `/host:/container[:ro,rslave]`. A host path that starts with `.` is made
/// absolute; a missing one will be created. Named and anonymous volumes don't
/// exist in this version.
///
/// # Errors
/// When it isn't a bind mount, a path isn't absolute or an option is unknown.
pub fn volume(text: &str) -> Parsed<Mount> {
    let invalid = |why: &str| Err(format!("invalid volume specification: '{text}': {why}"));
    let mut parts = text.split(':');
    let (source, target, options) = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(source), Some(target), options, None) => (source, target, options.unwrap_or("")),
        (Some(_), None, ..) => {
            return invalid("anonymous volumes are not supported in this version: give /host/path:/path");
        }
        _ => return invalid("expected /host/path:/container/path[:options]"),
    };
    if source.is_empty() {
        return invalid("empty section between colons");
    }
    if !source.starts_with(['/', '.']) {
        return invalid(
            "named volumes are not supported in this version: give an absolute host path to bind mount",
        );
    }
    if !target.starts_with('/') {
        return invalid("mount path must be absolute");
    }
    if target.split('/').all(|part| part.is_empty() || part == ".") {
        return invalid("destination can't be '/'");
    }
    let mut mount = Mount {
        source: absolute(source)?,
        target: target.to_owned(),
        create_source: true,
        ..Mount::default()
    };
    mount.set_type(Type::Bind);
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match option {
            "ro" => mount.read_only = true,
            // SELinux labels (z, Z) and macOS's consistency modes change
            // nothing here, and scripts carry them around.
            "rw" | "z" | "Z" | "consistent" | "cached" | "delegated" => {}
            _ if PROPAGATIONS.contains(&option) => option.clone_into(&mut mount.propagation),
            _ => return invalid(&format!("unknown option '{option}'")),
        }
    }
    Ok(mount)
}

/// A path as the engine, which has another working directory, needs it.
///
/// # Errors
/// Names a path that can't be written so.
pub fn absolute(path: &str) -> Parsed<String> {
    let absolute =
        std::path::absolute(Path::new(path)).map_err(|e| format!("cannot make '{path}' absolute: {e}"))?;
    absolute.into_os_string().into_string().map_err(|_| format!("path of '{path}' is not valid UTF-8"))
}

pub(super) fn is_propagation(text: &str) -> bool {
    PROPAGATIONS.contains(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bind_mount_in_short_form() {
        let mount = volume("/a:/b:ro,rslave").expect("valid");
        assert_eq!((mount.source.as_str(), mount.target.as_str()), ("/a", "/b"));
        assert!(mount.read_only && mount.create_source);
        assert_eq!(mount.propagation, "rslave");
        assert_eq!(mount.r#type(), Type::Bind);
        assert!(!volume("/a:/b").expect("valid").read_only);
        assert!(!volume("/a:/b:rw,z").expect("valid").read_only);
    }

    #[test]
    fn a_relative_source_is_made_absolute() {
        let here = std::env::current_dir().expect("cwd").join("x");
        assert_eq!(volume("./x:/b").expect("valid").source, here.to_str().expect("text"));
    }

    #[test]
    fn what_this_version_lacks_is_said() {
        assert!(volume("data:/b").expect_err("named").contains("named volumes are not supported"));
        assert!(volume("/data").expect_err("anonymous").contains("anonymous volumes are not supported"));
    }

    #[test]
    fn malformed_ones_are_refused() {
        for bad in ["", "/a:b", "/a:/", "/a:/.", "/a:/b:ro:x", "/a:/b:what", ":/b"] {
            assert!(volume(bad).is_err(), "{bad}");
        }
    }
}

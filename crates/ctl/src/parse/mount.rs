// SPDX-License-Identifier: Apache-2.0
//! `--mount type=bind,src=…,dst=…` and `--tmpfs path[:options]`.

use berth::api::v1::{Mount, mount::Type};

use super::{Parsed, size, volume};

/// One `--mount` specification: comma-separated `key[=value]` fields, where a
/// field may stand in double quotes.
///
/// # Errors
/// When a field is unknown, malformed or missing.
pub fn mount(text: &str) -> Parsed<Mount> {
    let mut mount = Mount::default();
    let mut kind = None;
    let mut only_for = None;
    let mut recursive = None;
    for field in fields(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
            None => (field.to_ascii_lowercase(), None),
        };
        let needed = || value.ok_or_else(|| format!("invalid field '{field}' must be a key=value pair"));
        match key.as_str() {
            "type" => kind = Some(mount_type(needed()?)?),
            "source" | "src" => needed()?.clone_into(&mut mount.source),
            "target" | "destination" | "dst" => needed()?.clone_into(&mut mount.target),
            "readonly" | "ro" => mount.read_only = boolean(&key, value)?,
            "bind-propagation" => {
                mount.propagation = propagation(needed()?)?;
                only_for = Some((Type::Bind, "bind-*"));
            }
            "bind-recursive" => {
                recursive = Some(recursion(&key, needed()?)?);
                only_for = Some((Type::Bind, "bind-*"));
            }
            // Docker's older word.
            "bind-nonrecursive" => {
                if boolean(&key, value)? {
                    recursive = Some(Recursion::Disabled);
                }
                only_for = Some((Type::Bind, "bind-*"));
            }
            "bind-create-src" => {
                mount.create_source = boolean(&key, value)?;
                only_for = Some((Type::Bind, "bind-*"));
            }
            "tmpfs-size" => {
                mount.tmpfs_size =
                    size::memory(needed()?).map_err(|e| format!("invalid value for {key}: {e}"))?;
                only_for = Some((Type::Tmpfs, "tmpfs-*"));
            }
            "tmpfs-mode" => {
                let text = needed()?;
                mount.tmpfs_mode = octal(text).ok_or_else(|| format!("invalid value for {key}: {text}"))?;
                only_for = Some((Type::Tmpfs, "tmpfs-*"));
            }
            // Changes nothing on Linux; scripts carry it around.
            "consistency" => {}
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    let Some(kind) = kind else {
        return Err(
            "type is required: volumes are not supported in this version, so it is bind or tmpfs".into()
        );
    };
    if let Some((needed, options)) = only_for
        && needed != kind
    {
        return Err(format!("cannot mix '{options}' options with mount type '{}'", type_name(kind)));
    }
    mount.set_type(kind);
    if let Some(recursion) = recursive {
        recursion.apply(&mut mount)?;
    }
    finish(mount, kind)
}

/// Docker's `bind-recursive`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Recursion {
    Enabled,
    Disabled,
    Writable,
    ReadOnly,
}

fn recursion(key: &str, text: &str) -> Parsed<Recursion> {
    match text {
        "enabled" => Ok(Recursion::Enabled),
        "disabled" => Ok(Recursion::Disabled),
        "writable" => Ok(Recursion::Writable),
        "readonly" => Ok(Recursion::ReadOnly),
        _ => Err(format!(
            "invalid value for {key}: {text} (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")"
        )),
    }
}

impl Recursion {
    fn apply(self, mount: &mut Mount) -> Parsed<()> {
        let needs = |what: &str, word: &str| {
            Err(format!("option 'bind-recursive={word}' requires '{what}' to be specified in conjunction"))
        };
        match self {
            Self::Enabled => {}
            Self::Disabled => mount.non_recursive = true,
            Self::Writable if !mount.read_only => return needs("readonly", "writable"),
            Self::Writable => mount.read_only_non_recursive = true,
            Self::ReadOnly if !mount.read_only => return needs("readonly", "readonly"),
            Self::ReadOnly if mount.propagation != "rprivate" => {
                return needs("bind-propagation=rprivate", "readonly");
            }
            Self::ReadOnly => mount.read_only_force_recursive = true,
        }
        Ok(())
    }
}

fn finish(mut mount: Mount, kind: Type) -> Parsed<Mount> {
    if mount.target.is_empty() {
        return Err("target is required".into());
    }
    if !mount.target.starts_with('/') {
        return Err(format!("invalid mount target '{}': must be an absolute path", mount.target));
    }
    match kind {
        Type::Bind if mount.source.is_empty() => return Err("source is required for a bind mount".into()),
        Type::Bind => mount.source = volume::absolute(&mount.source)?,
        _ if !mount.source.is_empty() => return Err("a tmpfs mount has no source".into()),
        _ => {}
    }
    Ok(mount)
}

/// `--tmpfs path[:options]`: the path and its options as the engine takes them.
///
/// # Errors
/// When the path isn't absolute.
pub fn tmpfs(text: &str) -> Parsed<(String, String)> {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    if !path.starts_with('/') {
        return Err(format!("invalid tmpfs mount '{text}': mount path must be absolute"));
    }
    Ok((path.to_owned(), options.to_owned()))
}

fn mount_type(text: &str) -> Parsed<Type> {
    match text.to_ascii_lowercase().as_str() {
        "bind" => Ok(Type::Bind),
        "tmpfs" => Ok(Type::Tmpfs),
        "volume" => Err("volumes are not supported in this version: use type=bind with a host path".into()),
        other => Err(format!("invalid mount type '{other}': expected bind or tmpfs")),
    }
}

fn type_name(kind: Type) -> &'static str {
    if kind == Type::Bind { "bind" } else { "tmpfs" }
}

fn propagation(text: &str) -> Parsed<String> {
    if volume::is_propagation(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("invalid propagation mode '{text}'"))
    }
}

fn boolean(key: &str, value: Option<&str>) -> Parsed<bool> {
    match value {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => Err(format!("invalid value for {key}: {other}")),
    }
}

fn octal(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777)
}

/// The comma-separated fields of one line; `"…"` keeps commas, `""` inside is
/// one quote.
fn fields(text: &str) -> Parsed<Vec<String>> {
    let mut out = vec![String::new()];
    let mut chars = text.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        let field = out.last_mut().ok_or("empty")?;
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => out.push(String::new()),
            _ => field.push(c),
        }
    }
    if quoted {
        return Err("a quoted field is not closed".into());
    }
    if out.iter().any(String::is_empty) {
        return Err("a field is empty".into());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bind_and_its_synonyms() {
        for text in [
            "type=bind,src=/a,dst=/b,ro",
            "type=bind,source=/a,target=/b,readonly=true",
            "TYPE=bind,SRC=/a,destination=/b,readonly=1",
        ] {
            let m = mount(text).expect(text);
            assert_eq!((m.source.as_str(), m.target.as_str(), m.read_only), ("/a", "/b", true));
            assert_eq!(m.r#type(), Type::Bind);
            assert!(!m.create_source, "--mount never makes directories");
        }
        assert_eq!(
            mount("type=bind,src=/a,dst=/b,bind-propagation=rshared").expect("valid").propagation,
            "rshared"
        );
    }

    #[test]
    fn recursion_is_docker_s() {
        let parse = |more: &str| mount(&format!("type=bind,src=/a,dst=/b,{more}"));
        assert!(parse("bind-recursive=disabled").expect("valid").non_recursive);
        assert!(parse("bind-nonrecursive").expect("valid").non_recursive);
        assert!(parse("ro,bind-recursive=writable").expect("valid").read_only_non_recursive);
        let forced = parse("bind-recursive=readonly,ro,bind-propagation=rprivate").expect("valid");
        assert!(forced.read_only && forced.read_only_force_recursive);
        assert!(parse("bind-create-src").expect("valid").create_source);
        for (more, words) in [
            ("bind-recursive=writable", "requires 'readonly'"),
            ("ro,bind-recursive=readonly", "requires 'bind-propagation=rprivate'"),
            ("bind-recursive=never", "must be \"enabled\""),
        ] {
            let error = parse(more).expect_err(more);
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_quoted_field_keeps_its_comma() {
        let m = mount(r#"type=bind,"src=/a,b",dst=/c"#).expect("valid");
        assert_eq!(m.source, "/a,b");
    }

    #[test]
    fn tmpfs_has_size_and_mode() {
        let m = mount("type=tmpfs,dst=/t,tmpfs-size=64m,tmpfs-mode=1770").expect("valid");
        assert_eq!((m.tmpfs_size, m.tmpfs_mode), (64 << 20, 0o1770));
        assert_eq!(m.r#type(), Type::Tmpfs);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, message) in [
            ("type=bind,src=/a", "target is required"),
            ("type=bind,dst=/a", "source is required for a bind mount"),
            ("type=tmpfs,src=/a,dst=/b", "a tmpfs mount has no source"),
            ("type=bind,src=/a,dst=b", "invalid mount target 'b': must be an absolute path"),
            ("type=bind,src=/a,dst=/b,what=1", "unexpected key 'what' in 'what=1'"),
            ("type=bind,src", "invalid field 'src' must be a key=value pair"),
            ("type=nfs,dst=/b", "invalid mount type 'nfs': expected bind or tmpfs"),
            ("type=bind,src=/a,dst=/b,ro=x", "invalid value for ro: x"),
            ("type=bind,src=/a,dst=/b,tmpfs-size=1m", "cannot mix 'tmpfs-*' options with mount type 'bind'"),
            (
                "type=tmpfs,dst=/b,bind-propagation=rslave",
                "cannot mix 'bind-*' options with mount type 'tmpfs'",
            ),
        ] {
            assert_eq!(mount(text), Err(message.into()), "{text}");
        }
        assert!(mount("src=/a,dst=/b").expect_err("no type").contains("volumes are not supported"));
        assert!(mount("type=volume,src=a,dst=/b").expect_err("volume").contains("volumes are not supported"));
    }

    #[test]
    fn a_tmpfs_flag_is_a_path_and_options() {
        assert_eq!(tmpfs("/run:size=64m,mode=1777"), Ok(("/run".into(), "size=64m,mode=1777".into())));
        assert_eq!(tmpfs("/run"), Ok(("/run".into(), String::new())));
        assert!(tmpfs("run").is_err());
    }

    proptest! {
        #[test]
        fn rubbish_never_panics(text in "[a-z=,\"/\\PC]{0,40}") {
            let _ = mount(&text);
        }
    }
}

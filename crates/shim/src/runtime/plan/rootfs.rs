// SPDX-License-Identifier: Apache-2.0
//! Where the root file system comes from: an overlay of the engine's
//! snapshots, or a directory.

use std::path::{Path, PathBuf};

use nix::mount::MsFlags;
use oci_spec::runtime::{Linux, Spec};

use super::super::error::{Error, Result};
use super::{mounts::Propagation, users::IdMaps};

/// The root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rootfs {
    /// Layers, and a writable one on top.
    Overlay {
        /// Top first.
        lower: Vec<PathBuf>,
        /// The writable directory and its work directory.
        writable: Option<Writable>,
        /// Options that are handed to overlayfs as they are.
        options: Vec<(String, Option<String>)>,
        read_only: bool,
        /// How the ids in the layers differ from those on disk; never those in
        /// the writable directory, which has the container's own.
        ids: Option<IdMaps>,
    },
    /// A directory, with the mounts below it if `recursive`.
    Bind { source: PathBuf, recursive: bool },
}

/// The upper half of an overlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Writable {
    pub(crate) upper: PathBuf,
    pub(crate) work: PathBuf,
}

pub(super) fn plan(spec: &Spec, bundle: &Path, mounts: &[berth::api::types::Mount]) -> Result<Rootfs> {
    match mounts {
        [] => Ok(Rootfs::Bind { source: path(spec, bundle), recursive: true }),
        [one] if one.target.is_empty() => match one.r#type.as_str() {
            "overlay" => overlay(&one.options),
            "bind" | "rbind" => Ok(Rootfs::Bind {
                source: PathBuf::from(&one.source),
                recursive: one.r#type == "rbind" || one.options.iter().any(|o| o == "rbind"),
            }),
            other => Err(Error::new(
                super::super::error::Kind::Unsupported,
                format!("a root file system of type {other:?} is not supported yet"),
            )),
        },
        _ => Err(Error::unsupported("a root file system of several mounts")),
    }
}

/// The directory that the specification calls the root.
pub(super) fn path(spec: &Spec, bundle: &Path) -> PathBuf {
    bundle.join(spec.root().as_ref().map_or(Path::new("rootfs"), |root| root.path()))
}

pub(super) fn overlay(options: &[String]) -> Result<Rootfs> {
    let (mut lower, mut upper, mut work) = (Vec::new(), None, None);
    let (mut rest, mut read_only) = (Vec::new(), false);
    let (mut users, mut groups) = ("", "");
    for option in options {
        match option.split_once('=') {
            Some(("lowerdir", list)) => lower = split_lower(list),
            Some(("upperdir", path)) => upper = Some(PathBuf::from(unescape(path))),
            Some(("workdir", path)) => work = Some(PathBuf::from(unescape(path))),
            Some(("uidmap", list)) => users = list,
            Some(("gidmap", list)) => groups = list,
            Some((key, value)) => rest.push((key.to_owned(), Some(value.to_owned()))),
            None if option == "ro" => read_only = true,
            None if option == "rw" => read_only = false,
            None => rest.push((option.clone(), None)),
        }
    }
    if lower.is_empty() || lower.iter().any(|path| path.as_os_str().is_empty()) {
        return Err(Error::invalid("rootfs: an overlay without a lowerdir"));
    }
    let writable = match (upper, work) {
        (Some(upper), Some(work)) => Some(Writable { upper, work }),
        (None, None) => None,
        _ => return Err(Error::invalid("rootfs: upperdir and workdir go together")),
    };
    let ids = IdMaps::of_options(users, groups)?;
    Ok(Rootfs::Overlay { lower, writable, options: rest, read_only, ids })
}

/// Splits at colons; `\:` is a colon in a name, as overlayfs has it.
fn split_lower(list: &str) -> Vec<PathBuf> {
    let (mut all, mut one, mut escaped) = (Vec::new(), String::new(), false);
    for c in list.chars() {
        match c {
            _ if escaped => {
                one.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            ':' => all.push(std::mem::take(&mut one).into()),
            _ => one.push(c),
        }
    }
    all.push(one.into());
    all
}

fn unescape(path: &str) -> String {
    let (mut text, mut escaped) = (String::new(), false);
    for c in path.chars() {
        escaped = !escaped && c == '\\';
        if !escaped {
            text.push(c);
        }
    }
    text
}

/// What `linux.rootfsPropagation` says; rslave where it says nothing: mounts
/// of the host may come and go, and nothing of a container reaches the host.
pub(super) fn propagation(linux: &Linux) -> Result<Propagation> {
    match linux.rootfs_propagation().as_deref().filter(|p| !p.is_empty()) {
        None => Ok(Propagation { kind: MsFlags::MS_SLAVE, recursive: true }),
        Some(text) => Propagation::parse(text)
            .ok_or_else(|| Error::invalid(format!("linux.rootfsPropagation: {text:?} is unknown"))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mount(kind: &str, options: &[&str]) -> berth::api::types::Mount {
        berth::api::types::Mount {
            r#type: kind.to_owned(),
            source: "/source".to_owned(),
            target: String::new(),
            options: options.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn an_overlay_keeps_the_order_of_its_layers() {
        let mounts = [mount(
            "overlay",
            &["lowerdir=/a:/b\\:c:/d", "upperdir=/u\\:p", "workdir=/w", "index=off", "volatile"],
        )];
        let planned = plan(&Spec::default(), Path::new("/"), &mounts).expect("plan");
        let Rootfs::Overlay { lower, writable, options, read_only, .. } = planned else { panic!("overlay") };
        assert_eq!(lower, ["/a", "/b:c", "/d"].map(PathBuf::from));
        let expected = Writable { upper: "/u:p".into(), work: "/w".into() };
        assert_eq!(writable, Some(expected));
        assert_eq!(options, [("index".to_owned(), Some("off".to_owned())), ("volatile".to_owned(), None)]);
        assert!(!read_only);
    }

    #[test]
    fn half_an_overlay_is_refused() {
        for options in
            [&["lowerdir=/a", "upperdir=/u"][..], &["upperdir=/u", "workdir=/w"], &["lowerdir=/a::/b"]]
        {
            assert!(
                plan(&Spec::default(), Path::new("/"), &[mount("overlay", options)]).is_err(),
                "{options:?}"
            );
        }
        assert!(plan(&Spec::default(), Path::new("/"), &[mount("erofs", &[])]).is_err());
        assert!(plan(&Spec::default(), Path::new("/"), &[mount("bind", &[]), mount("bind", &[])]).is_err());
    }

    proptest! {
        #[test]
        fn any_layer_name_survives_its_escaping(names in prop::collection::vec("/[a-z:\\\\,]{0,9}", 1..5)) {
            let list: Vec<_> = names.iter().map(|n| n.replace('\\', "\\\\").replace(':', "\\:")).collect();
            let expected: Vec<_> = names.iter().map(PathBuf::from).collect();
            prop_assert_eq!(split_lower(&list.join(":")), expected);
            prop_assert_eq!(unescape(&list[0]), names[0].clone());
        }
    }
}

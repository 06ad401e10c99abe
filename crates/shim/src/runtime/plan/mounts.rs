// SPDX-License-Identifier: Apache-2.0
//! The mounts of a specification: fstab-style options become attributes,
//! propagation, and options for the file system.
//!
//! `/dev` is apart: it is always a fresh tmpfs that init fills (D9), unless
//! the specification binds a directory there.

use std::{
    borrow::Cow,
    path::{Component, Path, PathBuf},
};

use berth::bundle::MOUNT_NAMESPACE;
use nix::mount::MsFlags;

use super::super::error::{Error, Result};
use super::{
    devices::Node,
    rootfs::{self, Rootfs, Writable},
    users::IdMaps,
};
use crate::kernel::mount::{MAX_OPTION, attr};

/// What may be mounted below /proc: files whose content the host or a
/// monitoring file system provides (D8).
const BELOW_PROC: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
];

/// What the context of a file system has no words for, and what changes
/// nothing of a new one: a file system that counts versions does so always.
const NO_WORDS: [&str; 5] = ["silent", "loud", "nofail", "iversion", "noiversion"];

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Absolute, without `.` and `..`.
    pub(crate) destination: PathBuf,
    pub(crate) source: Source,
    pub(crate) attributes: Attributes,
    /// Of the whole tree that a bind brings along.
    pub(crate) tree_attributes: Attributes,
    pub(crate) propagation: Vec<Propagation>,
    /// Ids that differ from those of its file system.
    pub(crate) ids: Option<MountIds>,
    /// What the image has at the destination is copied into the new tmpfs.
    pub(crate) copy_up: bool,
    /// The mount namespace that the source of a bind is in; none is the host's.
    pub(crate) of_namespace: Option<PathBuf>,
}

/// How the ids of a mount differ from those of its file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountIds {
    /// `None`: as the container's own users do.
    pub(crate) maps: Option<IdMaps>,
    /// Also of the mounts below.
    pub(crate) recursive: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A new file system; its name is what mountinfo shows as its source.
    FileSystem { kind: String, name: String, options: Vec<(String, Option<String>)> },
    /// An overlay whose options are longer than the kernel takes at once.
    Overlay { lower: Vec<PathBuf>, writable: Option<Writable>, options: Vec<(String, Option<String>)> },
    /// What is mounted there already, to be changed; the options are for its
    /// file system.
    Existing { options: Vec<(String, Option<String>)> },
    /// A file or directory of the host.
    Bind { path: PathBuf, recursive: bool },
    /// The container's own directories of the cgroup hierarchies, or of
    /// version 2 alone.
    Cgroup { unified: bool },
}

impl Source {
    /// What it is called in messages.
    pub(crate) fn name(&self) -> Cow<'_, str> {
        match self {
            Self::FileSystem { name, .. } => name.into(),
            Self::Overlay { .. } => "overlay".into(),
            Self::Existing { .. } => "remount".into(),
            Self::Bind { path, .. } => path.to_string_lossy(),
            Self::Cgroup { .. } => "cgroup".into(),
        }
    }

    /// Whether it is a new file system of this type.
    pub(crate) fn is_new(&self, wanted: &str) -> bool {
        matches!(self, Self::FileSystem { kind, .. } if kind == wanted)
    }
}

/// Attributes to set and to clear.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) set: u64,
    pub(crate) clear: u64,
}

impl Attributes {
    /// The later option wins, as in fstab.
    fn apply(&mut self, set: u64, clear: u64) {
        self.set = (self.set & !clear) | set;
        self.clear = (self.clear | clear) & !set;
    }

    /// As mount_setattr(2) takes them: access times are cleared as one field.
    pub(crate) fn change(self) -> crate::kernel::mount::Attributes {
        let atime = if (self.set | self.clear) & attr::ATIME == 0 { 0 } else { attr::ATIME };
        crate::kernel::mount::Attributes::change(self.set, self.clear | atime)
    }
}

/// How mount events travel between copies of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Propagation {
    /// MS_SHARED, MS_SLAVE, MS_PRIVATE or MS_UNBINDABLE.
    pub(crate) kind: MsFlags,
    pub(crate) recursive: bool,
}

impl Propagation {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (recursive, name) = match text.strip_prefix('r') {
            Some(name) => (true, name),
            None => (false, text),
        };
        let kind = match name {
            "shared" => MsFlags::MS_SHARED,
            "slave" => MsFlags::MS_SLAVE,
            "private" => MsFlags::MS_PRIVATE,
            "unbindable" => MsFlags::MS_UNBINDABLE,
            _ => return None,
        };
        Some(Self { kind, recursive })
    }

    /// As mount_setattr(2) takes it.
    pub(crate) fn bits(self) -> u64 {
        self.kind.bits()
    }
}

/// What `/dev` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Dev {
    /// A tmpfs with these options and attributes, and these nodes in it.
    Fresh {
        options: Vec<(String, Option<String>)>,
        attributes: u64,
        nodes: Vec<Node>,
        /// So many of the other mounts come before it.
        after: usize,
    },
    /// One of the mounts binds a directory there.
    Bound,
}

/// Plans all mounts. The source of a bind may be relative to `bundle`.
pub(super) fn plan(mounts: &[oci_spec::runtime::Mount], bundle: &Path) -> Result<(Dev, Vec<Mount>)> {
    let mut dev = None;
    let mut planned = Vec::with_capacity(mounts.len());
    for mount in mounts {
        let mount = one(mount, bundle)?;
        if mount.destination != Path::new("/dev") {
            planned.push(mount);
            continue;
        }
        dev = Some(match mount.source {
            Source::FileSystem { ref kind, ref options, .. } if kind == "tmpfs" => {
                let (attributes, after) = (mount.attributes.set, planned.len());
                Dev::Fresh { options: options.clone(), attributes, nodes: Vec::new(), after }
            }
            Source::Bind { .. } => {
                planned.push(mount);
                Dev::Bound
            }
            _ => return Err(Error::invalid("mounts: /dev is a tmpfs, or a bind")),
        });
    }
    Ok((dev.unwrap_or_else(default_dev), planned))
}

fn default_dev() -> Dev {
    let option = |key: &str, value: &str| (key.to_owned(), Some(value.to_owned()));
    Dev::Fresh {
        options: vec![option("mode", "755"), option("size", "65536k")],
        attributes: attr::NOSUID | attr::STRICTATIME,
        nodes: Vec::new(),
        after: 0,
    }
}

fn one(mount: &oci_spec::runtime::Mount, bundle: &Path) -> Result<Mount> {
    let destination = normalize(mount.destination());
    let maps = IdMaps::of_mount(mount, &format!("mounts: {}", destination.display()))?;
    let mut plan = Mount {
        destination,
        source: Source::Cgroup { unified: false },
        attributes: Attributes::default(),
        tree_attributes: Attributes::default(),
        propagation: Vec::new(),
        ids: maps.map(|maps| MountIds { maps: Some(maps), recursive: false }),
        copy_up: false,
        of_namespace: None,
    };
    let (mut bind, mut data, mut remount) = (None, Vec::new(), false);
    for option in mount.options().as_deref().unwrap_or_default() {
        match option.as_str() {
            "" | "defaults" => {}
            "bind" => bind = bind.or(Some(false)),
            "rbind" => bind = Some(true),
            "tmpcopyup" => plan.copy_up = true,
            "remount" => remount = true,
            "idmap" | "ridmap" => {
                let ids = plan.ids.get_or_insert(MountIds { maps: None, recursive: false });
                ids.recursive |= option == "ridmap";
            }
            text => match text.strip_prefix(MOUNT_NAMESPACE) {
                Some(path) => plan.of_namespace = Some(PathBuf::from(path)),
                None => apply(text, &mut plan, &mut data),
            },
        }
    }
    plan.source = match remount {
        // Of one mount of several, mount(2) ignores what is the file system's.
        true if bind.is_some() => Source::Existing { options: Vec::new() },
        true => Source::Existing { options: data },
        false => source(mount, bind, data, bundle)?,
    };
    if plan.copy_up && !plan.source.is_new("tmpfs") {
        return Err(Error::invalid(format!("mounts: {:?}: only a tmpfs has tmpcopyup", plan.destination)));
    }
    if plan.of_namespace.is_some() && !matches!(plan.source, Source::Bind { .. }) {
        return Err(Error::invalid(format!(
            "mounts: {:?}: only a bind is of another's mount namespace",
            plan.destination
        )));
    }
    if plan.ids.is_some() && !matches!(plan.source, Source::Bind { .. }) {
        return Err(Error::invalid(format!(
            "mounts: {:?}: only a bind has ids of its own",
            plan.destination
        )));
    }
    check_destination(&plan)?;
    Ok(plan)
}

fn apply(option: &str, plan: &mut Mount, data: &mut Vec<(String, Option<String>)>) {
    if let Some(propagation) = Propagation::parse(option) {
        plan.propagation.push(propagation);
    } else if let Some((set, clear)) = attribute(option) {
        plan.attributes.apply(set, clear);
    } else if let Some((set, clear)) = option.strip_prefix('r').and_then(attribute) {
        plan.tree_attributes.apply(set, clear);
    } else {
        match option.split_once('=') {
            Some((key, value)) => data.push((key.to_owned(), Some(value.to_owned()))),
            None => data.push((option.to_owned(), None)),
        }
    }
}

/// The attributes that an option sets and clears.
fn attribute(option: &str) -> Option<(u64, u64)> {
    Some(match option {
        "ro" => (attr::RDONLY, 0),
        "rw" => (0, attr::RDONLY),
        "nosuid" => (attr::NOSUID, 0),
        "suid" => (0, attr::NOSUID),
        "nodev" => (attr::NODEV, 0),
        "dev" => (0, attr::NODEV),
        "noexec" => (attr::NOEXEC, 0),
        "exec" => (0, attr::NOEXEC),
        "nodiratime" => (attr::NODIRATIME, 0),
        "diratime" => (0, attr::NODIRATIME),
        "nosymfollow" => (attr::NOSYMFOLLOW, 0),
        "symfollow" => (0, attr::NOSYMFOLLOW),
        // Access times are one field of several bits: it is cleared whole.
        "noatime" => (attr::NOATIME, attr::ATIME),
        "strictatime" => (attr::STRICTATIME, attr::ATIME),
        "relatime" | "atime" | "nostrictatime" => (0, attr::ATIME),
        // What is left without relatime is what mount(2) makes of it: relatime.
        "norelatime" => (0, 0),
        _ => return None,
    })
}

fn source(
    mount: &oci_spec::runtime::Mount,
    bind: Option<bool>,
    mut data: Vec<(String, Option<String>)>,
    bundle: &Path,
) -> Result<Source> {
    let kind = mount.typ().as_deref().unwrap_or_default();
    let named = mount.source().clone().filter(|path| !path.as_os_str().is_empty());
    if let Some(recursive) = bind.or((kind == "bind").then_some(false)) {
        let Some(path) = named else {
            return Err(Error::invalid(format!("mounts: {:?}: a bind needs a source", mount.destination())));
        };
        // mount(2) says of a bind that it ignores options for the file system,
        // and specifications in the wild rely on it.
        return Ok(Source::Bind { path: bundle.join(path), recursive });
    }
    data.retain(|(key, value)| value.is_some() || !NO_WORDS.contains(&key.as_str()));
    match kind {
        "" => Err(Error::invalid(format!("mounts: {:?} has no type", mount.destination()))),
        "cgroup" => Ok(Source::Cgroup { unified: false }),
        "cgroup2" => Ok(Source::Cgroup { unified: true }),
        "overlay" if data.iter().any(|(_, value)| value.as_ref().is_some_and(|v| v.len() > MAX_OPTION)) => {
            let one = |(key, value)| match value {
                Some(value) => format!("{key}={value}"),
                None => key,
            };
            let options: Vec<_> = data.into_iter().map(one).collect();
            let Rootfs::Overlay { lower, writable, options, .. } = rootfs::overlay(&options)? else {
                return Err(Error::invalid(format!("mounts: {:?}: no overlay", mount.destination())));
            };
            Ok(Source::Overlay { lower, writable, options })
        }
        _ => {
            let name = named.map_or_else(|| kind.to_owned(), |name| name.to_string_lossy().into_owned());
            Ok(Source::FileSystem { kind: kind.to_owned(), name, options: data })
        }
    }
}

/// D8: what may be where.
fn check_destination(mount: &Mount) -> Result<()> {
    let destination = &mount.destination;
    let refuse = |why: &str| Err(Error::invalid(format!("mounts: {}: {why}", destination.display())));
    let is = |wanted: &str| mount.source.is_new(wanted);
    // Of a bind on /proc, init makes sure that it is a procfs.
    let bound = matches!(mount.source, Source::Bind { .. } | Source::Existing { .. });
    if destination == Path::new("/") {
        return refuse("the root is not a mount");
    }
    if destination == Path::new("/proc") && !is("proc") && !bound {
        return refuse("only a proc file system may be mounted there");
    }
    if destination == Path::new("/sys") && !is("sysfs") && !bound {
        return refuse("only a sysfs may be mounted there");
    }
    let allowed = BELOW_PROC.iter().any(|path| destination == Path::new(path));
    if destination != Path::new("/proc") && destination.starts_with("/proc") && !allowed {
        return refuse("nothing may be mounted there");
    }
    Ok(())
}

/// An absolute path without `.` and `..`; what leaves the root ends at it.
pub(super) fn normalize(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::MountBuilder;
    use proptest::prelude::*;

    use super::*;

    fn mount(destination: &str, kind: &str, options: &[&str]) -> oci_spec::runtime::Mount {
        let options: Vec<_> = options.iter().map(ToString::to_string).collect();
        MountBuilder::default()
            .destination(destination)
            .typ(kind)
            .source("/src")
            .options(options)
            .build()
            .expect("mount")
    }

    fn one(mount: &oci_spec::runtime::Mount) -> Result<Mount> {
        super::one(mount, Path::new("/bundle"))
    }

    fn plan(mounts: &[oci_spec::runtime::Mount]) -> Result<(Dev, Vec<Mount>)> {
        super::plan(mounts, Path::new("/bundle"))
    }

    /// Every option of the table of runtime-spec 1.3 ("Linux mount options").
    const TABLE: [&str; 61] = [
        "async",
        "atime",
        "bind",
        "defaults",
        "dev",
        "diratime",
        "dirsync",
        "exec",
        "iversion",
        "lazytime",
        "loud",
        "noatime",
        "nodev",
        "nodiratime",
        "noexec",
        "noiversion",
        "nolazytime",
        "norelatime",
        "nostrictatime",
        "nosuid",
        "nosymfollow",
        "private",
        "ratime",
        "rbind",
        "rdev",
        "rdiratime",
        "relatime",
        "rexec",
        "rnoatime",
        "rnodev",
        "rnodiratime",
        "rnoexec",
        "rnorelatime",
        "rnostrictatime",
        "rnosuid",
        "rnosymfollow",
        "ro",
        "rprivate",
        "rrelatime",
        "rro",
        "rrw",
        "rshared",
        "rslave",
        "rstrictatime",
        "rsuid",
        "rsymfollow",
        "runbindable",
        "rw",
        "shared",
        "silent",
        "slave",
        "strictatime",
        "suid",
        "symfollow",
        "sync",
        "tmpcopyup",
        "unbindable",
        "mand",
        "nomand",
        "remount",
        "",
    ];

    #[test]
    fn every_option_of_the_table_is_known() {
        for option in TABLE {
            let kind = if option == "tmpcopyup" { "tmpfs" } else { "bind" };
            assert!(one(&mount("/x", kind, &[option])).is_ok(), "{option}");
        }
        assert!(one(&mount("/x", "bind", &["tmpcopyup"])).is_err());
    }

    #[test]
    fn recursive_attributes_are_those_without_r() {
        let names = [
            "ro",
            "rw",
            "nosuid",
            "suid",
            "nodev",
            "dev",
            "noexec",
            "exec",
            "noatime",
            "strictatime",
            "relatime",
            "nodiratime",
            "diratime",
            "nosymfollow",
            "symfollow",
        ];
        for name in names {
            let plain = one(&mount("/x", "bind", &[name])).expect(name);
            let tree = one(&mount("/x", "bind", &[&format!("r{name}")])).expect(name);
            assert_eq!(plain.attributes, tree.tree_attributes, "{name}");
            assert_ne!(plain.attributes, Attributes::default(), "{name}");
            assert_eq!(tree.attributes, Attributes::default(), "{name}");
        }
    }

    #[test]
    fn options_become_attributes() {
        let planned =
            one(&mount("/a/../b", "bind", &["rbind", "ro", "rnosuid", "noatime", "rprivate"])).expect("plan");
        assert_eq!(planned.destination, Path::new("/b"));
        assert_eq!(planned.source, Source::Bind { path: "/src".into(), recursive: true });
        assert_eq!(planned.attributes.set, attr::RDONLY | attr::NOATIME);
        assert_eq!(planned.attributes.clear & attr::ATIME, attr::ATIME & !attr::NOATIME);
        assert_eq!(planned.tree_attributes.set, attr::NOSUID);
        assert_eq!(planned.propagation, [Propagation { kind: MsFlags::MS_PRIVATE, recursive: true }]);
    }

    #[test]
    fn the_last_of_two_options_wins() {
        let planned = one(&mount("/x", "tmpfs", &["ro", "rw", "dev", "nodev", "size=1k"])).expect("plan");
        assert_eq!(planned.attributes, Attributes { set: attr::NODEV, clear: attr::RDONLY });
        let options = vec![("size".to_owned(), Some("1k".to_owned()))];
        assert_eq!(
            planned.source,
            Source::FileSystem { kind: "tmpfs".to_owned(), name: "/src".to_owned(), options }
        );
        let mut relative = mount("data", "bind", &[]);
        relative.set_source(Some("volume".into()));
        let planned = one(&relative).expect("plan");
        assert_eq!(planned.destination, Path::new("/data"));
        assert_eq!(planned.source, Source::Bind { path: "/bundle/volume".into(), recursive: false });
    }

    #[test]
    fn proc_and_sys_are_ours() {
        for (destination, kind) in [
            ("/proc", "tmpfs"),
            ("/proc", "cgroup"),
            ("/proc/self/attr", "bind"),
            ("/x/../proc/sys", "bind"),
            ("/sys", "tmpfs"),
            ("/", "bind"),
        ] {
            assert!(one(&mount(destination, kind, &[])).is_err(), "{kind} on {destination}");
        }
        for (destination, kind) in [
            ("/proc", "proc"),
            ("/proc", "bind"),
            ("/proc/meminfo", "bind"),
            ("/sys", "sysfs"),
            ("/procfs", "bind"),
        ] {
            assert!(one(&mount(destination, kind, &[])).is_ok(), "{kind} on {destination}");
        }
    }

    #[test]
    fn dev_is_fresh_unless_bound() {
        assert_eq!(plan(&[]).expect("plan").0, default_dev());
        let (dev, rest) = plan(&[mount("/dev", "bind", &["rbind"])]).expect("plan");
        assert_eq!((dev, rest.len()), (Dev::Bound, 1));
        let (dev, rest) = plan(&[mount("/dev", "tmpfs", &["nosuid", "mode=700"])]).expect("plan");
        let options = vec![("mode".to_owned(), Some("700".to_owned()))];
        assert_eq!(dev, Dev::Fresh { options, attributes: attr::NOSUID, nodes: Vec::new(), after: 0 });
        assert!(rest.is_empty());
        assert!(plan(&[mount("/dev", "ext4", &[])]).is_err());
    }

    #[test]
    fn a_remount_changes_what_is_there() {
        let planned = one(&mount("/x", "bind", &["bind", "remount", "ro"])).expect("plan");
        assert_eq!(
            (planned.source, planned.attributes.set),
            (Source::Existing { options: Vec::new() }, attr::RDONLY)
        );
        let options = vec![("size".to_owned(), Some("1k".to_owned()))];
        assert_eq!(
            one(&mount("/x", "", &["remount", "size=1k"])).expect("plan").source,
            Source::Existing { options }
        );
        assert!(one(&mount("/", "", &["remount", "ro"])).is_err());
    }

    #[test]
    fn a_long_overlay_is_taken_apart() {
        let long = format!("/{}", "l".repeat(200));
        let planned =
            one(&mount("/x", "overlay", &[&format!("lowerdir={long}:{long}"), "index=off"])).expect("plan");
        let options = vec![("index".to_owned(), Some("off".to_owned()))];
        let lower = vec![PathBuf::from(&long), PathBuf::from(&long)];
        assert_eq!(planned.source, Source::Overlay { lower, writable: None, options });
        assert!(one(&mount("/x", "overlay", &["lowerdir=/a:/b"])).expect("plan").source.is_new("overlay"));
    }

    proptest! {
        #[test]
        fn the_order_of_the_mounts_is_kept(names in prop::collection::vec("(/[a-e]){1,3}", 0..8)) {
            let list: Vec<_> = names.iter().map(|name| mount(name, "tmpfs", &[])).collect();
            let (_, planned) = plan(&list).expect("plan");
            let planned: Vec<_> = planned.iter().map(|m| m.destination.to_string_lossy().into_owned()).collect();
            prop_assert_eq!(planned, names);
        }

        #[test]
        fn data_reaches_the_file_system_as_it_is(data in prop::collection::vec("[a-z]{1,4}_[a-z]{0,2}(=[a-z0-9=,/]{0,6})?", 0..6)) {
            let list: Vec<_> = data.iter().map(String::as_str).collect();
            let planned = one(&mount("/x", "somefs", &list)).expect("plan");
            let Source::FileSystem { options, .. } = planned.source else { panic!("a file system") };
            let joined: Vec<_> = options.into_iter().map(|(k, v)| v.map_or(k.clone(), |v| format!("{k}={v}"))).collect();
            prop_assert_eq!(joined, data);
        }

        #[test]
        fn nothing_gets_below_proc(path in "[/.]{0,3}proc(/[a-z.]{1,4}){1,3}") {
            let target = normalize(Path::new(&path));
            let inside = target.starts_with("/proc") && target != Path::new("/proc");
            prop_assert!(!inside || one(&mount(&path, "tmpfs", &[])).is_err() || BELOW_PROC.iter().any(|p| target == Path::new(p)));
        }

        #[test]
        fn a_normal_path_stays_inside(path in "[/.a-c]{0,20}") {
            let clean = normalize(Path::new(&path));
            prop_assert!(clean.is_absolute());
            prop_assert!(clean.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_))));
            prop_assert_eq!(normalize(&clean), clean);
        }

        #[test]
        fn no_attribute_is_set_and_cleared(options in prop::collection::vec(
            prop::sample::select(vec!["ro", "rw", "dev", "nodev", "suid", "nosuid", "exec", "noexec", "diratime", "nodiratime"]), 0..12)
        ) {
            let planned = one(&mount("/x", "tmpfs", &options)).expect("plan");
            prop_assert_eq!(planned.attributes.set & planned.attributes.clear, 0);
            let last = |yes, no| options.iter().rev().find(|o| **o == yes || **o == no).is_some_and(|o| *o == yes);
            prop_assert_eq!(planned.attributes.set & attr::RDONLY != 0, last("ro", "rw"));
            prop_assert_eq!(planned.attributes.set & attr::NODEV != 0, last("nodev", "dev"));
        }
    }
}

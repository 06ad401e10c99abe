// SPDX-License-Identifier: Apache-2.0
//! `linux.intelRdt`: a group of the resctrl file system, which shares out a
//! processor's caches and memory bandwidth (runtime-spec, config-linux.md
//! "IntelRdt"; Documentation/filesystems/resctrl.rst).
//!
//! A class of service that the specification names outlives its containers;
//! one that is named after a container goes with it, as monitoring groups do.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use oci_spec::runtime::LinuxIntelRdt;

use super::fs::{read, try_write};
use crate::{
    kernel::{Procfs, SysError},
    runtime::{Error, Kind, Result},
};

/// Directories of resctrl's own.
const RESERVED: [&str; 5] = ["", ".", "..", "info", "mon_groups"];

/// A container's part of the resctrl file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resctrl {
    root: PathBuf,
    id: String,
    /// `/` is the default class; without one the container has its own.
    class: Option<String>,
    /// Lines that an existing class must have already.
    checked: Vec<String>,
    /// Lines that are written in any case, after those.
    written: Vec<String>,
    monitored: bool,
}

impl Resctrl {
    /// What the specification asks for, on this host.
    ///
    /// # Errors
    /// `Unsupported` when no resctrl file system is mounted, `InvalidSpec` for
    /// what can't be a class or a line.
    pub fn of_host(wanted: &LinuxIntelRdt, id: &str) -> Result<Self> {
        let mounts = Procfs::of_host()?.read_text("self/mountinfo")?;
        let root = mount_point(&mounts).ok_or_else(|| {
            let why = "linux.intelRdt: no resctrl file system is mounted; the processor may have none";
            Error::new(Kind::Unsupported, why)
        })?;
        Self::plan(wanted, id, root)
    }

    /// The same where resctrl is mounted at `root`. Pure.
    pub(crate) fn plan(wanted: &LinuxIntelRdt, id: &str, root: PathBuf) -> Result<Self> {
        let class = wanted.clos_id().clone().filter(|class| !class.is_empty());
        let name = class.as_deref().unwrap_or(id);
        if name != "/" && (RESERVED.contains(&name) || name.contains('/')) {
            return Err(Error::invalid(format!("linux.intelRdt.closID: {name:?} is no name of a class")));
        }
        let schema = |line: &Option<String>, field: &str, prefix: &str| match line {
            Some(line) if !line.starts_with(prefix) || line.contains('\n') => Err(Error::invalid(format!(
                "linux.intelRdt.{field}: {line:?} is not one line that begins with {prefix}"
            ))),
            line => Ok(line.clone()),
        };
        let l3 = schema(wanted.l3_cache_schema(), "l3CacheSchema", "L3")?;
        let bandwidth = schema(wanted.mem_bw_schema(), "memBwSchema", "MB:")?;
        let written = wanted.schemata().clone().unwrap_or_default();
        if let Some(line) = written.iter().find(|line| line.contains('\n')) {
            return Err(Error::invalid(format!("linux.intelRdt.schemata: {line:?} is more than one line")));
        }
        // What went before enableMonitoring can only mean it.
        let before = [wanted.enable_cmt(), wanted.enable_mbm()];
        let monitored = before.into_iter().chain([wanted.enable_monitoring()]).any(|on| *on == Some(true));
        let checked = l3.into_iter().chain(bandwidth).collect();
        Ok(Self { root, id: id.to_owned(), class, checked, written, monitored })
    }

    /// Makes what isn't there yet.
    ///
    /// # Errors
    /// For a class that should exist and doesn't, or has other limits, and for
    /// a container's own that is there; nothing new is left then.
    pub fn make(&self) -> Result<()> {
        let group = self.group();
        let is_new = self.make_class(&group)?;
        let monitor = || self.monitor().map_or(Ok(()), |monitor| make(&monitor).map(drop));
        self.limit(&group, is_new).and_then(|()| monitor()).map_err(|e| match self.remove() {
            Ok(()) => e,
            Err(second) => Error::new(e.kind(), format!("{e} (and then: {second})")),
        })
    }

    /// Limits what is there otherwise, whatever limited it before.
    ///
    /// # Errors
    /// Those of the kernel, in its own words.
    pub fn change(&self) -> Result<()> {
        let lines = self.checked.iter().chain(&self.written);
        lines.into_iter().try_for_each(|line| self.write(&self.group(), "schemata", &format!("{line}\n")))
    }

    /// Puts a process in.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn attach(&self, pid: u32) -> Result<()> {
        self.write(&self.group(), "tasks", &pid.to_string())?;
        match self.monitor() {
            Some(monitor) => self.write(&monitor, "tasks", &pid.to_string()),
            None => Ok(()),
        }
    }

    /// Removes what is the container's alone; may be repeated.
    ///
    /// # Errors
    /// Those of rmdir(2).
    pub fn remove(&self) -> Result<()> {
        let own = self.class.is_none().then(|| self.group());
        self.monitor().into_iter().chain(own).try_for_each(|dir| match fs::remove_dir(&dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(failed(SysError::from_io(format!("rmdir({dir:?})"), &e)))
            }
            _ => Ok(()),
        })
    }

    fn group(&self) -> PathBuf {
        match self.class.as_deref() {
            Some("/") => self.root.clone(),
            Some(class) => self.root.join(class),
            None => self.root.join(&self.id),
        }
    }

    fn monitor(&self) -> Option<PathBuf> {
        self.monitored.then(|| self.group().join("mon_groups").join(&self.id))
    }

    /// The class; false when it was there before.
    fn make_class(&self, group: &Path) -> Result<bool> {
        match &self.class {
            // Another's, or a leftover that may hold another's processes.
            None if !make(group)? => {
                Err(Error::invalid(format!("linux.intelRdt: {} exists", group.display())))
            }
            None => Ok(true),
            Some(_) if !self.checked.is_empty() || !self.written.is_empty() => make(group),
            Some(_) if group.is_dir() => Ok(false),
            Some(class) => Err(Error::invalid(format!("linux.intelRdt.closID: there is no class {class}"))),
        }
    }

    fn limit(&self, group: &Path, is_new: bool) -> Result<()> {
        if !is_new && !self.checked.is_empty() {
            let schemata = read(group, "schemata")?;
            if let Some(line) = self.checked.iter().find(|line| !has_line(&schemata, line)) {
                let name = group.display();
                return Err(Error::invalid(format!(
                    "linux.intelRdt: {name} exists, and is not limited to {line}"
                )));
            }
        }
        let checked = self.checked.iter().filter(|_| is_new);
        checked.chain(&self.written).try_for_each(|line| self.write(group, "schemata", &format!("{line}\n")))
    }

    /// resctrl says in a file of its own what was wrong with a write.
    fn write(&self, dir: &Path, file: &str, text: &str) -> Result<()> {
        try_write(dir, file, text).map_err(|e| {
            let status = read(&self.root.join("info"), "last_cmd_status").unwrap_or_default();
            let why = status.trim();
            if why.is_empty() { failed(e) } else { Error::invalid(format!("linux.intelRdt: {e}: {why}")) }
        })
    }
}

fn failed(e: SysError) -> Error {
    Error::new(Kind::Os, format!("linux.intelRdt: {e}"))
}

/// Makes a directory; false when it is there.
fn make(dir: &Path) -> Result<bool> {
    match fs::create_dir(dir) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(failed(SysError::from_io(format!("mkdir({dir:?})"), &e))),
    }
}

/// Where the file system is mounted (proc_pid_mountinfo(5)).
fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    let found = mountinfo
        .lines()
        .find(|line| line.split(" - ").nth(1).is_some_and(|rest| rest.starts_with("resctrl ")))?;
    found.split(' ').nth(4).map(PathBuf::from)
}

/// Whether all that `line` limits is limited so: the kernel pads with spaces
/// and zeros.
fn has_line(schemata: &str, line: &str) -> bool {
    let Some((name, wanted)) = parse(line) else { return false };
    let has = |(other, values): (&str, BTreeMap<String, String>)| {
        other == name && wanted.iter().all(|(domain, value)| values.get(domain) == Some(value))
    };
    schemata.lines().filter_map(parse).any(has)
}

/// `L3:0=0f;1=f` as a name and its values.
fn parse(line: &str) -> Option<(&str, BTreeMap<String, String>)> {
    let (name, list) = line.split_once(':')?;
    let value = |pair: &str| {
        let (domain, value) = pair.split_once('=')?;
        let value = value.trim().trim_start_matches('0').to_ascii_lowercase();
        Some((domain.trim().to_owned(), value))
    };
    Some((name.trim(), list.split(';').map(value).collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A directory that plays the file system.
    struct Fake(tempfile::TempDir);

    impl Fake {
        fn new() -> Self {
            let fake = Self(tempfile::tempdir().expect("tempdir"));
            fake.class(".", "L3:0=fff;1=fff\n    MB:0=100;1=100\n");
            fake
        }

        /// What the kernel fills a new directory with.
        fn class(&self, name: &str, schemata: &str) {
            let dir = self.0.path().join(name);
            fs::create_dir_all(dir.join("mon_groups")).expect("mkdir");
            fs::write(dir.join("schemata"), schemata).expect("schemata");
            fs::write(dir.join("tasks"), "").expect("tasks");
        }

        fn of(&self, wanted: Value) -> Result<Resctrl> {
            let wanted = serde_json::from_value(wanted).expect("intelRdt");
            Resctrl::plan(&wanted, "c1", self.0.path().to_owned())
        }

        fn text(&self, path: &str) -> String {
            fs::read_to_string(self.0.path().join(path)).expect(path)
        }

        fn has(&self, path: &str) -> bool {
            self.0.path().join(path).exists()
        }
    }

    #[test]
    fn a_class_of_its_own_goes_with_the_container() {
        let fake = Fake::new();
        let own = fake.of(json!({})).expect("plan");
        own.make().expect("make");
        assert!(fake.has("c1"));
        assert!(own.make().is_err() && fake.has("c1"), "it is another's");
        fs::write(fake.0.path().join("c1/tasks"), "").expect("tasks");
        own.attach(42).expect("attach");
        assert_eq!(fake.text("c1/tasks"), "42");
        fs::remove_file(fake.0.path().join("c1/tasks")).expect("as the kernel does");
        own.remove().expect("remove");
        own.remove().expect("again");
        assert!(!fake.has("c1"));
    }

    #[test]
    fn a_class_that_cannot_be_limited_is_not_left() {
        let fake = Fake::new();
        fs::create_dir(fake.0.path().join("info")).expect("mkdir");
        fs::write(fake.0.path().join("info/last_cmd_status"), "mask f lacks bits\n").expect("status");
        // The made-up directory has no file to write to.
        let e = fake.of(json!({"l3CacheSchema": "L3:0=f"})).expect("plan").make().expect_err("schemata");
        assert!(e.to_string().ends_with("mask f lacks bits"), "{e}");
        assert!(!fake.has("c1"));
    }

    #[test]
    fn a_named_class_is_checked_and_stays() {
        let fake = Fake::new();
        fake.class("gold", "    L3:0=00f;1=00f\n    MB:0= 50;1=100\n");
        let named = |more: Value| {
            let mut wanted = json!({"closID": "gold"});
            wanted.as_object_mut().expect("object").extend(more.as_object().expect("object").clone());
            fake.of(wanted).expect("plan")
        };
        named(json!({})).make().expect("it exists");
        named(json!({"l3CacheSchema": "L3:1=f;0=0F", "memBwSchema": "MB:0=50"}))
            .make()
            .expect("the same limits");
        let e = named(json!({"l3CacheSchema": "L3:0=ff"})).make().expect_err("other limits");
        assert!(e.to_string().ends_with("exists, and is not limited to L3:0=ff"), "{e}");
        named(json!({"schemata": ["L3:0=1"]})).make().expect("written");
        assert_eq!(fake.text("gold/schemata"), "L3:0=1\n");
        named(json!({})).remove().expect("remove");
        assert!(fake.has("gold"));
        let e = fake.of(json!({"closID": "none"})).expect("plan").make().expect_err("none");
        assert_eq!(e.to_string(), "linux.intelRdt.closID: there is no class none");
    }

    #[test]
    fn monitoring_has_a_group_of_its_own() {
        let fake = Fake::new();
        let wanted = fake.of(json!({"closID": "/", "enableMonitoring": true})).expect("plan");
        wanted.make().expect("make");
        fs::write(fake.0.path().join("mon_groups/c1/tasks"), "").expect("tasks");
        wanted.attach(7).expect("attach");
        assert_eq!((fake.text("tasks"), fake.text("mon_groups/c1/tasks")), ("7".to_owned(), "7".to_owned()));
        fs::remove_file(fake.0.path().join("mon_groups/c1/tasks")).expect("as the kernel does");
        wanted.remove().expect("remove");
        assert!(!fake.has("mon_groups/c1") && fake.has("tasks"));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let fake = Fake::new();
        for wanted in [
            json!({"closID": "a/b"}),
            json!({"closID": ".."}),
            json!({"closID": "info"}),
            json!({"l3CacheSchema": "MB:0=1"}),
            json!({"memBwSchema": "MB:0=1\nL3:0=1"}),
            json!({"schemata": ["L3:0=1\nMB:0=1"]}),
        ] {
            let e = fake.of(wanted.clone()).expect_err(&wanted.to_string());
            assert_eq!(e.kind(), Kind::InvalidSpec, "{e}");
        }
    }

    #[test]
    fn the_mount_is_found() {
        let line = "31 23 0:28 / /sys/fs/resctrl rw,relatime shared:9 - resctrl resctrl rw\n";
        assert_eq!(
            mount_point(&format!("1 0 8:1 / / rw - ext4 /dev/x rw\n{line}")),
            Some("/sys/fs/resctrl".into())
        );
        assert_eq!(mount_point("1 0 8:1 /resctrl / rw - ext4 resctrl rw\n"), None);
    }
}

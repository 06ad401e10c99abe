// SPDX-License-Identifier: Apache-2.0
//! Devices by name, `vendor.com/class=name`: the Container Device Interface,
//! version 1.1. Files that a vendor has written say what a container needs
//! for a device; here they are read, looked through, and put into a
//! specification. Where the files are is for lifecycle to know. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use oci_spec::runtime::{Hook, Hooks, LinuxIntelRdt, LinuxNetDevice, Mount, Spec};
use serde::Deserialize;

use super::command;
use crate::error::{Error, Kind, Result};

/// A file of the interface.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct File {
    cdi_version: String,
    /// `vendor.com/class`
    kind: String,
    #[serde(default)]
    devices: Vec<Device>,
    /// For any of its devices, once.
    #[serde(default)]
    container_edits: Edits,
    #[serde(default)]
    #[expect(dead_code, reason = "part of the format; nothing is done with it")]
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Device {
    name: String,
    #[serde(default)]
    container_edits: Edits,
    #[serde(default)]
    #[expect(dead_code, reason = "part of the format; nothing is done with it")]
    annotations: BTreeMap<String, String>,
}

/// What is changed of a container for its devices.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Edits {
    env: Vec<String>,
    /// Nodes, which lifecycle looks up on the host.
    pub device_nodes: Vec<Node>,
    net_devices: Vec<NetDevice>,
    mounts: Vec<MountEdit>,
    hooks: Vec<HookEdit>,
    intel_rdt: Option<LinuxIntelRdt>,
    additional_gids: Vec<u32>,
}

/// A device node.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Node {
    /// In the container; absolute.
    pub path: String,
    /// On the host, if it has another name there.
    pub host_path: Option<String>,
    /// `c`, `u`, `b` or `p`; the host's, unless it is said.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The host's, unless it is said.
    pub major: Option<i64>,
    /// The host's, unless it is said.
    pub minor: Option<i64>,
    /// Bits of its mode; the host's, unless they are said.
    pub file_mode: Option<u32>,
    /// `r`, `w`, `m`; all of them, unless it is said.
    pub permissions: Option<String>,
    /// Owner in the container; 0, unless it is said.
    pub uid: Option<u32>,
    /// Owner in the container; 0, unless it is said.
    pub gid: Option<u32>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NetDevice {
    host_interface_name: String,
    name: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MountEdit {
    host_path: String,
    container_path: String,
    #[serde(default)]
    options: Vec<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HookEdit {
    hook_name: String,
    path: PathBuf,
    args: Option<Vec<String>>,
    env: Option<Vec<String>>,
    timeout: Option<i64>,
}

/// Whether `text` names a device by the interface: `vendor.com/class=name`.
///
/// # Errors
/// `InvalidArgument` says what is wrong with it.
pub fn check_name(text: &str) -> Result<()> {
    let wrong = || Error::new(Kind::InvalidArgument, format!("invalid CDI device name {:?}", text));
    let (kind, name) = text.split_once('=').ok_or_else(wrong)?;
    if is_kind(kind) && is_word(name, b"_-.:", true) { Ok(()) } else { Err(wrong()) }
}

/// `vendor.com/class`
fn is_kind(kind: &str) -> bool {
    let letter = |text: &str| text.starts_with(|c: char| c.is_ascii_alphabetic());
    kind.split_once('/').is_some_and(|(vendor, class)| {
        letter(vendor) && letter(class) && is_word(vendor, b"_-.", false) && is_word(class, b"_-.", false)
    })
}

/// Letters and digits, and between them these too.
fn is_word(text: &str, more: &[u8], digit_first: bool) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    (first.is_ascii_alphabetic() || digit_first && first.is_ascii_digit())
        && last.is_ascii_alphanumeric()
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || more.contains(byte))
}

impl File {
    /// Reads a file; JSON is YAML, too.
    ///
    /// # Errors
    /// What is wrong with it, in a line.
    pub fn read(text: &str) -> std::result::Result<Self, String> {
        let file: Self = serde_saphyr::from_str(text)
            .map_err(|e| e.to_string().lines().next().unwrap_or_default().to_owned())?;
        let version = file.cdi_version.trim_start_matches('v');
        if !["0.", "1."].iter().any(|known| version.starts_with(known)) {
            return Err(format!("cdiVersion {:?} is not supported", file.cdi_version));
        }
        if !is_kind(&file.kind) {
            return Err(format!("kind {:?} is not vendor/class", file.kind));
        }
        for edits in file.devices.iter().map(|d| &d.container_edits).chain([&file.container_edits]) {
            edits.check()?;
        }
        Ok(file)
    }
}

impl Edits {
    fn check(&self) -> std::result::Result<(), String> {
        if let Some(env) = self.env.iter().find(|env| env.starts_with('=') || !env.contains('=')) {
            return Err(format!("env {env:?} is not NAME=VALUE"));
        }
        let inside = self.mounts.iter().flat_map(|m| [&m.host_path, &m.container_path]);
        let nodes = self.device_nodes.iter().flat_map(|n| [Some(&n.path), n.host_path.as_ref()]).flatten();
        if let Some(path) = inside.chain(nodes).find(|path| !is_plain(path)) {
            return Err(format!("{path:?} is not an absolute path"));
        }
        for node in &self.device_nodes {
            let access = node.permissions.as_deref().unwrap_or_default();
            if !access.bytes().all(|byte| b"rwm".contains(&byte)) {
                return Err(format!("permissions {access:?} of {}", node.path));
            }
        }
        match self.hooks.iter().find(|hook| !MOMENTS.contains(&hook.hook_name.as_str())) {
            Some(hook) => Err(format!("hookName {:?} is none of the runtime specification", hook.hook_name)),
            None => Ok(()),
        }
    }

    fn add(&mut self, more: &Self) {
        self.env.extend_from_slice(&more.env);
        self.device_nodes.extend_from_slice(&more.device_nodes);
        self.net_devices.extend_from_slice(&more.net_devices);
        self.mounts.extend_from_slice(&more.mounts);
        self.hooks.extend_from_slice(&more.hooks);
        self.additional_gids.extend_from_slice(&more.additional_gids);
        if more.intel_rdt.is_some() {
            self.intel_rdt.clone_from(&more.intel_rdt);
        }
    }

    /// Puts all but the nodes into a specification.
    pub fn apply(self, spec: &mut Spec) {
        if !self.env.is_empty() {
            let process = spec.process_mut().get_or_insert_default();
            command::change(process.env_mut().get_or_insert_default(), &self.env);
        }
        if !self.additional_gids.is_empty() {
            let user = spec.process_mut().get_or_insert_default().user_mut();
            let gids = user.additional_gids_mut().get_or_insert_default();
            gids.extend(self.additional_gids.iter().filter(|gid| **gid != 0));
        }
        if !self.mounts.is_empty() {
            spec.mounts_mut().get_or_insert_default().extend(self.mounts.into_iter().map(mount));
        }
        for edit in self.hooks {
            add_hook(spec.hooks_mut().get_or_insert_default(), edit);
        }
        if self.intel_rdt.is_some() {
            spec.linux_mut().get_or_insert_default().set_intel_rdt(self.intel_rdt);
        }
        if !self.net_devices.is_empty() {
            let linux = spec.linux_mut().get_or_insert_default();
            linux
                .net_devices_mut()
                .get_or_insert_default()
                .extend(self.net_devices.into_iter().map(net_device));
        }
    }
}

/// Whether a path is absolute and says where it leads, in one line.
pub(super) fn is_plain(path: &str) -> bool {
    path.starts_with('/') && !path.split('/').any(|part| part == "..") && !path.contains(['\0', '\n'])
}

/// The runtime specification's names of hooks.
const MOMENTS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

fn add_hook(hooks: &mut Hooks, edit: HookEdit) {
    let mut hook = Hook::default();
    hook.set_path(edit.path).set_args(edit.args).set_env(edit.env).set_timeout(edit.timeout);
    let of_its_moment = match edit.hook_name.as_str() {
        "prestart" => hooks.prestart_mut(),
        "createRuntime" => hooks.create_runtime_mut(),
        "createContainer" => hooks.create_container_mut(),
        "startContainer" => hooks.start_container_mut(),
        "poststart" => hooks.poststart_mut(),
        _ => hooks.poststop_mut(),
    };
    of_its_moment.get_or_insert_default().push(hook);
}

fn mount(edit: MountEdit) -> Mount {
    let kind = edit.kind.unwrap_or_else(|| "bind".to_owned());
    let bound = edit.options.iter().any(|option| option == "bind" || option == "rbind");
    let mut options = edit.options;
    if kind == "bind" && !bound {
        options.push("rbind".to_owned());
    }
    let mut mount = Mount::default();
    mount
        .set_source(Some(edit.host_path.into()))
        .set_destination(edit.container_path.into())
        .set_typ(Some(kind))
        .set_options(Some(options));
    mount
}

fn net_device(edit: NetDevice) -> (String, LinuxNetDevice) {
    let mut device = LinuxNetDevice::default();
    device.set_name(Some(edit.name));
    (edit.host_interface_name, device)
}

/// What the devices of these names need. `files` come in the order of their
/// directories, the last of which counts most: each with the number of its
/// directory.
///
/// # Errors
/// `InvalidArgument`, in Docker's words, for a name that no file has, or that
/// two files of one directory have.
pub fn resolve(files: &[(usize, File)], names: &[String]) -> Result<Edits> {
    let mut edits = Edits::default();
    let mut of_files = BTreeSet::new();
    let mut missing = Vec::new();
    for name in names {
        check_name(name)?;
        let found = files.iter().enumerate().filter_map(|(n, (directory, file))| {
            let device = name.strip_prefix(file.kind.as_str())?.strip_prefix('=')?;
            file.devices.iter().find(|d| d.name == device).map(|device| (*directory, n, device))
        });
        let found: Vec<_> = found.collect();
        let Some((directory, n, device)) = found.last() else {
            missing.push(name.as_str());
            continue;
        };
        if found.iter().filter(|(other, ..)| other == directory).count() > 1 {
            return Err(failed(&format!("conflicting device {name:?}: two files describe it")));
        }
        if of_files.insert(*n) {
            edits.add(&files[*n].1.container_edits);
        }
        edits.add(&device.container_edits);
    }
    if missing.is_empty() {
        Ok(edits)
    } else {
        Err(failed(&format!("unresolvable CDI devices {}", missing.join(", "))))
    }
}

fn failed(why: &str) -> Error {
    Error::new(Kind::InvalidArgument, format!("CDI device injection failed: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "
cdiVersion: 0.6.0
kind: example.com/gpu
devices:
- name: '0'
  containerEdits:
    deviceNodes:
    - path: /dev/gpu0
      hostPath: /dev/null
      permissions: rw
- name: all
  containerEdits:
    env: [WHICH=all]
containerEdits:
  env:
  - PATH=/gpu/bin
  - SHARED=yes
  mounts:
  - hostPath: /usr/lib/gpu.so
    containerPath: /usr/lib/gpu.so
    options: [ro, nosuid, nodev, bind]
  hooks:
  - hookName: createContainer
    path: /usr/bin/gpu-hook
    args: [gpu-hook, update]
  additionalGids: [0, 44]
";

    fn names(all: &[&str]) -> Vec<String> {
        all.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn a_file_says_what_a_device_needs() {
        let file = File::read(YAML).expect("a file");
        let edits =
            resolve(&[(0, file)], &names(&["example.com/gpu=0", "example.com/gpu=all"])).expect("edits");
        assert_eq!(edits.device_nodes.len(), 1);
        assert_eq!(edits.device_nodes[0].host_path.as_deref(), Some("/dev/null"));
        let mut spec = Spec::default();
        edits.apply(&mut spec);
        let process = spec.process().clone().expect("process");
        let env = process.env().clone().expect("env");
        assert_eq!(env.iter().filter(|e| e.starts_with("PATH=")).collect::<Vec<_>>(), ["PATH=/gpu/bin"]);
        assert_eq!(env.iter().filter(|e| *e == "SHARED=yes").count(), 1, "once for both: {env:?}");
        assert!(env.contains(&"WHICH=all".to_owned()));
        assert_eq!(process.user().additional_gids().clone().expect("groups").last(), Some(&44));
        let hooks = spec.hooks().clone().expect("hooks").create_container().clone().expect("hooks");
        assert_eq!(hooks[0].path(), &PathBuf::from("/usr/bin/gpu-hook"));
        let mounts = spec.mounts().clone().expect("mounts");
        assert_eq!(mounts.last().expect("one").destination(), &PathBuf::from("/usr/lib/gpu.so"));
    }

    #[test]
    fn the_last_directory_counts_and_two_files_of_one_conflict() {
        let file = |which: &str| {
            let text = format!(
                r#"{{"cdiVersion": "1.0.0", "kind": "a.b/c", "devices":
                    [{{"name": "d", "containerEdits": {{"env": ["FROM={which}"]}}}}]}}"#
            );
            File::read(&text).expect("a file")
        };
        let edits = resolve(&[(0, file("etc")), (1, file("run"))], &names(&["a.b/c=d"])).expect("edits");
        assert_eq!(edits.env, ["FROM=run"]);
        let e = resolve(&[(1, file("x")), (1, file("y"))], &names(&["a.b/c=d"])).expect_err("two");
        assert!(e.to_string().contains("conflicting device"), "{e}");
        let e = resolve(&[(0, file("x"))], &names(&["a.b/c=e", "a.b/x=d"])).expect_err("none");
        assert_eq!(e.to_string(), "CDI device injection failed: unresolvable CDI devices a.b/c=e, a.b/x=d");
    }

    #[test]
    fn names_and_files_that_are_none() {
        for good in ["a.b/c=d", "vendor/class=0", "nvidia.com/gpu=GPU-1:2_x", "x/y-z=1"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a/b", "/dev/null", "a/b=", "a=b", "1/b=c", "a/b=c ", "a/b=-c", "a b/c=d", "a/b/c=d"]
        {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        let with = |edits: &str| {
            File::read(&format!("cdiVersion: 1.0.0\nkind: a/b\ncontainerEdits: {edits}")).map(drop)
        };
        assert_eq!(with("{env: [A=b]}"), Ok(()));
        for bad in [
            "{env: [novalue]}",
            "{mounts: [{hostPath: ../x, containerPath: /x}]}",
            "{deviceNodes: [{path: /dev/x, permissions: rwx}]}",
            "{hooks: [{hookName: never, path: /x}]}",
            "{surprise: 1}",
        ] {
            assert!(with(bad).is_err(), "{bad}");
        }
        assert!(File::read("cdiVersion: 2.0.0\nkind: a/b").is_err());
        assert!(File::read("cdiVersion: 1.0.0\nkind: ab").is_err());
        assert!(File::read("\t: [").is_err());
    }
}

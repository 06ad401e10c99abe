// SPDX-License-Identifier: Apache-2.0
//! `spec`: a specification to start from, in the bundle.

use std::{
    fs::OpenOptions,
    io::{ErrorKind, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use serde::Serialize as _;
use serde_json::{Value, json, ser::PrettyFormatter};

use super::{
    Context, Failure, Outcome,
    cli::{Matches, Verb, option, switch},
    create::{CONFIG, SPECIFICATION},
};
use crate::cgroup::Layout;

pub(super) const VERB: Verb = Verb {
    name: "spec",
    usage: "create a new specification file",
    arguments: "",
    flags: &[
        option("bundle", "b", "path to the root of the bundle directory"),
        switch("rootless", "", "generate a configuration for a rootless container"),
    ],
    flags_until: usize::MAX,
    takes: (0, 0),
    run: spec,
};

fn spec(_: &Context, matches: &Matches) -> Outcome {
    let mut spec = example(matches!(Layout::of_host(), Ok(Layout::V2(_))));
    if matches.has("rootless") {
        make_rootless(&mut spec);
    }
    let path = matches.path("bundle").unwrap_or_else(|| PathBuf::from(".")).join(CONFIG);
    let failed = |e: std::io::Error| match e.kind() {
        ErrorKind::AlreadyExists => Failure::new(format!("File {CONFIG} exists. Remove it first")),
        _ => Failure::io(path.display(), &e),
    };
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(failed)?;
    let mut text = Vec::new();
    let mut writer = serde_json::Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"\t"));
    spec.serialize(&mut writer).map_err(|e| Failure::new(e.to_string()))?;
    file.write_all(&text).map_err(failed)?;
    Ok(ExitCode::SUCCESS)
}

/// A shell in a container with few rights.
fn example(v2: bool) -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let mut namespaces: Vec<Value> =
        ["pid", "network", "ipc", "uts", "mount"].map(|kind| json!({"type": kind})).into();
    if v2 {
        namespaces.push(json!({"type": "cgroup"}));
    }
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": source, "options": options});
    json!({
        "ociVersion": SPECIFICATION,
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "berth",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": namespaces,
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

/// What a user without rights can run: one id, the host's network, no limits.
fn make_rootless(spec: &mut Value) {
    let mapping = |host: u32| json!([{"containerID": 0, "hostID": host, "size": 1}]);
    let linux = &mut spec["linux"];
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({"type": "user"}));
    }
    linux["uidMappings"] = mapping(nix::unistd::geteuid().as_raw());
    linux["gidMappings"] = mapping(nix::unistd::getegid().as_raw());
    if let Some(linux) = linux.as_object_mut() {
        linux.remove("resources");
    }
    for mount in spec["mounts"].as_array_mut().into_iter().flatten() {
        if mount["destination"] == "/sys" {
            // A new sysfs belongs to who has made the network namespace.
            *mount = json!({"destination": "/sys", "type": "none", "source": "/sys",
                "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]});
        }
        if let Some(options) = mount["options"].as_array_mut() {
            let is_id =
                |o: &Value| o.as_str().is_some_and(|o| o.starts_with("uid=") || o.starts_with("gid="));
            options.retain(|option| !is_id(option));
        }
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::Spec;

    use super::*;

    #[test]
    fn both_examples_are_specifications() {
        let mut value = example(true);
        let spec: Spec = serde_json::from_value(value.clone()).expect("specification");
        assert_eq!(spec.version(), SPECIFICATION);
        assert_eq!(spec.linux().as_ref().expect("linux").namespaces().as_ref().expect("list").len(), 6);
        make_rootless(&mut value);
        let spec: Spec = serde_json::from_value(value.clone()).expect("specification");
        let linux = spec.linux().as_ref().expect("linux");
        assert_eq!(linux.uid_mappings().as_ref().expect("mapping").len(), 1);
        assert!(linux.resources().is_none());
        assert!(!value.to_string().contains("gid="), "{value}");
    }
}

// SPDX-License-Identifier: Apache-2.0
//! No field of a specification is silently ignored: whatever runtime-spec 1.3
//! has for Linux changes what is done, or is refused by name. Tests only.

use std::path::Path;

use serde_json::{Value, json};

use super::{super::spec, joining};
use crate::{cgroup::Resctrl, runtime::hooks::Hooks};

/// Every field of config.json for Linux, with a value (runtime-spec 1.3:
/// config.md, config-linux.md).
fn everything() -> Value {
    let mapping = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
    let throttle = json!([{"major": 8, "minor": 1, "rate": 600}]);
    let hook = json!([{"path": "/hook", "args": ["hook", "x"], "env": ["A=b"], "timeout": 3}]);
    json!({
        "ociVersion": "1.3.0",
        "hostname": "name",
        "domainname": "domain",
        "annotations": {"org.example": "x"},
        "root": {"path": "rootfs", "readonly": true},
        "process": {
            "terminal": true,
            "consoleSize": {"height": 20, "width": 30},
            "user": {"uid": 1, "gid": 2, "umask": 3, "additionalGids": [4]},
            "args": ["a", "b"],
            "env": ["A=b"],
            "cwd": "/c",
            "capabilities": {
                "bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"],
                "inheritable": ["CAP_CHOWN"], "ambient": ["CAP_CHOWN"],
            },
            "rlimits": [{"type": "RLIMIT_CORE", "soft": 1, "hard": 3}],
            "noNewPrivileges": true,
            "apparmorProfile": "profile",
            "oomScoreAdj": 5,
            "selinuxLabel": "label",
            "scheduler": {"policy": "SCHED_OTHER", "nice": 1, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 3},
            "execCPUAffinity": {"initial": "0", "final": "1"},
        },
        "mounts": [
            {"destination": "/m", "type": "tmpfs", "source": "s", "options": ["size=1k"]},
            {"destination": "/b", "type": "bind", "source": "/s", "options": ["rbind", "ro", "ridmap"],
             "uidMappings": mapping, "gidMappings": mapping},
        ],
        "hooks": {
            "prestart": hook, "createRuntime": hook, "createContainer": hook, "startContainer": hook,
            "poststart": hook, "poststop": hook,
        },
        "linux": {
            "uidMappings": mapping,
            "gidMappings": mapping,
            "timeOffsets": {"monotonic": {"secs": 1, "nanosecs": 2}, "boottime": {"secs": 3, "nanosecs": 4}},
            "sysctl": {"net.ipv4.ip_forward": "1"},
            "netDevices": {"eth9": {"name": "eth1"}},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc", "path": "/run/ipc"}, {"type": "uts"},
                {"type": "mount"}, {"type": "user"}, {"type": "cgroup"}, {"type": "time"},
            ],
            "devices": [{
                "path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 384, "uid": 1, "gid": 2,
            }],
            "resources": {
                "devices": [{"allow": true, "type": "c", "major": 5, "minor": 6, "access": "rw"}],
                "memory": {
                    "limit": 100_000, "reservation": 50_000, "swap": 200_000, "swappiness": 7,
                    "disableOOMKiller": false, "checkBeforeUpdate": true,
                },
                "cpu": {
                    "shares": 100, "quota": 2000, "period": 3000, "burst": 10, "realtimeRuntime": 5,
                    "realtimePeriod": 6, "cpus": "0", "mems": "0", "idle": 0,
                },
                "pids": {"limit": 9},
                "blockIO": {
                    "weight": 20, "leafWeight": 30,
                    "weightDevice": [{"major": 8, "minor": 0, "weight": 40, "leafWeight": 50}],
                    "throttleReadBpsDevice": throttle, "throttleWriteBpsDevice": throttle,
                    "throttleReadIOPSDevice": throttle, "throttleWriteIOPSDevice": throttle,
                },
                "hugepageLimits": [{"pageSize": "2MB", "limit": 4096}],
                "network": {"classID": 7, "priorities": [{"name": "eth0", "priority": 8}]},
                "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 4}},
                "unified": {"memory.high": "1000"},
            },
            "rootfsPropagation": "slave",
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 5,
                "architectures": ["SCMP_ARCH_NATIVE"], "flags": ["SECCOMP_FILTER_FLAG_LOG"],
                "listenerPath": "/agent", "listenerMetadata": "words",
                "syscalls": [
                    {"names": ["mount"], "action": "SCMP_ACT_NOTIFY"},
                    {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 9,
                     "args": [{"index": 1, "value": 15, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"}]},
                ],
            },
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
            "mountLabel": "system_u:object_r:container_file_t:s0",
            "intelRdt": {
                "closID": "class", "schemata": ["L2:0=3"], "l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=20",
                "enableMonitoring": true,
            },
            "personality": {"domain": "LINUX"},
            "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]},
        },
    })
}

/// What can't be together with all of the above, as changes of it.
fn others() -> [(&'static str, Value); 6] {
    [
        (
            "/process/scheduler",
            json!({"policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 2_000_000, "period": 3_000_000}),
        ),
        ("/process/scheduler", json!({"policy": "SCHED_FIFO", "priority": 3})),
        ("/linux/resources/memory", json!({"useHierarchy": false})),
        ("/linux/resources/memory", json!({"disableOOMKiller": true})),
        ("/linux/intelRdt", json!({"enableCMT": true})),
        ("/linux/intelRdt", json!({"enableMBM": true})),
    ]
}

/// Set, they have to be noticed; another value changes nothing, because the
/// kernel has nothing left that it could be written to.
const OBSOLETE: [(&str, u32); 2] =
    [("/linux/resources/memory/kernel", 4096), ("/linux/resources/memory/kernelTCP", 4096)];

/// The type of a bind says nothing (config.md, "Mounts").
const DUMMIES: [&str; 1] = ["/mounts/1/type"];

/// All that is made of a specification, or what is wrong with it.
fn made_of(spec: &Value) -> Result<String, String> {
    let text = spec.to_string();
    let read = spec::read(text.as_bytes()).map_err(|e| e.to_string())?;
    let made = || {
        let bundle = Path::new("/bundle");
        let plan = super::plan(&read.value, bundle, &[], "", &[])?;
        let hooks = Hooks::of(&read.value, "id", bundle)?;
        let process = read.value.process().clone().unwrap_or_default();
        let joining = joining::plan(&read.value, process, "")?;
        let linux = read.value.linux().as_ref();
        let resctrl = linux.and_then(|linux| linux.intel_rdt().as_ref());
        let resctrl =
            resctrl.map(|wanted| Resctrl::plan(wanted, "id", "/sys/fs/resctrl".into())).transpose()?;
        Ok(format!("{:?}{plan:?}{hooks:?}{joining:?}{resctrl:?}", read.warnings))
    };
    made().map_err(|e: super::Error| e.to_string())
}

/// The pointers to all leaves.
fn leaves(value: &Value, at: &str) -> Vec<String> {
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(fields) => {
            fields.iter().flat_map(|(key, value)| leaves(value, &format!("{at}/{}", escaped(key)))).collect()
        }
        Value::Array(items) => {
            items.iter().enumerate().flat_map(|(n, value)| leaves(value, &format!("{at}/{n}"))).collect()
        }
        _ => vec![at.to_owned()],
    }
}

/// Another value of the same kind, right or wrong.
fn other(value: &Value) -> Value {
    match value {
        Value::Bool(on) => json!(!on),
        Value::Number(n) => json!(n.as_i64().expect("small") + 1),
        Value::String(text) => json!(format!("{text}1")),
        other => panic!("{other} is no leaf"),
    }
}

/// What is wrong with how a change of `base` at `pointer` is taken: it should
/// make something else, or an error that names the field or the value.
fn fault(base: &Value, pointer: &str, changed: &Value) -> Option<String> {
    let mut spec = base.clone();
    *spec.pointer_mut(pointer).expect(pointer) = changed.clone();
    let before = made_of(base).expect("the base is right");
    match made_of(&spec) {
        Ok(after) => (after == before).then(|| format!("{pointer} is ignored")),
        Err(why) => {
            let value = changed.as_str().map_or_else(|| changed.to_string(), str::to_owned);
            let named = pointer.split('/').filter(|part| part.parse::<usize>().is_err());
            let names: Vec<_> =
                named.filter(|part| !["", "linux", "process", "resources"].contains(part)).collect();
            let is_named = why.contains(&value) || names.iter().any(|name| why.contains(name));
            (!is_named).then(|| format!("{pointer} is not named: {why}"))
        }
    }
}

#[test]
fn no_field_is_ignored() {
    let base = everything();
    made_of(&base).expect("all of it together");
    let mut faults = Vec::new();
    for pointer in leaves(&base, "").iter().filter(|pointer| !DUMMIES.contains(&pointer.as_str())) {
        faults.extend(fault(&base, pointer, &other(base.pointer(pointer).expect("there"))));
    }
    for (pointer, value) in others() {
        faults.extend(fault(&base, pointer, &value));
        let mut base = base.clone();
        *base.pointer_mut(pointer).expect(pointer) = value.clone();
        for leaf in leaves(&value, pointer) {
            faults.extend(fault(&base, &leaf, &other(base.pointer(&leaf).expect("there"))));
        }
    }
    for (pointer, value) in OBSOLETE {
        let (parent, key) = pointer.rsplit_once('/').expect("a field");
        let mut changed = base.pointer(parent).expect(parent).clone();
        changed[key] = json!(value);
        faults.extend(fault(&base, parent, &changed));
    }
    let flags = json!({"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]});
    faults.extend(fault(&base, "/linux/personality", &flags));
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn what_the_specification_doesnt_have_is_ignored() {
    let base = everything();
    let before = made_of(&base).expect("the base is right");
    for parent in
        ["", "/process", "/process/user", "/root", "/linux", "/linux/resources", "/linux/resources/memory"]
    {
        let mut spec = base.clone();
        spec.pointer_mut(parent).expect(parent)["org.example.unknown"] = json!({"x": 1});
        assert_eq!(made_of(&spec).as_ref(), Ok(&before), "{parent}");
    }
}

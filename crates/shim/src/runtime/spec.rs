// SPDX-License-Identifier: Apache-2.0
//! Reads a `config.json`. Where oci-spec is stricter than the specification,
//! or spells a name otherwise, the text is amended first; this is the one
//! place that knows. Pure. Called by whoever has a bundle, and for the process
//! of an `exec`.

use oci_spec::runtime::{
    Capability, LinuxIntelRdt, LinuxResources, MemoryPolicyFlagType, MemoryPolicyModeType, PosixRlimitType,
    Process, Spec,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::error::{Error, Result};

/// The newest version of the specification that all is known of.
pub const VERSION: &str = "1.3.0";

/// The specification's names that oci-spec 0.10 has otherwise.
const SCHEDULER_FLAGS: [(&str, &str); 2] = [
    ("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"),
    ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN"),
];
const CAPABILITY_SETS: [&str; 5] = ["bounding", "effective", "inheritable", "permitted", "ambient"];

/// What was read, and what of it could not be understood but may be left out.
#[derive(Debug)]
pub struct Read<T> {
    /// The value.
    pub value: T,
    /// For the log, one a line.
    pub warnings: Vec<String>,
}

/// Reads a specification.
///
/// # Errors
/// `InvalidSpec` for what is no specification; names the field where it can.
pub fn read(text: &[u8]) -> Result<Read<Spec>> {
    let mut read: Read<Spec> = parse(text, |spec, warnings| {
        spec.pointer("/linux/memoryPolicy").map_or(Ok(()), check_memory_policy)?;
        spec.get_mut("process").map_or(Ok(()), |process| amend(process, warnings))
    })?;
    let minor = minor_version(read.value.version())?;
    let resources = read.value.linux_mut().as_mut().and_then(|linux| linux.resources_mut().as_mut());
    match resources {
        Some(resources) if minor >= 3 => forget_unset(resources, text, "/linux/resources/pids/limit")?,
        // Whoever wrote it by an earlier version means no limit by zero.
        Some(resources) if resources.pids().is_some_and(|pids| pids.limit() == 0) => {
            resources.set_pids(None);
        }
        _ => {}
    }
    let rdt = read.value.linux_mut().as_mut().and_then(|linux| linux.intel_rdt_mut().as_mut());
    rdt.map_or(Ok(()), |rdt| read_monitors(rdt, text))?;
    Ok(read)
}

/// Reads resources alone, as an update has them.
///
/// # Errors
/// `InvalidSpec` for anything else.
pub fn read_resources(text: &[u8]) -> Result<LinuxResources> {
    let invalid = |e: serde_json::Error| Error::invalid(format!("linux.resources: {e}"));
    let mut resources = serde_json::from_slice(text).map_err(invalid)?;
    forget_unset(&mut resources, text, "/pids/limit")?;
    Ok(resources)
}

/// Since version 1.3 of the specification a limit of no processes is one, and
/// no limit is none. oci-spec reads zero for both: the text decides.
fn forget_unset(resources: &mut LinuxResources, text: &[u8], limit: &str) -> Result<()> {
    if resources.pids().is_none_or(|pids| pids.limit() != 0) {
        return Ok(());
    }
    if whole(text)?.pointer(limit).is_none() {
        resources.set_pids(None);
    }
    Ok(())
}

/// oci-spec has these two fields by other names.
fn read_monitors(rdt: &mut LinuxIntelRdt, text: &[u8]) -> Result<()> {
    let value = whole(text)?;
    let flag = |name: &str| match value.pointer(&format!("/linux/intelRdt/{name}")) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(on)) => Ok(Some(*on)),
        Some(other) => {
            Err(Error::invalid(format!("linux.intelRdt.{name}: {other} is neither true nor false")))
        }
    };
    rdt.set_enable_cmt(flag("enableCMT")?).set_enable_mbm(flag("enableMBM")?);
    Ok(())
}

fn whole(text: &[u8]) -> Result<Value> {
    serde_json::from_slice(text).map_err(|e| Error::invalid(format!("config.json: {e}")))
}

/// Reads a process alone, as `exec --process` has it.
///
/// # Errors
/// As [`read`].
pub fn read_process(text: &[u8]) -> Result<Read<Process>> {
    parse(text, |process, warnings| {
        // Zeros in Go, and what runc's callers leave out.
        if let Some(process) = process.as_object_mut() {
            process.entry("user").or_insert_with(|| json!({"uid": 0, "gid": 0}));
        }
        amend(process, warnings)
    })
}

/// Parses as it is, or amended when that fails.
fn parse<T: DeserializeOwned>(
    text: &[u8],
    amend: impl FnOnce(&mut Value, &mut Vec<String>) -> Result<()>,
) -> Result<Read<T>> {
    if let Ok(value) = serde_json::from_slice(text) {
        return Ok(Read { value, warnings: Vec::new() });
    }
    let invalid = |e: serde_json::Error| Error::invalid(format!("config.json: {e}"));
    let mut value = serde_json::from_slice(text).map_err(invalid)?;
    let mut warnings = Vec::new();
    amend(&mut value, &mut warnings)?;
    Ok(Read { value: serde_json::from_value(value).map_err(invalid)?, warnings })
}

fn amend(process: &mut Value, warnings: &mut Vec<String>) -> Result<()> {
    warnings.extend(drop_unknown_capabilities(process));
    for flag in process.pointer_mut("/scheduler/flags").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some((_, name)) = SCHEDULER_FLAGS.iter().find(|(name, _)| flag.as_str() == Some(name)) {
            *flag = Value::from(*name);
        }
    }
    // An empty list says nothing (config.md, execCPUAffinity).
    if let Some(affinity) = process.get_mut("execCPUAffinity").and_then(Value::as_object_mut) {
        affinity.retain(|_, list| list.as_str() != Some(""));
    }
    for limit in process.get("rlimits").and_then(Value::as_array).into_iter().flatten() {
        let name = limit.get("type").and_then(Value::as_str).unwrap_or_default();
        if name.parse::<PosixRlimitType>().is_err() {
            return Err(Error::invalid(format!("process.rlimits: {name:?} is no limit that Linux has")));
        }
    }
    Ok(())
}

/// Names of a memory policy that Linux doesn't have are said to be wrong in
/// runc's words.
fn check_memory_policy(policy: &Value) -> Result<()> {
    let mode = policy.get("mode").cloned().unwrap_or_else(|| Value::from(""));
    if serde_json::from_value::<MemoryPolicyModeType>(mode.clone()).is_err() {
        return Err(Error::invalid(format!("linux.memoryPolicy: invalid memory policy mode {mode}")));
    }
    let flags = policy.get("flags").and_then(Value::as_array).into_iter().flatten();
    let mut unknown =
        flags.filter(|flag| serde_json::from_value::<MemoryPolicyFlagType>((*flag).clone()).is_err());
    match unknown.next() {
        Some(flag) => Err(Error::invalid(format!("linux.memoryPolicy: invalid memory policy flag {flag}"))),
        None => Ok(()),
    }
}

/// The specification wants them logged, and the container to go on.
fn drop_unknown_capabilities(process: &mut Value) -> Option<String> {
    let mut unknown: Vec<String> = Vec::new();
    for set in CAPABILITY_SETS {
        let list = process.get_mut("capabilities").and_then(|sets| sets.get_mut(set));
        let Some(list) = list.and_then(Value::as_array_mut) else { continue };
        list.retain(|name| {
            let known = serde_json::from_value::<Capability>(name.clone()).is_ok();
            if !known {
                unknown.push(name.as_str().map_or_else(|| name.to_string(), ToOwned::to_owned));
            }
            known
        });
    }
    unknown.sort_unstable();
    unknown.dedup();
    (!unknown.is_empty())
        .then(|| format!("ignoring unknown or unavailable capabilities: [{}]", unknown.join(" ")))
}

/// Any 1.x: what a later one adds and we don't know is an error where it is
/// used.
fn minor_version(version: &str) -> Result<u32> {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<_> = core.split('.').map(|n| n.parse::<u32>().ok()).collect();
    match numbers[..] {
        [Some(1), Some(minor), Some(_)] => Ok(minor),
        _ => {
            let why = format!("ociVersion: {version:?} is not supported: versions 1.0.0 to {VERSION} are");
            Err(Error::invalid(why))
        }
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::LinuxSchedulerFlag;
    use serde_json::json;

    use super::*;

    fn process(value: Value) -> Result<Read<Process>> {
        let mut process = json!({"cwd": "/", "args": ["x"], "user": {"uid": 0, "gid": 0}});
        let fields = value.as_object().expect("an object").clone();
        process.as_object_mut().expect("an object").extend(fields);
        read_process(process.to_string().as_bytes())
    }

    #[test]
    fn unknown_capabilities_are_left_out_and_said() {
        let caps = json!({"capabilities": {"bounding": ["CAP_CHOWN", "TEST_CAP", "CAP_ZZZ"], "ambient": ["TEST_CAP"]}});
        let read = process(caps).expect("process");
        assert_eq!(read.warnings, ["ignoring unknown or unavailable capabilities: [CAP_ZZZ TEST_CAP]"]);
        let sets = read.value.capabilities().clone().expect("capabilities");
        assert_eq!(sets.bounding().iter().flatten().collect::<Vec<_>>(), [&Capability::Chown]);
        let known = process(json!({"capabilities": {"bounding": ["CAP_CHOWN"]}})).expect("process");
        assert!(known.warnings.is_empty());
    }

    #[test]
    fn the_specifications_names_are_understood() {
        let all = [
            "SCHED_FLAG_RESET_ON_FORK",
            "SCHED_FLAG_RECLAIM",
            "SCHED_FLAG_DL_OVERRUN",
            "SCHED_FLAG_KEEP_POLICY",
            "SCHED_FLAG_KEEP_PARAMS",
            "SCHED_FLAG_UTIL_CLAMP_MIN",
            "SCHED_FLAG_UTIL_CLAMP_MAX",
        ];
        let read = process(json!({"scheduler": {"policy": "SCHED_FIFO", "flags": all}})).expect("flags");
        let flags = read.value.scheduler().as_ref().and_then(|s| s.flags().clone()).expect("flags");
        assert_eq!(flags.len(), all.len());
        assert_eq!(
            flags[..3],
            [
                LinuxSchedulerFlag::SchedResetOnFork,
                LinuxSchedulerFlag::SchedFlagReclaim,
                LinuxSchedulerFlag::SchedFlagDLOverrun,
            ]
        );
        let read = process(json!({"execCPUAffinity": {"initial": "0", "final": ""}})).expect("affinity");
        let affinity = read.value.exec_cpu_affinity().clone().expect("affinity");
        assert_eq!((affinity.initial().as_deref(), affinity.cpu_affinity_final()), (Some("0"), &None));
    }

    #[test]
    fn an_unknown_limit_is_refused_by_name() {
        let e =
            process(json!({"rlimits": [{"type": "RLIMIT_TEST", "soft": 1, "hard": 1}]})).expect_err("limit");
        assert_eq!(e.to_string(), r#"process.rlimits: "RLIMIT_TEST" is no limit that Linux has"#);
    }

    #[test]
    fn versions() {
        for (good, minor) in
            [("1.0.0", 0), ("1.3.0", 3), ("1.0.2-dev", 0), ("1.2.0-rc5+x", 2), ("1.99.0", 99)]
        {
            assert_eq!(minor_version(good), Ok(minor));
        }
        for bad in ["", "invalid", "1", "1.0", "2.0.0", "1.0.x", "1.0.0.0", "0.9.0"] {
            let e = minor_version(bad).expect_err(bad).to_string();
            assert!(e.starts_with(&format!("ociVersion: {bad:?} is not supported")), "{e}");
        }
        assert!(read(b"7").expect_err("a number").to_string().starts_with("config.json: "));
    }

    #[test]
    fn no_limit_of_processes_and_a_limit_of_zero_differ() {
        for (pids, expected) in [
            (json!({"limit": 0}), Some(0)),
            (json!({"limit": -1}), Some(-1)),
            (json!({"limit": 7}), Some(7)),
            (json!({}), None),
        ] {
            let resources = json!({"pids": pids});
            let spec = json!({"ociVersion": "1.3.0", "linux": {"resources": resources}}).to_string();
            let spec = read(spec.as_bytes()).expect("spec").value;
            let of_spec = spec.linux().as_ref().and_then(|linux| linux.resources().clone());
            let of_update = read_resources(resources.to_string().as_bytes()).expect("resources");
            assert_eq!(of_spec.as_ref(), Some(&of_update), "both read the same");
            assert_eq!(of_update.pids().map(|pids| pids.limit()), expected);
        }
        let of_old = |limit: i64| {
            let spec = json!({"ociVersion": "1.2.1", "linux": {"resources": {"pids": {"limit": limit}}}});
            let spec = read(spec.to_string().as_bytes()).expect("spec").value;
            let resources =
                spec.linux().as_ref().and_then(|linux| linux.resources().clone()).expect("resources");
            resources.pids().map(|pids| pids.limit())
        };
        assert_eq!([of_old(0), of_old(-1), of_old(7)], [None, Some(-1), Some(7)]);
        let e = read_resources(br#"{"memory": {"limit": "1G"}}"#).expect_err("no number").to_string();
        assert!(e.starts_with("linux.resources: "), "{e}");
    }
}

// SPDX-License-Identifier: Apache-2.0
//! `update`: other limits for a container, out of flags or out of JSON.

use std::{fs, io, path::Path, process::ExitCode};

use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};

use super::{
    Context, Failure, Outcome,
    cli::{Flag, Matches, Verb, option},
    kill::NOT_RUNNING,
    store::{Known, Status},
};
use crate::runtime;

pub(super) const VERB: Verb = Verb {
    name: "update",
    usage: "update container resource constraints",
    arguments: "<container-id>",
    flags: &[
        option(
            "resources",
            "r",
            "path to the file containing the resources to update or '-' to read from the standard input; \
             other options are ignored then",
        ),
        option("blkio-weight", "", "Specifies per cgroup weight, range is from 10 to 1000"),
        option("cpu-period", "", "CPU CFS period to be used for hardcapping (in usecs)"),
        option("cpu-quota", "", "CPU CFS hardcap limit (in usecs). Allowed cpu time in a given period"),
        option("cpu-burst", "", "CPU CFS hardcap burst limit (in usecs)"),
        option("cpu-share", "", "CPU shares (relative weight vs. other containers)"),
        option("cpu-rt-period", "", "CPU realtime period to be used for hardcapping (in usecs)"),
        option("cpu-rt-runtime", "", "CPU realtime hardcap limit (in usecs)"),
        option("cpuset-cpus", "", "CPU(s) to use"),
        option("cpuset-mems", "", "Memory node(s) to use"),
        option("kernel-memory", "", "(obsoleted; do not use)"),
        option("kernel-memory-tcp", "", "(obsoleted; do not use)"),
        option("memory", "", "Memory limit (in bytes)"),
        option("cpu-idle", "", "set cgroup SCHED_IDLE or not, 0: default behavior, 1: SCHED_IDLE"),
        option("memory-reservation", "", "Memory reservation or soft_limit (in bytes)"),
        option("memory-swap", "", "Total memory usage (memory + swap); set '-1' to enable unlimited swap"),
        option("pids-limit", "", "Maximum number of pids allowed in the container"),
        L3_CACHE,
        MEMORY_BANDWIDTH,
    ],
    flags_until: usize::MAX,
    takes: (1, 1),
    run: update,
};

const L3_CACHE: Flag = option("l3-cache-schema", "", "The string of Intel RDT/CAT L3 cache schema");
const MEMORY_BANDWIDTH: Flag =
    option("mem-bw-schema", "", "The string of Intel RDT/MBA memory bandwidth schema");

/// How the value of a flag is read.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Number,
    /// With a unit.
    Bytes,
    Text,
}

/// Flags, and where their values go.
const FIELDS: [(&str, &str, Kind); 14] = [
    ("blkio-weight", "/blockIO/weight", Kind::Number),
    ("cpu-period", "/cpu/period", Kind::Number),
    ("cpu-quota", "/cpu/quota", Kind::Number),
    ("cpu-burst", "/cpu/burst", Kind::Number),
    ("cpu-share", "/cpu/shares", Kind::Number),
    ("cpu-rt-period", "/cpu/realtimePeriod", Kind::Number),
    ("cpu-rt-runtime", "/cpu/realtimeRuntime", Kind::Number),
    ("cpu-idle", "/cpu/idle", Kind::Number),
    ("cpuset-cpus", "/cpu/cpus", Kind::Text),
    ("cpuset-mems", "/cpu/mems", Kind::Text),
    ("memory", "/memory/limit", Kind::Bytes),
    ("memory-reservation", "/memory/reservation", Kind::Bytes),
    ("memory-swap", "/memory/swap", Kind::Bytes),
    ("pids-limit", "/pids/limit", Kind::Number),
];

/// Where a zero means "as it is": what runc's example for a file shows.
const ZERO_IS_UNSET: [&str; 9] = [
    "/memory/limit",
    "/memory/reservation",
    "/memory/swap",
    "/cpu/shares",
    "/cpu/quota",
    "/cpu/period",
    "/cpu/realtimeRuntime",
    "/cpu/realtimePeriod",
    "/blockIO/weight",
];

fn update(context: &Context, matches: &Matches) -> Outcome {
    let known = context.store.lock(matches.id()?)?;
    let mut wanted = match matches.path("resources") {
        Some(path) => read(&path)?,
        None => from_flags(matches)?,
    };
    if ["kernel-memory", "kernel-memory-tcp"].iter().any(|flag| matches.value(flag).is_some()) {
        context.log.warn("Kernel memory settings are ignored and will be removed");
    }
    complete(&mut wanted);
    let resources: LinuxResources =
        serde_json::from_value(wanted).map_err(|e| Failure::new(format!("resources: {e}")))?;
    if matches!(known.status()?, Status::Stopped | Status::Creating) {
        return Err(Failure::new(NOT_RUNNING));
    }
    let schema = |flag: &Flag| Ok::<_, Failure>(matches.text(flag.name)?.map(ToOwned::to_owned));
    let (l3, bandwidth) = (schema(&L3_CACHE)?, schema(&MEMORY_BANDWIDTH)?);
    if l3.is_some() || bandwidth.is_some() {
        update_resctrl(&known, matches.id()?, l3, bandwidth)?;
    }
    let warnings = runtime::update(&mut known.group()?, &resources)?;
    warnings.iter().for_each(|warning| context.log.warn(warning));
    Ok(ExitCode::SUCCESS)
}

/// Other limits of the caches and of memory's bandwidth: of the container's
/// class, or of a new one of its own, which is then known of as if it had been
/// asked for in the beginning.
fn update_resctrl(
    known: &Known,
    id: &str,
    l3: Option<String>,
    bandwidth: Option<String>,
) -> Result<(), Failure> {
    let mut spec = known.spec()?;
    let before = spec.linux().as_ref().and_then(|linux| linux.intel_rdt().clone());
    let mut wanted = before.clone().unwrap_or_default();
    if l3.is_some() {
        wanted.set_l3_cache_schema(l3);
    }
    if bandwidth.is_some() {
        wanted.set_mem_bw_schema(bandwidth);
    }
    if let Some(linux) = spec.linux_mut() {
        linux.set_intel_rdt(Some(wanted));
    }
    let Some(resctrl) = runtime::resctrl(&spec, id)? else { return Ok(()) };
    let text = serde_json::to_vec(&spec).map_err(|e| Failure::new(e.to_string()))?;
    if before.is_some() {
        resctrl.change()?;
    } else {
        resctrl.make()?;
        known.group()?.pids()?.into_iter().try_for_each(|pid| resctrl.attach(pid))?;
    }
    known.entry().save_config(&text)
}

fn read(path: &Path) -> Result<Value, Failure> {
    let text = match path.to_str() {
        Some("-") => io::read_to_string(io::stdin()),
        _ => fs::read_to_string(path),
    };
    let text = text.map_err(|e| Failure::io(path.display(), &e))?;
    serde_json::from_str(&text).map_err(|e| Failure::new(format!("{}: {e}", path.display())))
}

fn from_flags(matches: &Matches) -> Result<Value, Failure> {
    let mut wanted = json!({"memory": {}, "cpu": {}, "blockIO": {}, "pids": {}});
    for (flag, pointer, kind) in FIELDS {
        let Some(text) = matches.text(flag)? else { continue };
        let wrong = || Failure::new(format!("invalid value for {flag}: \"{text}\""));
        let value = match kind {
            Kind::Text => json!(text),
            Kind::Number => json!(text.parse::<i64>().map_err(|_| wrong())?),
            Kind::Bytes => json!(bytes(text).ok_or_else(wrong)?),
        };
        let (parent, key) = pointer.rsplit_once('/').unwrap_or_default();
        if let Some(parent) = wanted.pointer_mut(parent) {
            parent[key] = value;
        }
    }
    Ok(wanted)
}

/// Takes out what means "as it is", and puts in what follows from the rest.
fn complete(wanted: &mut Value) {
    for pointer in ZERO_IS_UNSET {
        let (parent, key) = pointer.rsplit_once('/').unwrap_or_default();
        if let Some(Value::Object(parent)) = wanted.pointer_mut(parent)
            && parent.get(key).is_some_and(|value| *value == json!(0))
        {
            parent.remove(key);
        }
    }
    // Without a limit of memory there can be none of memory and swap.
    if let Some(memory) = wanted.get_mut("memory")
        && memory["limit"] == json!(-1)
        && memory.get("swap").is_none_or(Value::is_null)
    {
        memory["swap"] = json!(-1);
    }
}

/// Bytes as Docker's tools have them: `512m`, `1.5GiB`; -1 for no limit.
fn bytes(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start().to_ascii_lowercase();
    let power = match unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit) {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    let bytes = number * 1024_f64.powi(power);
    // Above that a 64-bit float has no whole numbers, and a host no memory.
    #[expect(clippy::cast_possible_truncation, reason = "just checked")]
    (0.0..9e15).contains(&bytes).then_some(bytes as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_dockers_tools_have_them() {
        for (text, number) in [
            ("-1", -1),
            ("0", 0),
            ("1024", 1024),
            ("1k", 1024),
            ("1.5M", 1_572_864),
            ("2GiB", 2 << 30),
            ("3 tb", 3 << 40),
        ] {
            assert_eq!(bytes(text), Some(number), "{text}");
        }
        for bad in ["", "x", "-2", "1x", "1kk", "1e3", "99999999p"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn zeros_of_runcs_example_mean_nothing() {
        let mut wanted =
            json!({"memory": {"limit": 0, "swap": 0}, "cpu": {"shares": 0, "idle": 0}, "pids": {"limit": 0}});
        complete(&mut wanted);
        assert_eq!(wanted, json!({"memory": {}, "cpu": {"idle": 0}, "pids": {"limit": 0}}));
    }

    #[test]
    fn no_limit_of_memory_is_none_of_swap() {
        let mut wanted = json!({"memory": {"limit": -1}});
        complete(&mut wanted);
        assert_eq!(wanted, json!({"memory": {"limit": -1, "swap": -1}}));
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Whether a configuration can be honoured, decided before anything is made.
//!
//! Messages name the field, in Docker's words where Docker has them. What
//! needs the host (does a bind source exist?) is decided by lifecycle.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
};

use super::{
    command::RESERVED_LABEL,
    container::{Config, HostConfig, Mount, MountKind, NetworkMode, ReadOnlyReach},
    namespaces::{self, IpcMode},
    record, security, signal, size,
    spec::{capabilities, rlimits},
    users,
};
use crate::error::{Error, Kind, Result};

/// Most bytes of a stored configuration's lists of strings: what is kept is
/// bounded (D11). execve(2) allows about as much.
const MAX_TEXT: usize = 2 << 20;

/// Most bytes of all annotations: Kubernetes' limit.
const MAX_ANNOTATIONS: usize = 256 << 10;

/// Docker's: below it nothing starts.
const MIN_MEMORY: i64 = 6 << 20;

/// Most CPUs that a set may name: the kernel's CONFIG_NR_CPUS limit.
const MAX_CPU: u32 = 8191;

/// Checks all of `config`.
///
/// # Errors
/// `InvalidArgument` naming the first field that can't be honoured.
pub fn config(config: &Config) -> Result<()> {
    let strings = config.command.iter().chain(config.entrypoint.iter().flatten()).chain(&config.env);
    if strings.map(String::len).sum::<usize>() > MAX_TEXT {
        return Err(invalid(format!("command and environment are larger than {MAX_TEXT} bytes")));
    }
    if config.host.security_opt.iter().map(String::len).sum::<usize>() > MAX_TEXT {
        return Err(invalid(format!("the security options are larger than {MAX_TEXT} bytes")));
    }
    no_nul("command", config.command.iter().chain(config.entrypoint.iter().flatten()))?;
    environment(&config.env)?;
    own_users(config)?;
    namespaces::check(config)?;
    for (what, value) in
        [("image", &config.image), ("working directory", &config.working_dir), ("user", &config.user)]
    {
        one_line(what, value)?;
    }
    if config.image.is_empty() {
        return Err(invalid("no image specified"));
    }
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        let dir = &config.working_dir;
        return Err(invalid(format!(
            "the working directory '{dir}' is invalid, it needs to be an absolute path"
        )));
    }
    host_name("hostname", &config.hostname)?;
    host_name("domainname", &config.domainname)?;
    labels(config)?;
    if !config.stop_signal.is_empty() {
        signal::parse(&config.stop_signal)?;
    }
    if config.stop_timeout.is_some_and(|t| t < -1) {
        return Err(invalid("invalid stop timeout: must be -1 (wait for ever) or more"));
    }
    if let Some(health) = &config.health {
        if health.test.iter().map(String::len).sum::<usize>() > MAX_TEXT {
            return Err(invalid(format!("the health check is larger than {MAX_TEXT} bytes")));
        }
        no_nul("health check", &health.test)?;
        health.check()?;
    }
    host(&config.host)
}

fn host(host: &HostConfig) -> Result<()> {
    if host.auto_remove && !host.restart.is_no() {
        return Err(invalid("can't create 'AutoRemove' container with restart policy"));
    }
    annotations(&host.annotations)?;
    host.devices.check()?;
    // No line of a group file has such a name.
    let is_group = |name: &String| !name.is_empty() && !name.contains([':', ',', '\0', '\n']);
    if let Some(group) = host.group_add.iter().find(|name| !is_group(name)) {
        let group = group.escape_debug();
        return Err(invalid(format!("Unable to find group {group}: no matching entries in group file")));
    }
    if !host.cgroup_parent.is_empty() {
        let parent = &host.cgroup_parent;
        let absolute = format!("/{}", parent.trim_matches('/'));
        record::parse_cgroup_parent(&absolute).map_err(|_| {
            invalid(format!("invalid cgroup parent {}: not the path of a cgroup", parent.escape_debug()))
        })?;
    }
    if host.memory_swappiness.is_some_and(|n| n > 100) {
        return Err(invalid(format!(
            "Invalid value: {}, valid memory swappiness range is 0-100",
            host.memory_swappiness.unwrap_or_default()
        )));
    }
    capabilities::resolve(&host.cap_add, &host.cap_drop)?;
    for opt in &host.security_opt {
        security::security_opt(opt)?;
    }
    rlimits::resolve(&host.ulimits)?;
    resources(host)?;
    targets(host)?;
    for (path, options) in &host.tmpfs {
        tmpfs_options(path, options)?;
    }
    for (name, value) in &host.sysctls {
        sysctl(name, value, host)?;
    }
    host.log.check()?;
    resolver(host)
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Kind::InvalidArgument, message)
}

pub(super) fn no_nul<'a>(what: &str, values: impl IntoIterator<Item = &'a String>) -> Result<()> {
    match values.into_iter().find(|v| v.contains('\0')) {
        Some(value) => Err(invalid(format!("invalid {what} {value:?}: contains a NUL byte"))),
        None => Ok(()),
    }
}

fn one_line(what: &str, value: &str) -> Result<()> {
    if value.contains(['\0', '\n', '\r']) {
        return Err(invalid(format!("invalid {what} {value:?}: contains a control character")));
    }
    Ok(())
}

/// Docker's words: what a container with users of its own can't have.
fn own_users(config: &Config) -> Result<()> {
    let host = &config.host;
    if users::parse(&host.userns)? == users::Users::Host {
        return Ok(());
    }
    if host.privileged {
        return Err(invalid("privileged mode is incompatible with user namespaces".to_owned()));
    }
    namespaces::check_own_users(config)
}

/// Checks what the user says of the environment.
///
/// # Errors
/// `InvalidArgument` for an entry without a name, or with a NUL.
pub(super) fn environment(env: &[String]) -> Result<()> {
    no_nul("environment variable", env)?;
    match env.iter().find(|e| e.is_empty() || e.starts_with('=')) {
        Some(entry) => Err(invalid(format!("invalid environment variable: {entry:?}"))),
        None => Ok(()),
    }
}

/// RFC 1123 letters, with underscores as the kernel and Docker allow; 64 is
/// the kernel's `__NEW_UTS_LEN`.
fn host_name(what: &str, name: &str) -> Result<()> {
    let good = name.len() <= 64
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
        && !name.starts_with(['-', '.'])
        && !name.ends_with(['-', '.']);
    if name.is_empty() || good { Ok(()) } else { Err(invalid(format!("invalid {what} format: {name:?}"))) }
}

fn labels(config: &Config) -> Result<()> {
    label_names(config.labels.keys())
}

/// Whoever runs a hook has them all at once.
fn annotations(annotations: &BTreeMap<String, String>) -> Result<()> {
    if annotations.contains_key("") {
        return Err(invalid("invalid annotation: its name is empty"));
    }
    if annotations.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > MAX_ANNOTATIONS {
        return Err(invalid(format!("the annotations are larger than {MAX_ANNOTATIONS} bytes")));
    }
    no_nul("annotation", annotations.iter().flat_map(|(name, value)| [name, value]))
}

/// Checks names of labels.
///
/// # Errors
/// `InvalidArgument` for an empty one, and for one of the engine's own.
pub fn label_names<'a>(names: impl IntoIterator<Item = &'a String>) -> Result<()> {
    for name in names {
        if name.is_empty() {
            return Err(invalid("invalid label: its name is empty"));
        }
        if name.starts_with(RESERVED_LABEL) {
            return Err(invalid(format!("invalid label {name:?}: {RESERVED_LABEL}* is the engine's")));
        }
    }
    Ok(())
}

/// Checks what a container may use.
///
/// # Errors
/// `InvalidArgument` naming the first field that can't be honoured.
pub fn resources(host: &HostConfig) -> Result<()> {
    cpu_bandwidth(host)?;
    if host.memory_reservation < 0 || (host.memory_reservation > 0 && host.memory_reservation < MIN_MEMORY) {
        return Err(invalid("Minimum memory reservation allowed is 6MB"));
    }
    if host.memory > 0 && host.memory < host.memory_reservation {
        return Err(invalid("Minimum memory limit can not be less than memory reservation limit, see usage"));
    }
    if host.blkio_weight != 0 && !(10..=1000).contains(&host.blkio_weight) {
        return Err(invalid("Range of blkio weight is from 10 to 1000"));
    }
    if !is_cpu_list(&host.cpuset_mems) {
        return Err(invalid(format!("Invalid value {:?} for cpuset mems", host.cpuset_mems)));
    }
    if host.memory < 0 || (host.memory > 0 && host.memory < MIN_MEMORY) {
        return Err(invalid("Minimum memory limit allowed is 6MB"));
    }
    if host.memory_swap < -1 || (host.memory_swap > 0 && host.memory_swap < host.memory) {
        return Err(invalid("Minimum memoryswap limit should be larger than memory limit, see usage"));
    }
    if host.memory_swap > 0 && host.memory == 0 {
        return Err(invalid("You should always set the Memory limit when using Memoryswap limit, see usage"));
    }
    if host.nano_cpus < 0 || (host.nano_cpus > 0 && host.nano_cpus < 10_000_000) {
        return Err(invalid("Range of CPUs is from 0.01 on"));
    }
    if host.cpu_shares == 1 || host.cpu_shares > 262_144 {
        return Err(invalid("invalid cpu-shares: must be 2 to 262144"));
    }
    if !is_cpu_list(&host.cpuset_cpus) {
        return Err(invalid(format!("Invalid value {:?} for cpuset cpus", host.cpuset_cpus)));
    }
    if host.shm_size < 0 {
        return Err(invalid("SHM size can not be less than 0"));
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return Err(invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        )));
    }
    Ok(())
}

fn cpu_bandwidth(host: &HostConfig) -> Result<()> {
    let both =
        |what: &str| invalid(format!("Conflicting options: Nano CPUs and CPU {what} cannot both be set."));
    if host.nano_cpus > 0 && host.cpu_period > 0 {
        return Err(both("Period"));
    }
    if host.nano_cpus > 0 && host.cpu_quota > 0 {
        return Err(both("Quota"));
    }
    if host.cpu_period != 0 && !(1000..=1_000_000).contains(&host.cpu_period) {
        return Err(invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ));
    }
    if host.cpu_quota < -1 || (host.cpu_quota > 0 && host.cpu_quota < 1000) {
        return Err(invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)"));
    }
    Ok(())
}

/// `0-2,4`: parsed without making the set, which may name 2³² CPUs (M06).
fn is_cpu_list(text: &str) -> bool {
    let number = |s: &str| s.parse::<u32>().ok().filter(|n| *n <= MAX_CPU);
    text.is_empty()
        || text.len() <= 4096
            && text.split(',').all(|part| match part.split_once('-') {
                None => number(part).is_some(),
                Some((low, high)) => number(low).zip(number(high)).is_some_and(|(l, h)| l <= h),
            })
}

/// Mount targets: absolute, plain, each once.
fn targets(host: &HostConfig) -> Result<()> {
    let mut seen = HashSet::new();
    for mount in &host.mounts {
        user_mount(mount)?;
        target(&mount.target)?;
    }
    for path in host.tmpfs.keys() {
        target(path)?;
    }
    for path in host.mounts.iter().map(|m| &m.target).chain(host.tmpfs.keys()) {
        if !seen.insert(path.trim_end_matches('/')) {
            return Err(invalid(format!("Duplicate mount point: {path}")));
        }
    }
    Ok(())
}

fn target(path: &str) -> Result<()> {
    one_line("mount path", path)?;
    if !path.starts_with('/') {
        return Err(invalid(format!("invalid mount path: '{path}' mount path must be absolute")));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(invalid(format!("invalid mount path: '{path}' must not contain '..'")));
    }
    if path.split('/').all(|part| part.is_empty() || part == ".") {
        return Err(invalid("invalid specification: destination can't be '/'"));
    }
    if path == "/proc" || path.starts_with("/proc/") {
        return Err(invalid(format!("invalid mount path: '{path}' is inside /proc")));
    }
    Ok(())
}

fn user_mount(mount: &Mount) -> Result<()> {
    let wrong = |kind: &str, why: String| invalid(format!("invalid mount config for type {kind:?}: {why}"));
    match mount.kind {
        MountKind::Bind => {
            one_line("mount source", &mount.source)?;
            if !mount.source.starts_with('/') {
                return Err(wrong(
                    "bind",
                    format!("invalid mount path: '{}' mount path must be absolute", mount.source),
                ));
            }
            let words = ["", "private", "rprivate", "shared", "rshared", "slave", "rslave"];
            if !words.contains(&mount.propagation.as_str()) {
                return Err(wrong("bind", format!("invalid propagation mode: {:?}", mount.propagation)));
            }
            read_only_reach(mount).map_err(|why| wrong("bind", why.to_owned()))?;
            if mount.tmpfs_size != 0 || mount.tmpfs_mode != 0 {
                return Err(wrong("bind", "tmpfs options are for tmpfs mounts".to_owned()));
            }
        }
        MountKind::Tmpfs => {
            if !mount.source.is_empty() {
                return Err(wrong("tmpfs", "must not have a source".to_owned()));
            }
            if mount.non_recursive || mount.read_only_reach != ReadOnlyReach::All {
                return Err(wrong("tmpfs", "bind options are for bind mounts".to_owned()));
            }
            if mount.tmpfs_size < 0 {
                return Err(wrong("tmpfs", "size must not be negative".to_owned()));
            }
            if mount.tmpfs_mode > 0o7777 {
                return Err(wrong("tmpfs", format!("invalid mode {:o}", mount.tmpfs_mode)));
            }
        }
    }
    Ok(())
}

fn read_only_reach(mount: &Mount) -> std::result::Result<(), &'static str> {
    match mount.read_only_reach {
        ReadOnlyReach::All => Ok(()),
        _ if !mount.read_only => Err("a recursion of read-only is said of a mount that isn't read-only"),
        ReadOnlyReach::Forced if !["", "rprivate"].contains(&mount.propagation.as_str()) => {
            Err("a mount that is read-only recursively has to be rprivate")
        }
        ReadOnlyReach::Forced if mount.non_recursive => {
            Err("a mount that is read-only recursively has to be recursive")
        }
        ReadOnlyReach::Forced | ReadOnlyReach::Top => Ok(()),
    }
}

/// Only what tmpfs(5) and mount(8) know: anything else would reach the kernel.
fn tmpfs_options(path: &str, options: &str) -> Result<()> {
    for option in options.split(',').filter(|o| !o.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let good = match name {
            "size" => {
                size::parse(value).is_some()
                    || value.strip_suffix('%').is_some_and(|p| p.parse::<u8>().is_ok())
            }
            "mode" => u32::from_str_radix(value, 8).is_ok_and(|m| m <= 0o7777),
            "uid" | "gid" | "nr_inodes" => value.parse::<u32>().is_ok(),
            "rw" | "ro" | "exec" | "noexec" | "suid" | "nosuid" | "dev" | "nodev" | "atime" | "noatime"
            | "diratime" | "nodiratime" | "relatime" | "norelatime" | "strictatime" | "nostrictatime"
            | "sync" | "async" | "dirsync" => value.is_empty(),
            _ => false,
        };
        if !good {
            return Err(invalid(format!("invalid tmpfs option [{option:?}] for {path}")));
        }
    }
    Ok(())
}

/// Only parameters that are namespaced: others would change the host.
fn sysctl(name: &str, value: &str, host: &HostConfig) -> Result<()> {
    one_line("sysctl", name)?;
    one_line("sysctl", value)?;
    let ipc = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    if name.contains(['/', '\0']) || name.split('.').any(str::is_empty) {
        return Err(invalid(format!("sysctl '{}' is not a valid name", name.escape_debug())));
    }
    // Another container's is as much somebody else's as the host's.
    if name.starts_with("net.") {
        return match host.network {
            NetworkMode::None => Ok(()),
            NetworkMode::Host => {
                Err(invalid(format!("sysctl '{name}' not allowed in host network namespace")))
            }
            NetworkMode::Container(_) => {
                Err(invalid(format!("sysctl '{name}' not allowed in another container's network namespace")))
            }
        };
    }
    if name.starts_with("fs.mqueue.") || ipc.contains(&name) {
        return match host.ipc {
            IpcMode::Host => Err(invalid(format!("sysctl '{name}' not allowed in host ipc namespace"))),
            IpcMode::Container(_) => {
                Err(invalid(format!("sysctl '{name}' not allowed in another container's ipc namespace")))
            }
            IpcMode::Private | IpcMode::Shareable | IpcMode::None => Ok(()),
        };
    }
    Err(invalid(format!("sysctl '{name}' is not allowed: it is not namespaced")))
}

/// What becomes a line of /etc/hosts or /etc/resolv.conf (O03).
fn resolver(host: &HostConfig) -> Result<()> {
    for line in &host.extra_hosts {
        extra_host(line)?;
    }
    for server in &host.dns {
        if server.parse::<IpAddr>().is_err() {
            return Err(invalid(format!("bad nameserver address {server:?}")));
        }
    }
    for domain in &host.dns_search {
        if domain != "." {
            host_name("dns search domain", domain.strip_suffix('.').unwrap_or(domain))?;
        }
    }
    for option in &host.dns_options {
        if option.is_empty() || !option.bytes().all(|b| b.is_ascii_graphic() && b != b'#' && b != b';') {
            return Err(invalid(format!("invalid dns option {option:?}")));
        }
    }
    Ok(())
}

/// Splits `host:address`, the address perhaps IPv6, perhaps in brackets.
///
/// # Errors
/// `InvalidArgument` in Docker's words.
pub fn extra_host(line: &str) -> Result<(&str, IpAddr)> {
    let (name, address) = line
        .split_once(['=', ':'])
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| invalid(format!("bad format for add-host: {line:?}")))?;
    host_name("host name in add-host", name)?;
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    let address =
        bare.parse().map_err(|_| invalid(format!("invalid IP address in add-host: {address:?}")))?;
    Ok((name, address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::container::Ulimit;
    use proptest::prelude::*;

    fn with(change: impl FnOnce(&mut Config)) -> Result<()> {
        let mut it = Config { image: "x".to_owned(), ..Config::default() };
        change(&mut it);
        config(&it)
    }

    fn host(change: impl FnOnce(&mut HostConfig)) -> Result<()> {
        with(|c| change(&mut c.host))
    }

    #[test]
    fn the_empty_configuration_is_fine() {
        assert!(with(|_| ()).is_ok());
        assert!(
            host(|h| h.extra_hosts = vec!["a:::1".to_owned(), "b:10.0.0.1".to_owned(), "c:[::1]".to_owned()])
                .is_ok()
        );
        assert!(host(|h| h.cpuset_cpus = "0-2,4".to_owned()).is_ok());
        assert!(host(|h| h.log.options = [("max-size".to_owned(), "10m".to_owned())].into()).is_ok());
    }

    #[test]
    fn what_could_become_another_line_is_refused() {
        for bad in ["a\nb", "a\0b", "a b", "-a", "a..", "ä", &"x".repeat(65)] {
            assert!(with(|c| c.hostname = bad.to_owned()).is_err(), "{bad:?}");
            assert!(host(|h| h.dns_search = vec![bad.to_owned()]).is_err(), "{bad:?}");
            assert!(host(|h| h.extra_hosts = vec![format!("{bad}:10.0.0.1")]).is_err(), "{bad:?}");
        }
        assert!(with(|c| c.user = "root\nroot".to_owned()).is_err());
        assert!(with(|c| c.env = vec!["A=b\0c".to_owned()]).is_err());
        assert!(with(|c| c.env = vec!["=x".to_owned()]).is_err());
        assert!(host(|h| h.extra_hosts = vec!["a:10.0.0.1 evil".to_owned()]).is_err());
        assert!(host(|h| h.dns = vec!["10.0.0.1\nx".to_owned()]).is_err());
        assert!(host(|h| h.dns_options = vec!["a\nnameserver 1".to_owned()]).is_err());
    }

    #[test]
    fn messages_name_the_field() {
        for (result, expected) in [
            (with(|c| c.image.clear()), "no image specified"),
            (with(|c| c.hostname = "a_b!".to_owned()), "invalid hostname format: \"a_b!\""),
            (host(|h| h.memory = 1000), "Minimum memory limit allowed is 6MB"),
            (
                host(|h| h.cpuset_cpus = "0-4294967295".to_owned()),
                "Invalid value \"0-4294967295\" for cpuset cpus",
            ),
            (
                host(|h| h.security_opt = vec!["systempaths=x".to_owned()]),
                "invalid --security-opt: \"systempaths=x\"",
            ),
            (host(|h| h.cap_add = vec!["FLY".to_owned()]), "invalid capability: \"FLY\""),
            (
                host(|h| h.sysctls = [("kernel.pid_max".to_owned(), "1".to_owned())].into()),
                "sysctl 'kernel.pid_max' is not allowed: it is not namespaced",
            ),
            (
                with(|c| c.labels = [("berth.x".to_owned(), String::new())].into()),
                "invalid label \"berth.x\": berth.* is the engine's",
            ),
            (with(|c| c.stop_signal = "NO".to_owned()), "invalid signal: NO"),
        ] {
            let error = result.expect_err(expected);
            assert_eq!((error.kind(), error.to_string().as_str()), (Kind::InvalidArgument, expected));
        }
    }

    #[test]
    fn mounts_that_could_hide_the_system_are_refused() {
        let bind =
            |target: &str| Mount { source: "/x".to_owned(), target: target.to_owned(), ..Mount::default() };
        for bad in ["", "rel", "/", "//", "/.", "/a/../b", "/proc", "/proc/sys", "/a\nb"] {
            assert!(host(|h| h.mounts = vec![bind(bad)]).is_err(), "{bad:?}");
        }
        assert!(host(|h| h.mounts = vec![bind("/a"), bind("/a/")]).is_err(), "twice");
        assert!(host(|h| h.mounts = vec![bind("/a"), bind("/a/b")]).is_ok());
        assert!(host(|h| h.tmpfs = [("/t".to_owned(), "size=64m,mode=1777,exec".to_owned())].into()).is_ok());
        assert!(host(|h| h.tmpfs = [("/t".to_owned(), "lowerdir=/etc".to_owned())].into()).is_err());
        assert!(host(|h| h.ulimits = vec![Ulimit { name: "nofile".to_owned(), soft: 2, hard: 1 }]).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,40}") {
            let _ = is_cpu_list(&text);
            let _ = extra_host(&text);
            let _ = tmpfs_options("/x", &text);
            let _ = target(&text);
        }
    }
}

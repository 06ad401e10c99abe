// SPDX-License-Identifier: Apache-2.0
//! Specifications, by value.

use super::*;
use crate::domain::container::{Config, Effective, HostConfig, Mount as UserMount, MountKind};
use oci_spec::runtime::LinuxNamespaceType;

fn document(host: HostConfig) -> Document {
    Document {
        config: Config { host, ..Config::default() },
        effective: Effective {
            args: vec!["true".to_owned()],
            env: vec!["A=b".to_owned()],
            working_dir: "/w".to_owned(),
            hostname: "h".to_owned(),
            ..Effective::default()
        },
    }
}

fn facts() -> Facts {
    Facts {
        cgroup_path: "/berth/default-abc".to_owned(),
        etc: EtcFiles::within(Path::new("/c")),
        all_capabilities: capabilities::of_mask(u64::MAX),
        ..Facts::default()
    }
}

fn spec(host: HostConfig) -> Spec {
    build(&document(host), &facts()).expect("spec")
}

fn mounted<'a>(spec: &'a Spec, target: &str) -> Vec<&'a oci_spec::runtime::Mount> {
    let mounts = spec.mounts().as_ref().expect("mounts");
    mounts.iter().filter(|m| m.destination() == Path::new(target)).collect()
}

fn linux(spec: &Spec) -> &Linux {
    spec.linux().as_ref().expect("linux")
}

#[test]
fn the_default_posture_is_dockers() {
    let spec = spec(HostConfig::default());
    let process = spec.process().as_ref().expect("process");
    let sets = process.capabilities().as_ref().expect("capabilities");
    assert_eq!(sets.bounding().as_ref().map_or(0, |s| s.len()), 14);
    assert_eq!(sets.bounding(), sets.effective());
    assert!(sets.inheritable().is_none() && sets.ambient().is_none());
    assert_eq!(process.no_new_privileges(), Some(false));
    let linux = linux(&spec);
    let masked = linux.masked_paths().as_ref().expect("masked");
    assert!(masked.contains(&"/proc/kcore".to_owned()) && masked.contains(&"/sys/firmware".to_owned()));
    assert_eq!(linux.readonly_paths().as_ref().map_or(0, Vec::len), 5);
    let kinds: Vec<_> = linux.namespaces().as_ref().expect("namespaces").iter().map(|n| n.typ()).collect();
    assert_eq!(kinds.len(), 6);
    assert!(kinds.contains(&LinuxNamespaceType::Network) && !kinds.contains(&LinuxNamespaceType::User));
    let rules = linux.resources().as_ref().and_then(|r| r.devices().clone()).expect("rules");
    assert!(
        !rules[0].allow() && rules[0].access().as_deref() == Some("rwm"),
        "everything is forbidden first"
    );
    assert!(rules.iter().skip(1).all(|r| r.allow()));
    assert_eq!(linux.cgroups_path().as_deref(), Some(Path::new("/berth/default-abc")));
}

#[test]
fn the_systems_mounts_come_in_order_and_are_inert() {
    let spec = spec(HostConfig::default());
    let targets: Vec<_> =
        spec.mounts().iter().flatten().map(|m| m.destination().to_string_lossy().into_owned()).collect();
    assert_eq!(
        targets,
        [
            "/proc",
            "/dev",
            "/dev/pts",
            "/sys",
            "/sys/fs/cgroup",
            "/dev/mqueue",
            "/dev/shm",
            "/etc/resolv.conf",
            "/etc/hostname",
            "/etc/hosts"
        ]
    );
    for target in ["/sys", "/sys/fs/cgroup"] {
        let options = mounted(&spec, target)[0].options().clone().expect("options");
        assert!(options.contains(&"ro".to_owned()), "{target}: {options:?}");
    }
    let shm = mounted(&spec, "/dev/shm")[0].options().clone().expect("options");
    assert!(shm.contains(&"size=67108864".to_owned()), "{shm:?}");
}

#[test]
fn the_hosts_network_has_no_namespace_and_no_parameters() {
    let spec = spec(HostConfig { network: NetworkMode::Host, ..HostConfig::default() });
    let linux = linux(&spec);
    assert!(linux.namespaces().iter().flatten().all(|n| n.typ() != LinuxNamespaceType::Network));
    assert!(linux.sysctl().as_ref().is_some_and(HashMap::is_empty));
}

#[test]
fn a_private_network_lets_anybody_ping_and_listen() {
    let spec = spec(HostConfig {
        sysctls: [("net.ipv4.ip_unprivileged_port_start".to_owned(), "80".to_owned())].into(),
        ..HostConfig::default()
    });
    let sysctl = linux(&spec).sysctl().clone().expect("sysctl");
    assert_eq!(sysctl["net.ipv4.ping_group_range"], "0 2147483647");
    assert_eq!(sysctl["net.ipv4.ip_unprivileged_port_start"], "80", "the user's word is the last");
}

#[test]
fn privileged_lifts_everything() {
    let spec = spec(HostConfig { privileged: true, ..HostConfig::default() });
    let linux = linux(&spec);
    assert!(linux.masked_paths().is_none() && linux.readonly_paths().is_none());
    let rules = linux.resources().as_ref().and_then(|r| r.devices().clone()).expect("rules");
    assert!(rules.len() == 1 && rules[0].allow());
    let sets = spec.process().as_ref().and_then(|p| p.capabilities().clone()).expect("capabilities");
    assert_eq!(sets.permitted().as_ref().map_or(0, |s| s.len()), 41);
}

#[test]
fn limits_become_resources() {
    let spec = spec(HostConfig {
        memory: 100 << 20,
        nano_cpus: 1_500_000_000,
        cpu_shares: 512,
        cpuset_cpus: "0-1".to_owned(),
        pids_limit: Some(100),
        ..HostConfig::default()
    });
    let resources = linux(&spec).resources().clone().expect("resources");
    let memory = resources.memory().expect("memory");
    assert_eq!((memory.limit(), memory.swap()), (Some(100 << 20), Some(200 << 20)));
    let cpu = resources.cpu().clone().expect("cpu");
    assert_eq!((cpu.quota(), cpu.period(), cpu.shares()), (Some(150_000), Some(100_000), Some(512)));
    assert_eq!(cpu.cpus().as_deref(), Some("0-1"));
    assert_eq!(resources.pids().as_ref().map(|p| p.limit()), Some(100));
    let none = self::spec(HostConfig { pids_limit: Some(-1), ..HostConfig::default() });
    let resources = linux(&none).resources().clone().expect("resources");
    assert!(resources.pids().is_none() && resources.memory().is_none() && resources.cpu().is_none());
}

#[test]
fn a_users_mount_replaces_ours_and_parents_come_first() {
    let bind = |source: &str, target: &str| UserMount {
        source: source.to_owned(),
        target: target.to_owned(),
        read_only: true,
        ..UserMount::default()
    };
    let spec = spec(HostConfig {
        mounts: vec![
            bind("/b", "/data/inner"),
            bind("/a", "/data"),
            bind("/h", "/etc/hosts"),
            UserMount {
                kind: MountKind::Tmpfs,
                target: "/dev/shm/".to_owned(),
                tmpfs_size: 4096,
                ..UserMount::default()
            },
        ],
        tmpfs: [("/t".to_owned(), "exec,size=1m".to_owned())].into(),
        ..HostConfig::default()
    });
    let hosts = mounted(&spec, "/etc/hosts");
    assert_eq!(hosts.len(), 1);
    assert_eq!(hosts[0].source().as_deref(), Some(Path::new("/h")));
    assert_eq!(
        hosts[0].options().as_deref(),
        Some(&["rbind", "ro", "rro", "rprivate"].map(str::to_owned)[..])
    );
    assert_eq!(mounted(&spec, "/dev/shm").len(), 1);
    let order: Vec<_> = spec.mounts().iter().flatten().map(|m| m.destination().clone()).collect();
    let at = |path: &str| order.iter().position(|p| p == Path::new(path)).expect(path);
    assert!(at("/data") < at("/data/inner"));
    let options = mounted(&spec, "/t")[0].options().clone().expect("options");
    assert_eq!(options, ["nosuid", "nodev", "noexec", "mode=1777", "exec", "size=1m"]);
}

#[test]
fn the_filter_of_calls_is_there_unless_it_is_lifted() {
    let filtered = |host| linux(&spec(host)).seccomp().is_some();
    let opt = |opt: &str| HostConfig { security_opt: vec![opt.to_owned()], ..HostConfig::default() };
    assert!(filtered(HostConfig::default()));
    assert!(!filtered(opt("seccomp=unconfined")));
    assert!(!filtered(HostConfig { privileged: true, ..HostConfig::default() }));
    assert!(filtered(HostConfig { privileged: true, ..opt("seccomp=builtin") }));
}

#[test]
fn no_new_privileges_is_asked_for_by_name() {
    let spec =
        spec(HostConfig { security_opt: vec!["no-new-privileges".to_owned()], ..HostConfig::default() });
    assert_eq!(spec.process().as_ref().and_then(|p| p.no_new_privileges()), Some(true));
}

#[test]
fn a_profile_of_the_users_own_is_for_these_capabilities_on_this_kernel() {
    let opt = r#"seccomp={"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["chmod"], "action": "SCMP_ACT_ERRNO", "includes": {"minKernel": "99.0"}}]}"#;
    let names = |host| {
        let spec = spec(HostConfig { security_opt: vec![opt.to_owned()], ..host });
        let filter = linux(&spec).seccomp().clone().expect("a filter");
        filter.syscalls().iter().flatten().flat_map(|rule| rule.names().clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(HostConfig::default()), ["mkdir"]);
    assert!(names(HostConfig { cap_add: vec!["SYS_ADMIN".to_owned()], ..HostConfig::default() }).is_empty());
}

#[test]
fn system_paths_and_an_apparmor_profile_are_choices() {
    let opt = |opt: &str| spec(HostConfig { security_opt: vec![opt.to_owned()], ..HostConfig::default() });
    let open = opt("systempaths=unconfined");
    assert_eq!((linux(&open).masked_paths(), linux(&open).readonly_paths()), (&None, &None));
    assert!(linux(&open).seccomp().is_some());
    let profile = |spec: Spec| spec.process().as_ref().and_then(|p| p.apparmor_profile().clone());
    assert_eq!(profile(opt("apparmor=mine")).as_deref(), Some("mine"));
    assert_eq!(profile(opt("label=disable")), None);
}

#[test]
fn a_label_is_for_hosts_that_have_labels() {
    let host = HostConfig { security_opt: vec!["label=type:svirt_t".to_owned()], ..HostConfig::default() };
    assert_eq!(spec(host.clone()), spec(HostConfig::default()));
    let facts = Facts { selinux: true, ..facts() };
    let e = build(&document(host), &facts).expect_err("not yet").to_string();
    assert!(e.starts_with("--security-opt label=type:svirt_t"), "{e}");
}

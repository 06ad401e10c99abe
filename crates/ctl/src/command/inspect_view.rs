// SPDX-License-Identifier: Apache-2.0
//! What `berth inspect` shows: Docker's names and order of fields.

use std::collections::BTreeMap;

use berth::api::v1::{
    BlockRate, Container, ContainerConfig, ContainerState, DeviceMapping, HealthConfig, HealthProbe,
    HealthState, HostConfig, Mount,
    container_state::{HealthStatus, Status},
    mount,
};
use serde::Serialize;

use super::ps::state_name;
use crate::output::human::rfc3339_short;

/// A container.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ContainerView {
    pub(super) id: String,
    created: String,
    path: String,
    args: Vec<String>,
    state: State,
    image: String,
    log_path: String,
    /// What could not be written to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    log_dropped: Option<LogDropped>,
    name: String,
    namespace: String,
    restart_count: u32,
    platform: String,
    bundle_path: String,
    shim_pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) size_rw: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) size_root_fs: Option<i64>,
    host_config: Host,
    mounts: Vec<MountView>,
    config: Config,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct LogDropped {
    lines: u64,
    bytes: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
#[expect(clippy::struct_excessive_bools, reason = "Docker's fields")]
struct State {
    status: &'static str,
    running: bool,
    paused: bool,
    restarting: bool,
    /// Its shim doesn't answer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unresponsive: bool,
    #[serde(rename = "OOMKilled")]
    oom_killed: bool,
    dead: bool,
    pid: u32,
    exit_code: u32,
    error: String,
    started_at: String,
    finished_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<HealthView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct HealthView {
    status: &'static str,
    failing_streak: u32,
    log: Vec<Probe>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Probe {
    start: String,
    end: String,
    exit_code: i32,
    output: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    test: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    timeout: i64,
    #[serde(skip_serializing_if = "is_zero")]
    start_period: i64,
    #[serde(skip_serializing_if = "is_zero")]
    start_interval: i64,
    #[serde(skip_serializing_if = "is_none")]
    retries: i32,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

fn is_none(number: &i32) -> bool {
    *number == 0
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    hostname: String,
    domainname: String,
    user: String,
    tty: bool,
    open_stdin: bool,
    stdin_once: bool,
    env: Vec<String>,
    cmd: Vec<String>,
    image: String,
    working_dir: String,
    entrypoint: Option<Vec<String>>,
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    stop_signal: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_timeout: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    healthcheck: Option<Check>,
    #[serde(skip_serializing_if = "Option::is_none")]
    healthcheck_on_failure_action: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Host {
    binds: Vec<String>,
    log_config: Log,
    network_mode: String,
    pid_mode: String,
    ipc_mode: String,
    #[serde(rename = "UTSMode")]
    uts_mode: String,
    cgroupns_mode: String,
    restart_policy: Restart,
    auto_remove: bool,
    cap_add: Vec<String>,
    cap_drop: Vec<String>,
    dns: Vec<String>,
    dns_options: Vec<String>,
    dns_search: Vec<String>,
    extra_hosts: Vec<String>,
    init: bool,
    annotations: BTreeMap<String, String>,
    oom_score_adj: i32,
    privileged: bool,
    readonly_rootfs: bool,
    security_opt: Vec<String>,
    userns_mode: String,
    tmpfs: BTreeMap<String, String>,
    shm_size: i64,
    sysctls: BTreeMap<String, String>,
    cpu_shares: u64,
    memory: i64,
    nano_cpus: i64,
    cpu_period: i64,
    cpu_quota: i64,
    cpuset_cpus: String,
    cpuset_mems: String,
    blkio_weight: u32,
    memory_reservation: i64,
    memory_swap: i64,
    pids_limit: Option<i64>,
    ulimits: Vec<Limit>,
    devices: Vec<Device>,
    device_requests: Vec<DeviceRequest>,
    device_cgroup_rules: Vec<String>,
    blkio_weight_device: Vec<Weight>,
    blkio_device_read_bps: Vec<Rate>,
    blkio_device_write_bps: Vec<Rate>,
    #[serde(rename = "BlkioDeviceReadIOps")]
    blkio_device_read_iops: Vec<Rate>,
    #[serde(rename = "BlkioDeviceWriteIOps")]
    blkio_device_write_iops: Vec<Rate>,
    group_add: Vec<String>,
    cgroup_parent: String,
    oom_kill_disable: bool,
    memory_swappiness: Option<u64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Device {
    path_on_host: String,
    path_in_container: String,
    cgroup_permissions: String,
}

/// Devices by name, as Docker shows them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DeviceRequest {
    driver: &'static str,
    #[serde(rename = "DeviceIDs")]
    device_ids: Vec<String>,
}

impl DeviceRequest {
    fn of(names: Vec<String>) -> Vec<Self> {
        if names.is_empty() { Vec::new() } else { vec![Self { driver: "cdi", device_ids: names }] }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Rate {
    path: String,
    rate: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Weight {
    path: String,
    weight: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Log {
    #[serde(rename = "Type")]
    driver: String,
    config: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Restart {
    name: String,
    maximum_retry_count: i32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Limit {
    name: String,
    hard: i64,
    soft: i64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct MountView {
    #[serde(rename = "Type")]
    kind: &'static str,
    source: String,
    destination: String,
    mode: String,
    #[serde(rename = "RW")]
    rw: bool,
    propagation: String,
}

impl ContainerView {
    pub(super) fn of(container: Container) -> Self {
        let state = State::of(&container.state.clone().unwrap_or_default(), container.health.as_ref());
        let mut config = container.config.clone().unwrap_or_default();
        let host = config.host.take().unwrap_or_default();
        Self {
            created: rfc3339_short(container.created_at.as_ref()),
            state,
            mounts: host.mounts.iter().map(MountView::of).collect(),
            host_config: Host::of(host),
            config: Config::of(config, &container),
            id: container.id,
            path: container.path,
            args: container.args,
            image: container.image_id,
            log_path: container.log_path,
            log_dropped: container
                .log_dropped
                .filter(|dropped| dropped.lines > 0)
                .map(|dropped| LogDropped { lines: dropped.lines, bytes: dropped.bytes }),
            name: format!("/{}", container.name),
            namespace: container.namespace,
            restart_count: container.restart_count,
            platform: container.platform,
            bundle_path: container.bundle_path,
            shim_pid: container.shim_pid,
            size_rw: None,
            size_root_fs: None,
        }
    }
}

impl State {
    fn of(state: &ContainerState, health: Option<&HealthState>) -> Self {
        let status = state.status();
        Self {
            status: state_name(status),
            // A paused container runs as well, and so does, in Docker's eyes,
            // one that will in a moment.
            running: matches!(status, Status::Running | Status::Paused | Status::Restarting),
            paused: status == Status::Paused,
            restarting: status == Status::Restarting,
            unresponsive: state.unresponsive,
            oom_killed: state.oom_killed,
            dead: false,
            pid: state.pid,
            exit_code: state.exit_code,
            error: state.error.clone(),
            started_at: rfc3339_short(state.started_at.as_ref()),
            finished_at: rfc3339_short(state.finished_at.as_ref()),
            health: health.map(HealthView::of),
        }
    }
}

impl HealthView {
    fn of(health: &HealthState) -> Self {
        let probe = |probe: &HealthProbe| Probe {
            start: rfc3339_short(probe.start.as_ref()),
            end: rfc3339_short(probe.end.as_ref()),
            exit_code: probe.exit_code,
            output: probe.output.clone(),
        };
        Self {
            status: match health.status() {
                HealthStatus::Unspecified => "none",
                HealthStatus::Starting => "starting",
                HealthStatus::Healthy => "healthy",
                HealthStatus::Unhealthy => "unhealthy",
            },
            failing_streak: health.failing_streak,
            log: health.log.iter().map(probe).collect(),
        }
    }
}

impl Check {
    fn of(check: HealthConfig) -> Self {
        Self {
            test: check.test,
            interval: check.interval,
            timeout: check.timeout,
            start_period: check.start_period,
            start_interval: check.start_interval,
            retries: check.retries,
        }
    }
}

impl Config {
    /// As requested, with the image's values where those are in force.
    fn of(config: ContainerConfig, container: &Container) -> Self {
        let check = container.healthcheck.clone();
        let or = |value: &String, other: String| if value.is_empty() { other } else { value.clone() };
        Self {
            hostname: or(&container.hostname, config.hostname),
            domainname: config.domainname,
            user: or(&container.effective_user, config.user),
            tty: config.tty,
            open_stdin: config.open_stdin,
            stdin_once: config.stdin_once,
            env: if container.effective_env.is_empty() {
                config.env
            } else {
                container.effective_env.clone()
            },
            cmd: config.command,
            image: config.image,
            working_dir: or(&container.effective_working_dir, config.working_dir),
            entrypoint: config.entrypoint.map(|list| list.values),
            labels: config.labels.into_iter().collect(),
            stop_signal: config.stop_signal,
            stop_timeout: config.stop_timeout,
            timeout: (config.timeout > 0).then_some(config.timeout),
            healthcheck_on_failure_action: (check.as_ref())
                .map(|check| check.on_failure.clone())
                .filter(|action| action != "none"),
            // Docker has it here, too, when there is to be none.
            healthcheck: check.or(config.healthcheck).map(Check::of),
        }
    }
}

impl Host {
    fn of(host: HostConfig) -> Self {
        let log = host.log.unwrap_or_default();
        let restart = host.restart_policy.unwrap_or_default();
        let binds = host.mounts.iter().filter(|m| m.r#type() == mount::Type::Bind);
        Self {
            binds: binds
                .map(|m| format!("{}:{}{}", m.source, m.target, if m.read_only { ":ro" } else { "" }))
                .collect(),
            log_config: Log { driver: log.driver, config: log.options.into_iter().collect() },
            network_mode: host.network_mode,
            pid_mode: host.pid_mode,
            ipc_mode: host.ipc_mode,
            uts_mode: host.uts_mode,
            cgroupns_mode: host.cgroupns_mode,
            restart_policy: Restart { name: restart.name, maximum_retry_count: restart.maximum_retry_count },
            auto_remove: host.auto_remove,
            cap_add: host.cap_add,
            cap_drop: host.cap_drop,
            dns: host.dns,
            dns_options: host.dns_options,
            dns_search: host.dns_search,
            extra_hosts: host.extra_hosts,
            init: host.init,
            annotations: host.annotations.into_iter().collect(),
            oom_score_adj: host.oom_score_adj,
            privileged: host.privileged,
            readonly_rootfs: host.readonly_rootfs,
            security_opt: host.security_opt,
            userns_mode: host.userns_mode,
            tmpfs: host.tmpfs.into_iter().collect(),
            shm_size: host.shm_size,
            sysctls: host.sysctls.into_iter().collect(),
            cpu_shares: host.cpu_shares,
            memory: host.memory,
            nano_cpus: host.nano_cpus,
            cpu_period: host.cpu_period,
            cpu_quota: host.cpu_quota,
            cpuset_cpus: host.cpuset_cpus,
            cpuset_mems: host.cpuset_mems,
            blkio_weight: host.blkio_weight,
            memory_reservation: host.memory_reservation,
            memory_swap: host.memory_swap,
            pids_limit: host.pids_limit,
            devices: host.devices.into_iter().map(Device::of).collect(),
            device_requests: DeviceRequest::of(host.cdi_devices),
            device_cgroup_rules: host.device_cgroup_rules,
            blkio_weight_device: (host.blkio_weight_devices.into_iter())
                .map(|limit| Weight { path: limit.path, weight: limit.rate })
                .collect(),
            blkio_device_read_bps: rates(host.blkio_device_read_bps),
            blkio_device_write_bps: rates(host.blkio_device_write_bps),
            blkio_device_read_iops: rates(host.blkio_device_read_iops),
            blkio_device_write_iops: rates(host.blkio_device_write_iops),
            group_add: host.group_add,
            cgroup_parent: host.cgroup_parent,
            oom_kill_disable: host.oom_kill_disable,
            memory_swappiness: host.memory_swappiness,
            ulimits: host
                .ulimits
                .into_iter()
                .map(|u| Limit { name: u.name, hard: u.hard, soft: u.soft })
                .collect(),
        }
    }
}

impl Device {
    /// With what the engine takes where nothing is said.
    fn of(device: DeviceMapping) -> Self {
        let or = |text: String, other: &str| if text.is_empty() { other.to_owned() } else { text };
        Self {
            path_in_container: or(device.path_in_container, &device.path_on_host),
            cgroup_permissions: or(device.cgroup_permissions, "rwm"),
            path_on_host: device.path_on_host,
        }
    }
}

fn rates(all: Vec<BlockRate>) -> Vec<Rate> {
    all.into_iter().map(|limit| Rate { path: limit.path, rate: limit.rate }).collect()
}

impl MountView {
    fn of(mount: &Mount) -> Self {
        Self {
            kind: if mount.r#type() == mount::Type::Tmpfs { "tmpfs" } else { "bind" },
            source: mount.source.clone(),
            destination: mount.target.clone(),
            mode: if mount.read_only { "ro" } else { "" }.into(),
            rw: !mount.read_only,
            propagation: mount.propagation.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_has_docker_s_names() {
        let container = Container {
            id: "abc".into(),
            name: "web".into(),
            state: Some(ContainerState { status: Status::Exited.into(), exit_code: 3, ..Default::default() }),
            config: Some(ContainerConfig { image: "img".into(), ..Default::default() }),
            effective_env: vec!["PATH=/bin".into()],
            ..Default::default()
        };
        let value = serde_json::to_value(ContainerView::of(container)).expect("json");
        assert_eq!(value["Name"], "/web");
        assert_eq!(value["State"]["ExitCode"], 3);
        assert_eq!(value["State"]["Status"], "exited");
        assert_eq!(value["State"]["OOMKilled"], false);
        assert_eq!(value["State"]["StartedAt"], "0001-01-01T00:00:00Z");
        assert_eq!(value["Config"]["Env"][0], "PATH=/bin");
        assert_eq!(value["HostConfig"]["AutoRemove"], false);
    }
}

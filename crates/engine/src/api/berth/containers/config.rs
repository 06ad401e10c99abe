// SPDX-License-Identifier: Apache-2.0
//! Requests of berth.v1 as the engine's own types. Only what the wire allows
//! and the engine's types don't is refused here.

use berth::api::v1::{self, attach_request, mount::Type};

use crate::{
    domain::{
        container::{Config, HostConfig, Mount, MountKind, NetworkMode, ReadOnlyReach, Ulimit},
        devices::{BlockRate, DeviceMapping, Devices},
        health::{HealthChange, HealthConfig, OnFailure},
        log::{LogConfig, LogDriver},
        namespaces::{self, IpcMode, PidMode},
        restart::RestartPolicy,
        update::Changes,
    },
    error::{Error, Kind, Result},
    lifecycle::attach::AttachInput,
};

/// A container's configuration.
pub(super) fn decode(config: v1::ContainerConfig) -> Result<Config> {
    Ok(Config {
        image: config.image,
        command: config.command,
        entrypoint: config.entrypoint.map(|list| list.values),
        env: config.env,
        working_dir: config.working_dir,
        user: config.user,
        hostname: config.hostname,
        domainname: config.domainname,
        labels: config.labels.into_iter().collect(),
        tty: config.tty,
        open_stdin: config.open_stdin,
        stdin_once: config.stdin_once,
        stop_signal: config.stop_signal,
        stop_timeout: config.stop_timeout,
        timeout: config.timeout,
        health: config.healthcheck.map(health).transpose()?,
        host: host(config.host.unwrap_or_default())?,
    })
}

fn host(host: v1::HostConfig) -> Result<HostConfig> {
    let ulimit = |u: v1::Ulimit| Ulimit { name: u.name, soft: u.soft, hard: u.hard };
    Ok(HostConfig {
        network: NetworkMode::of_words(&host.network_mode)?,
        pid: PidMode::of_words(&host.pid_mode)?,
        ipc: IpcMode::of_words(&host.ipc_mode)?,
        uts_host: namespaces::is_host("UTS", &host.uts_mode)?,
        cgroupns_host: namespaces::is_host("CgroupNS", &host.cgroupns_mode)?,
        auto_remove: host.auto_remove,
        restart: restart(&host.restart_policy.unwrap_or_default())?,
        init: host.init,
        annotations: host.annotations.into_iter().collect(),
        readonly_rootfs: host.readonly_rootfs,
        privileged: host.privileged,
        cap_add: host.cap_add,
        cap_drop: host.cap_drop,
        security_opt: host.security_opt,
        userns: host.userns_mode,
        ulimits: host.ulimits.into_iter().map(ulimit).collect(),
        memory: host.memory,
        memory_swap: host.memory_swap,
        nano_cpus: host.nano_cpus,
        cpu_shares: host.cpu_shares,
        cpuset_cpus: host.cpuset_cpus,
        cpu_period: host.cpu_period,
        cpu_quota: host.cpu_quota,
        cpuset_mems: host.cpuset_mems,
        memory_reservation: host.memory_reservation,
        // Out of range is for the check to refuse.
        blkio_weight: u16::try_from(host.blkio_weight).unwrap_or(u16::MAX),
        pids_limit: host.pids_limit,
        shm_size: host.shm_size,
        mounts: host.mounts.into_iter().map(mount).collect::<Result<_>>()?,
        tmpfs: host.tmpfs.into_iter().collect(),
        devices: Devices {
            mappings: host.devices.into_iter().map(device).collect(),
            cdi: host.cdi_devices,
            rules: host.device_cgroup_rules,
            weights: rates(host.blkio_weight_devices),
            read_bps: rates(host.blkio_device_read_bps),
            write_bps: rates(host.blkio_device_write_bps),
            read_iops: rates(host.blkio_device_read_iops),
            write_iops: rates(host.blkio_device_write_iops),
        },
        group_add: host.group_add,
        cgroup_parent: host.cgroup_parent,
        oom_kill_disable: host.oom_kill_disable,
        memory_swappiness: host.memory_swappiness,
        sysctls: host.sysctls.into_iter().collect(),
        oom_score_adj: host.oom_score_adj,
        log: log(host.log.unwrap_or_default())?,
        extra_hosts: host.extra_hosts,
        dns: host.dns,
        dns_search: host.dns_search,
        dns_options: host.dns_options,
    })
}

fn health(health: v1::HealthConfig) -> Result<HealthConfig> {
    let nanos = |name: &str, n: i64| {
        let what = || format!("{name} in Healthcheck cannot be less than 1ms");
        u64::try_from(n).map_err(|_| Error::new(Kind::InvalidArgument, what()))
    };
    let negative = |_| Error::new(Kind::InvalidArgument, "Retries in Healthcheck cannot be negative");
    Ok(HealthConfig {
        test: health.test,
        interval: nanos("Interval", health.interval)?,
        timeout: nanos("Timeout", health.timeout)?,
        start_period: nanos("StartPeriod", health.start_period)?,
        start_interval: nanos("StartInterval", health.start_interval)?,
        retries: u32::try_from(health.retries).map_err(negative)?,
        on_failure: OnFailure::of_word(&health.on_failure)?,
    })
}

fn health_change(change: v1::HealthConfig) -> Result<HealthChange> {
    let on_failure = Some(change.on_failure.as_str()).filter(|word| !word.is_empty());
    Ok(HealthChange { on_failure: on_failure.map(OnFailure::of_word).transpose()?, config: health(change)? })
}

fn device(device: v1::DeviceMapping) -> DeviceMapping {
    DeviceMapping {
        host: device.path_on_host,
        container: device.path_in_container,
        permissions: device.cgroup_permissions,
    }
}

fn rates(all: Vec<v1::BlockRate>) -> Vec<BlockRate> {
    all.into_iter().map(|limit| BlockRate { path: limit.path, rate: limit.rate }).collect()
}

fn restart(policy: &v1::RestartPolicy) -> Result<RestartPolicy> {
    RestartPolicy::of_words(&policy.name, policy.maximum_retry_count)
}

fn mount(mount: v1::Mount) -> Result<Mount> {
    let kind = match mount.r#type() {
        Type::Bind => MountKind::Bind,
        Type::Tmpfs => MountKind::Tmpfs,
        Type::Unspecified => {
            let what = format!("invalid mount config: the type of {:?} is missing", mount.target);
            return Err(Error::new(Kind::InvalidArgument, what));
        }
    };
    let read_only_reach = match (mount.read_only_non_recursive, mount.read_only_force_recursive) {
        (false, false) => ReadOnlyReach::All,
        (true, false) => ReadOnlyReach::Top,
        (false, true) => ReadOnlyReach::Forced,
        (true, true) => {
            let what = format!("invalid mount config: {:?} is read-only both ways", mount.target);
            return Err(Error::new(Kind::InvalidArgument, what));
        }
    };
    Ok(Mount {
        kind,
        source: mount.source,
        target: mount.target,
        read_only: mount.read_only,
        propagation: mount.propagation,
        non_recursive: mount.non_recursive,
        read_only_reach,
        create_source: mount.create_source,
        tmpfs_size: mount.tmpfs_size,
        tmpfs_mode: mount.tmpfs_mode,
    })
}

fn log(log: v1::LogConfig) -> Result<LogConfig> {
    Ok(LogConfig { driver: LogDriver::of_word(&log.driver)?, options: log.options.into_iter().collect() })
}

/// Changes to a container.
pub(super) fn changes(request: v1::UpdateContainerRequest) -> Result<Changes> {
    Ok(Changes {
        memory: request.memory,
        memory_swap: request.memory_swap,
        memory_reservation: request.memory_reservation,
        nano_cpus: request.nano_cpus,
        cpu_shares: request.cpu_shares,
        cpu_period: request.cpu_period,
        cpu_quota: request.cpu_quota,
        cpuset_cpus: request.cpuset_cpus,
        cpuset_mems: request.cpuset_mems,
        pids_limit: request.pids_limit,
        blkio_weight: request.blkio_weight.map(|weight| u16::try_from(weight).unwrap_or(u16::MAX)),
        add_labels: request.add_labels.into_iter().collect(),
        remove_labels: request.remove_labels,
        log_options: request.log_options.into_iter().collect(),
        health: request.healthcheck.map(health_change).transpose()?,
        restart: request.restart_policy.as_ref().map(restart).transpose()?,
    })
}

/// A message of an attached client; `None` for one that says nothing.
pub(super) fn input(kind: attach_request::Kind) -> Option<AttachInput> {
    Some(match kind {
        attach_request::Kind::Open(_) => return None,
        attach_request::Kind::Stdin(bytes) => AttachInput::Stdin(bytes),
        attach_request::Kind::StdinClosed(_) => AttachInput::Close,
        attach_request::Kind::Resize(to) => {
            let (rows, columns) = size(&to);
            AttachInput::Resize { rows, columns }
        }
    })
}

/// Rows and columns of a terminal.
pub(in crate::api::berth) fn size(size: &v1::TtySize) -> (u16, u16) {
    let number = |n| u16::try_from(n).unwrap_or(u16::MAX);
    (number(size.rows), number(size.columns))
}

/// Nanoseconds since the Unix epoch; 0 for none, and for times before it.
pub(in crate::api) fn nanos(time: Option<prost_types::Timestamp>) -> u64 {
    let Some(time) = time else { return 0 };
    let (Ok(seconds), Ok(nanos)) = (u64::try_from(time.seconds), u64::try_from(time.nanos)) else { return 0 };
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

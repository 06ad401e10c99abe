// SPDX-License-Identifier: Apache-2.0
//! The engine's own types as answers of berth.v1.

use std::collections::BTreeMap;

use berth::api::v1::{
    self, attach_response,
    container_state::{self, HealthStatus},
    mount::Type,
};
use bytes::Bytes;
use prost_types::Timestamp;

use crate::{
    domain::{
        container::{Config, HostConfig, Mount, MountKind, ReadOnlyReach, Ulimit},
        devices::{BlockRate, DeviceMapping},
        health,
        log::LogConfig,
        record::Record,
        state::Shown,
    },
    lifecycle::{
        attach::AttachOutput,
        containers::{Details, Listed},
        logs::{Gap, Line, Stream},
    },
};

/// A time; none for 0.
pub(in crate::api::berth) fn time(nanos: u64) -> Option<Timestamp> {
    if nanos == 0 {
        return None;
    }
    Some(Timestamp {
        seconds: i64::try_from(nanos / 1_000_000_000).unwrap_or(i64::MAX),
        nanos: i32::try_from(nanos % 1_000_000_000).unwrap_or(0),
    })
}

/// A line of a list.
pub(super) fn summary(listed: Listed) -> v1::ContainerSummary {
    let Listed { record, status, sizes } = listed;
    let bytes = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    v1::ContainerSummary {
        state: Some(state(&record, status)),
        id: record.id.to_string(),
        name: record.name,
        image: record.image,
        image_id: record.image_id,
        command: record.summary.command,
        created_at: time(record.created_at),
        labels: record.summary.labels.into_iter().collect(),
        network_mode: record.summary.network.words(),
        size_rw: sizes.map(|sizes| bytes(sizes.written)),
        size_root_fs: sizes.map(|sizes| bytes(sizes.root)),
        mounts: record.summary.mounts.into_iter().map(mount).collect(),
    }
}

/// Everything.
pub(super) fn details(details: Details) -> v1::Container {
    let Details { record, status, document, log_dropped, log_path, bundle_path, shim_pid, health } = details;
    let effective = document.effective;
    let mut args = effective.args.into_iter();
    v1::Container {
        state: Some(state(&record, status)),
        id: record.id.to_string(),
        name: record.name,
        namespace: record.namespace.to_string(),
        created_at: time(record.created_at),
        config: Some(config(document.config)),
        image_id: record.image_id,
        path: args.next().unwrap_or_default(),
        args: args.collect(),
        effective_env: effective.env,
        effective_working_dir: effective.working_dir,
        effective_user: effective.user,
        hostname: effective.hostname,
        log_dropped: Some(v1::LogDropped { lines: log_dropped.lines, bytes: log_dropped.bytes }),
        log_path: log_path.to_string_lossy().into_owned(),
        bundle_path: bundle_path.to_string_lossy().into_owned(),
        shim_pid,
        restart_count: record.restarts.count,
        platform: effective.platform,
        healthcheck: effective.health.map(health_config),
        health: health.map(health_state),
    }
}

fn state(record: &Record, shown: Shown) -> v1::ContainerState {
    v1::ContainerState {
        // Whoever asks for those that run is told of the silent ones, too.
        status: status(if shown == Shown::Unknown { record.shown() } else { shown }).into(),
        unresponsive: shown == Shown::Unknown,
        pid: record.pid,
        exit_code: record.exit.code.into(),
        oom_killed: record.exit.oom_killed,
        error: record.exit.error.clone(),
        started_at: time(record.started_at),
        finished_at: time(record.exit.at),
        health: record.health.map_or(HealthStatus::Unspecified, health_status).into(),
    }
}

fn health_status(known: health::Status) -> HealthStatus {
    match known {
        health::Status::Starting => HealthStatus::Starting,
        health::Status::Healthy => HealthStatus::Healthy,
        health::Status::Unhealthy => HealthStatus::Unhealthy,
    }
}

/// What is remembered of a container's health.
pub(super) fn health_state(state: health::State) -> v1::HealthState {
    let probe = |probed: health::Probed| v1::HealthProbe {
        start: time(probed.start),
        end: time(probed.end),
        exit_code: probed.exit_code,
        output: probed.output,
    };
    v1::HealthState {
        status: health_status(state.status).into(),
        failing_streak: state.streak,
        log: state.log.into_iter().map(probe).collect(),
    }
}

fn health_config(health: health::HealthConfig) -> v1::HealthConfig {
    let nanos = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    v1::HealthConfig {
        test: health.test,
        interval: nanos(health.interval),
        timeout: nanos(health.timeout),
        start_period: nanos(health.start_period),
        start_interval: nanos(health.start_interval),
        retries: i32::try_from(health.retries).unwrap_or(i32::MAX),
        on_failure: health.on_failure.as_str().to_owned(),
    }
}

pub(super) fn status(shown: Shown) -> container_state::Status {
    use container_state::Status;
    match shown {
        Shown::Created => Status::Created,
        Shown::Running => Status::Running,
        Shown::Paused => Status::Paused,
        Shown::Exited => Status::Exited,
        Shown::Restarting => Status::Restarting,
        Shown::Unknown => Status::Unknown,
        Shown::Removing => Status::Removing,
    }
}

fn config(config: Config) -> v1::ContainerConfig {
    v1::ContainerConfig {
        image: config.image,
        command: config.command,
        entrypoint: config.entrypoint.map(|values| v1::StringList { values }),
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
        healthcheck: config.health.map(health_config),
        host: Some(host(config.host)),
    }
}

fn host(host: HostConfig) -> v1::HostConfig {
    let ulimit = |u: Ulimit| v1::Ulimit { name: u.name, soft: u.soft, hard: u.hard };
    let device = |device: DeviceMapping| v1::DeviceMapping {
        path_on_host: device.host,
        path_in_container: device.container,
        cgroup_permissions: device.permissions,
    };
    let rates = |all: Vec<BlockRate>| {
        all.into_iter().map(|limit| v1::BlockRate { path: limit.path, rate: limit.rate }).collect()
    };
    v1::HostConfig {
        network_mode: host.network.words(),
        pid_mode: host.pid.words(),
        ipc_mode: host.ipc.words(),
        uts_mode: if host.uts_host { "host".to_owned() } else { String::new() },
        cgroupns_mode: if host.cgroupns_host { "host" } else { "private" }.to_owned(),
        auto_remove: host.auto_remove,
        restart_policy: Some(v1::RestartPolicy {
            name: host.restart.as_str().to_owned(),
            maximum_retry_count: i32::try_from(host.restart.max()).unwrap_or(i32::MAX),
        }),
        init: host.init,
        annotations: host.annotations.into_iter().collect(),
        readonly_rootfs: host.readonly_rootfs,
        privileged: host.privileged,
        cap_add: host.cap_add,
        cap_drop: host.cap_drop,
        security_opt: host.security_opt,
        userns_mode: host.userns,
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
        blkio_weight: host.blkio_weight.into(),
        pids_limit: host.pids_limit,
        shm_size: host.shm_size,
        mounts: host.mounts.into_iter().map(mount).collect(),
        tmpfs: host.tmpfs.into_iter().collect(),
        devices: host.devices.mappings.into_iter().map(device).collect(),
        cdi_devices: host.devices.cdi,
        device_cgroup_rules: host.devices.rules,
        blkio_weight_devices: rates(host.devices.weights),
        blkio_device_read_bps: rates(host.devices.read_bps),
        blkio_device_write_bps: rates(host.devices.write_bps),
        blkio_device_read_iops: rates(host.devices.read_iops),
        blkio_device_write_iops: rates(host.devices.write_iops),
        group_add: host.group_add,
        cgroup_parent: host.cgroup_parent,
        oom_kill_disable: host.oom_kill_disable,
        memory_swappiness: host.memory_swappiness,
        sysctls: host.sysctls.into_iter().collect(),
        oom_score_adj: host.oom_score_adj,
        log: Some(log(host.log)),
        extra_hosts: host.extra_hosts,
        dns: host.dns,
        dns_search: host.dns_search,
        dns_options: host.dns_options,
    }
}

fn log(log: LogConfig) -> v1::LogConfig {
    v1::LogConfig { driver: log.driver.as_str().to_owned(), options: log.options.into_iter().collect() }
}

fn mount(mount: Mount) -> v1::Mount {
    let kind = match mount.kind {
        MountKind::Bind => Type::Bind,
        MountKind::Tmpfs => Type::Tmpfs,
    };
    v1::Mount {
        r#type: kind.into(),
        source: mount.source,
        target: mount.target,
        read_only: mount.read_only,
        propagation: mount.propagation,
        non_recursive: mount.non_recursive,
        read_only_non_recursive: mount.read_only_reach == ReadOnlyReach::Top,
        read_only_force_recursive: mount.read_only_reach == ReadOnlyReach::Forced,
        create_source: mount.create_source,
        tmpfs_size: mount.tmpfs_size,
        tmpfs_mode: mount.tmpfs_mode,
    }
}

/// A line of a log.
pub(super) fn line((line, attributes): (Line, BTreeMap<String, String>)) -> v1::LogsResponse {
    v1::LogsResponse {
        stream: stream(line.stream),
        timestamp: time(line.time),
        data: line.data,
        next: Some(v1::LogPlace { segment: line.next.segment, offset: line.next.offset }),
        gap: line.gap.map(gap),
        attributes: attributes.into_iter().collect(),
    }
}

fn gap(gap: Gap) -> v1::logs_response::Gap {
    use v1::logs_response::{Gap as Message, gap::Reason};
    match gap {
        Gap::Dropped { lines, bytes } => {
            Message { reason: Reason::Dropped.into(), lines, bytes, ..Message::default() }
        }
        Gap::Damaged(bytes) => Message { reason: Reason::Damaged.into(), bytes, ..Message::default() },
        Gap::Rotated(segments) => Message { reason: Reason::Rotated.into(), segments, ..Message::default() },
    }
}

/// A message to an attached client.
pub(super) fn attached(message: AttachOutput) -> v1::AttachResponse {
    let kind = match message {
        AttachOutput::Attached { tty } => attach_response::Kind::Attached(attach_response::Attached { tty }),
        AttachOutput::Output(from, data) => attach_response::Kind::Output(output(from, data)),
        AttachOutput::Missed(bytes) => attach_response::Kind::Missed(attach_response::Missed { bytes }),
    };
    v1::AttachResponse { kind: Some(kind) }
}

/// A piece of output.
pub(in crate::api::berth) fn output(from: Stream, data: Bytes) -> attach_response::Output {
    attach_response::Output { stream: stream(from), data }
}

fn stream(stream: Stream) -> i32 {
    match stream {
        Stream::Stdout => v1::Stream::Stdout,
        Stream::Stderr => v1::Stream::Stderr,
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::super::config::decode;
    use super::*;

    #[test]
    fn a_configuration_survives_the_wire() {
        let wire = v1::ContainerConfig {
            image: "i".to_owned(),
            command: vec!["c".to_owned()],
            entrypoint: Some(v1::StringList::default()),
            stop_timeout: Some(-1),
            healthcheck: Some(v1::HealthConfig {
                test: vec!["TCP".to_owned(), "80".to_owned()],
                interval: 7_000_000_000,
                retries: 2,
                on_failure: "restart".to_owned(),
                ..v1::HealthConfig::default()
            }),
            tty: true,
            host: Some(v1::HostConfig {
                network_mode: "host".to_owned(),
                pid_mode: "container:x".to_owned(),
                ipc_mode: "shareable".to_owned(),
                uts_mode: "host".to_owned(),
                cgroupns_mode: "host".to_owned(),
                devices: vec![v1::DeviceMapping {
                    path_on_host: "/dev/a".to_owned(),
                    ..v1::DeviceMapping::default()
                }],
                cdi_devices: vec!["a.b/c=d".to_owned()],
                blkio_device_read_bps: vec![v1::BlockRate { path: "/dev/b".to_owned(), rate: 5 }],
                memory_swappiness: Some(0),
                memory: 7,
                cpu_period: 8,
                cpu_quota: 9,
                cpuset_mems: "0".to_owned(),
                restart_policy: Some(v1::RestartPolicy {
                    name: "on-failure".to_owned(),
                    maximum_retry_count: 3,
                }),
                memory_reservation: 10,
                blkio_weight: 11,
                pids_limit: Some(3),
                mounts: vec![v1::Mount {
                    r#type: Type::Tmpfs.into(),
                    target: "/t".to_owned(),
                    tmpfs_mode: 0o700,
                    ..v1::Mount::default()
                }],
                log: Some(v1::LogConfig { driver: "json-file".to_owned(), ..v1::LogConfig::default() }),
                ..v1::HostConfig::default()
            }),
            ..v1::ContainerConfig::default()
        };
        assert_eq!(config(decode(wire.clone()).expect("decode")), wire);
    }

    #[test]
    fn no_time_is_none() {
        assert_eq!(time(0), None);
        assert_eq!(time(1_500_000_000), Some(Timestamp { seconds: 1, nanos: 500_000_000 }));
    }
}

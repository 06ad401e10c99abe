// SPDX-License-Identifier: Apache-2.0
//! The flags of `run` and `create` as the API's configuration of a container.

use berth::api::v1::{ContainerConfig, HostConfig, LogConfig, StringList};

use super::health;
use crate::{
    cli::create::{Attach, Create},
    error::{Error, Result},
    parse::{device::Device, key_value, lines, security},
};

/// What the container's streams are attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Streams {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
}

impl Streams {
    /// `-a`; without it the output, and with `-i` the input.
    pub(super) fn of(create: &Create) -> Self {
        let has = |stream| create.attach.contains(&stream);
        if create.attach.is_empty() {
            return Self { stdin: create.interactive, stdout: true, stderr: true };
        }
        Self { stdin: has(Attach::Stdin), stdout: has(Attach::Stdout), stderr: has(Attach::Stderr) }
    }

    /// Nothing: in the background.
    pub(super) const NONE: Self = Self { stdin: false, stdout: false, stderr: false };
}

/// The whole configuration.
///
/// # Errors
/// When a file of variables, labels or a seccomp profile can't be read or is
/// malformed.
pub(super) fn of(create: &Create, streams: Streams) -> Result<ContainerConfig> {
    if create.rm && create.restart.as_ref().is_some_and(|policy| policy.name != "no") {
        return Err(Error::new("conflicting options: cannot specify both --restart and --rm"));
    }
    let mut env = Vec::new();
    for file in &create.env_file {
        env.extend(lines::env_file(file)?);
    }
    for variable in &create.env {
        env.push(key_value::env(variable, |name| std::env::var(name).ok())?);
    }
    let mut labels = std::collections::HashMap::new();
    for file in &create.label_file {
        labels.extend(lines::label_file(file)?);
    }
    labels.extend(create.label.iter().cloned());
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    Ok(ContainerConfig {
        image: create.image().to_owned(),
        command: create.command().to_vec(),
        entrypoint: create
            .entrypoint
            .as_ref()
            .map(|path| StringList { values: if path.is_empty() { Vec::new() } else { vec![path.clone()] } }),
        env,
        working_dir: text(&create.workdir),
        user: text(&create.user),
        hostname: text(&create.hostname),
        domainname: text(&create.domainname),
        labels,
        tty: create.tty,
        open_stdin: create.interactive,
        stdin_once: streams.stdin && create.interactive,
        stop_signal: text(&create.stop_signal),
        stop_timeout: create.stop_timeout,
        timeout: create.timeout.unwrap_or_default(),
        healthcheck: health::config(&create.health)?,
        host: Some(host(create)?),
    })
}

fn host(create: &Create) -> Result<HostConfig> {
    let nodes = create.device.iter().filter_map(|device| match device {
        Device::Node(node) => Some(node),
        Device::Name(_) => None,
    });
    let cdi_names = create.device.iter().filter_map(|device| match device {
        Device::Name(name) => Some(name),
        Device::Node(_) => None,
    });
    let security_opt = create.security_opt.iter().map(|opt| security::option(opt));
    Ok(HostConfig {
        network_mode: create.network.clone().unwrap_or_default(),
        pid_mode: create.pid.clone().unwrap_or_default(),
        ipc_mode: create.ipc.clone().unwrap_or_default(),
        uts_mode: create.uts.clone().unwrap_or_default(),
        cgroupns_mode: create.cgroupns.clone().unwrap_or_default(),
        auto_remove: create.rm,
        restart_policy: create.restart.clone(),
        init: create.init,
        annotations: create.annotation.iter().cloned().collect(),
        readonly_rootfs: create.read_only,
        privileged: create.privileged,
        cap_add: create.cap_add.clone(),
        cap_drop: create.cap_drop.clone(),
        userns_mode: create.userns.clone().unwrap_or_default(),
        security_opt: security_opt.collect::<Result<_, _>>()?,
        ulimits: create.ulimit.clone(),
        memory: create.memory.unwrap_or_default(),
        memory_swap: create.memory_swap.unwrap_or_default(),
        nano_cpus: create.cpus.unwrap_or_default(),
        cpu_shares: create.cpu_shares.unwrap_or_default(),
        cpu_period: create.cpu_period.unwrap_or_default(),
        cpu_quota: create.cpu_quota.unwrap_or_default(),
        cpuset_mems: create.cpuset_mems.clone().unwrap_or_default(),
        memory_reservation: create.memory_reservation.unwrap_or_default(),
        blkio_weight: create.blkio_weight.unwrap_or_default().into(),
        cpuset_cpus: create.cpuset_cpus.clone().unwrap_or_default(),
        pids_limit: create.pids_limit,
        shm_size: create.shm_size.unwrap_or_default(),
        mounts: create.volume.iter().chain(&create.mount).cloned().collect(),
        tmpfs: create.tmpfs.iter().cloned().collect(),
        devices: nodes.cloned().collect(),
        cdi_devices: cdi_names.chain(create.gpus.iter().flat_map(|gpus| &gpus.0)).cloned().collect(),
        device_cgroup_rules: create.device_cgroup_rule.clone(),
        blkio_weight_devices: create.blkio_weight_device.clone(),
        blkio_device_read_bps: create.device_read_bps.clone(),
        blkio_device_write_bps: create.device_write_bps.clone(),
        blkio_device_read_iops: create.device_read_iops.clone(),
        blkio_device_write_iops: create.device_write_iops.clone(),
        group_add: create.group_add.clone(),
        cgroup_parent: create.cgroup_parent.clone().unwrap_or_default(),
        oom_kill_disable: create.oom_kill_disable,
        memory_swappiness: swappiness(create.memory_swappiness)?,
        sysctls: create.sysctl.iter().cloned().collect(),
        oom_score_adj: create.oom_score_adj.unwrap_or_default(),
        log: (create.log_driver.is_some() || !create.log_opt.is_empty()).then(|| LogConfig {
            driver: create.log_driver.clone().unwrap_or_default(),
            options: create.log_opt.iter().cloned().collect(),
        }),
        extra_hosts: create.add_host.clone(),
        dns: create.dns.clone(),
        dns_search: create.dns_search.clone(),
        dns_options: create.dns_option.clone(),
    })
}

/// -1 is unset, as in Docker.
fn swappiness(number: Option<i64>) -> Result<Option<u64>> {
    match number {
        None | Some(-1) => Ok(None),
        Some(number) => u64::try_from(number).map(Some).map_err(|_| {
            Error::new(format!("invalid value: {number}. Valid memory swappiness range is 0-100"))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{self, Verb, container};

    fn config(line: &str) -> (ContainerConfig, Streams) {
        let cli = cli::parse(&line.split_whitespace().map(Into::into).collect::<Vec<_>>()).expect(line);
        let Verb::Container(container::Verb::Run(run)) = cli.verb else { panic!("not run") };
        let streams = Streams::of(&run.create);
        (of(&run.create, streams).expect("config"), streams)
    }

    #[test]
    fn flags_arrive_where_they_belong() {
        let (config, streams) = config(
            "berth run -i -e A=1 -e B=2=3 -w /w -u 1:2 -h box -l k=v -m 1g --cpus 0.5 --cap-drop ALL \
             -v /a:/b:ro --mount type=tmpfs,dst=/t --tmpfs /r:size=1m --sysctl a.b=c --ulimit nofile=1:2 \
             --log-opt max-size=1m --network host --read-only img cmd arg",
        );
        let host = config.host.expect("host");
        assert_eq!(config.env, ["A=1", "B=2=3"]);
        assert_eq!(config.command, ["cmd", "arg"]);
        assert_eq!(
            (config.working_dir.as_str(), config.user.as_str(), config.hostname.as_str()),
            ("/w", "1:2", "box")
        );
        assert_eq!(config.labels["k"], "v");
        assert_eq!((host.memory, host.nano_cpus), (1 << 30, 500_000_000));
        assert_eq!(host.mounts.len(), 2);
        assert_eq!(host.tmpfs["/r"], "size=1m");
        assert_eq!(host.sysctls["a.b"], "c");
        assert_eq!(host.log.expect("log").options["max-size"], "1m");
        assert!(host.readonly_rootfs && config.open_stdin && config.stdin_once);
        assert_eq!(streams, Streams { stdin: true, stdout: true, stderr: true });
    }

    #[test]
    fn an_empty_entry_point_clears_the_image_s() {
        let arguments = ["berth", "run", "--entrypoint", "", "img"].map(Into::into);
        let cli = cli::parse(&arguments).expect("valid");
        let Verb::Container(container::Verb::Run(run)) = cli.verb else { panic!("not run") };
        let config = of(&run.create, Streams::NONE).expect("config");
        assert_eq!(config.entrypoint, Some(StringList { values: vec![] }));
        assert_eq!(self::config("berth run img").0.entrypoint, None);
    }

    #[test]
    fn attach_picks_streams() {
        assert_eq!(
            config("berth run -a stderr img").1,
            Streams { stdin: false, stdout: false, stderr: true }
        );
        assert_eq!(
            config("berth run -i -a stdin -a STDOUT img").1,
            Streams { stdin: true, stdout: true, stderr: false }
        );
    }
}

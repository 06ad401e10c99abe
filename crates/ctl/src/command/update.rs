// SPDX-License-Identifier: Apache-2.0
//! `berth update`.

use berth::api::v1::UpdateContainerRequest;

use super::{each, health};
use crate::{cli::manage::Update, context::Context, error::Result};

/// `berth update`: the same changes to all.
pub(super) async fn update(context: &Context, args: Update) -> Result<u8> {
    let changes = UpdateContainerRequest {
        namespace: context.namespace.clone(),
        container: String::new(),
        memory: args.memory,
        memory_swap: args.memory_swap,
        memory_reservation: args.memory_reservation,
        nano_cpus: args.cpus,
        cpu_shares: args.cpu_shares,
        cpu_period: args.cpu_period,
        cpu_quota: args.cpu_quota,
        cpuset_cpus: args.cpuset_cpus,
        cpuset_mems: args.cpuset_mems,
        pids_limit: args.pids_limit,
        blkio_weight: args.blkio_weight,
        restart_policy: args.restart,
        add_labels: args.label_add.into_iter().collect(),
        remove_labels: args.label_rm,
        log_options: args.log_opt.into_iter().collect(),
        healthcheck: health::config(&args.health)?,
    };
    each(args.targets.containers, |name| {
        let request = UpdateContainerRequest { container: name.clone(), ..changes.clone() };
        let mut client = context.client.containers();
        async move {
            client.update(request).await?;
            Ok(name)
        }
    })
    .await
}

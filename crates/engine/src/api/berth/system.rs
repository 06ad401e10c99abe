// SPDX-License-Identifier: Apache-2.0
//! berth.v1.System.

use std::sync::Arc;

use berth::{
    api::v1::{
        DiskUsageRequest, DiskUsageResponse, InfoRequest, InfoResponse, PingRequest, PingResponse,
        RegistryMirror, VersionRequest, VersionResponse, disk_usage_response, system_server::System,
    },
    ids::Namespace,
};
use tonic::{Request, Response, Status, async_trait};

use crate::{
    api::status::to_status,
    lifecycle::{
        disk::{ContainerUsage, DiskUsage, ImageUsage, Share},
        system::{self, Cgroups, Info, Mirrors, VERSION},
    },
};

/// berth.v1.System over the engine's own.
#[derive(Debug)]
pub struct SystemService(pub Arc<system::System>);

#[async_trait]
impl System for SystemService {
    async fn version(&self, _: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
        Ok(Response::new(VersionResponse {
            version: VERSION.version.to_owned(),
            api_version: VERSION.api_version.to_owned(),
            git_commit: VERSION.git_commit.to_owned(),
            os: VERSION.os.to_owned(),
            arch: VERSION.arch.to_owned(),
            kernel_version: self.0.kernel_release().map_err(|e| to_status(&e))?,
            rust_version: VERSION.rust_version.to_owned(),
        }))
    }

    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let namespace = Namespace::of_request(&request.into_inner().namespace)
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        let info = self.0.info(namespace).await.map_err(|e| to_status(&e))?;
        Ok(Response::new(encode(info)))
    }

    async fn ping(&self, _: Request<PingRequest>) -> Result<Response<PingResponse>, Status> {
        Ok(Response::new(PingResponse {}))
    }

    async fn disk_usage(
        &self,
        request: Request<DiskUsageRequest>,
    ) -> Result<Response<DiskUsageResponse>, Status> {
        let DiskUsageRequest { namespace, verbose } = request.into_inner();
        let namespace =
            Namespace::of_request(&namespace).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let mut usage = self.0.disk_usage(namespace).await.map_err(|e| to_status(&e))?;
        if !verbose {
            usage.image_list.clear();
            usage.container_list.clear();
        }
        Ok(Response::new(usage_answer(usage)))
    }
}

fn encode(info: Info) -> InfoResponse {
    let counts = info.counts;
    InfoResponse {
        id: info.id,
        name: info.kernel.host_name,
        version: VERSION.version.to_owned(),
        containers: counts.containers,
        containers_running: counts.running,
        containers_paused: counts.paused,
        containers_stopped: counts.containers - counts.running - counts.paused,
        images: counts.images,
        root_dir: info.root.display().to_string(),
        state_dir: info.state.display().to_string(),
        kernel_version: info.kernel.release,
        operating_system: info.operating_system,
        architecture: info.kernel.machine,
        cpus: u32::try_from(info.cpus).unwrap_or(u32::MAX),
        memory_total: info.memory,
        cgroup_version: match info.cgroups {
            Cgroups::V1 => "1",
            Cgroups::Hybrid => "hybrid",
            Cgroups::V2 => "2",
        }
        .to_owned(),
        cgroup_driver: "cgroupfs".to_owned(),
        snapshotter: "overlay".to_owned(),
        backing_filesystem: info.backing_filesystem,
        security_options: info.security_options.iter().map(|&o| o.to_owned()).collect(),
        warnings: info.warnings,
        logging_driver: "local".to_owned(),
        registry_mirrors: info.mirrors.into_iter().map(mirror).collect(),
    }
}

fn usage_answer(usage: DiskUsage) -> DiskUsageResponse {
    let image = |image: ImageUsage| disk_usage_response::Image {
        id: image.id,
        size: image.size,
        shared_size: image.shared,
    };
    let container = |container: ContainerUsage| disk_usage_response::Container {
        id: container.id,
        size: container.size,
        log_size: container.log,
    };
    DiskUsageResponse {
        images: Some(share(usage.images)),
        containers: Some(share(usage.containers)),
        logs: Some(share(usage.logs)),
        partial: Some(share(usage.partial)),
        metadata: Some(share(usage.metadata)),
        size: usage.size,
        image_list: usage.image_list.into_iter().map(image).collect(),
        container_list: usage.container_list.into_iter().map(container).collect(),
    }
}

fn share(share: Share) -> disk_usage_response::Share {
    let Share { total, active, size, reclaimable } = share;
    disk_usage_response::Share { total, active, size, reclaimable }
}

fn mirror(of: Mirrors) -> RegistryMirror {
    RegistryMirror { host: of.host, mirrors: of.mirrors }
}

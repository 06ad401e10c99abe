// SPDX-License-Identifier: Apache-2.0
//! berth.v1.System.

use std::sync::Arc;

use berth::{
    api::v1::{
        InfoRequest, InfoResponse, PingRequest, PingResponse, RegistryMirror, VersionRequest,
        VersionResponse, system_server::System,
    },
    ids::Namespace,
};
use tonic::{Request, Response, Status, async_trait};

use crate::{
    api::status::to_status,
    lifecycle::system::{self, Cgroups, Info, Mirrors, VERSION},
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

fn mirror(of: Mirrors) -> RegistryMirror {
    RegistryMirror { host: of.host, mirrors: of.mirrors }
}

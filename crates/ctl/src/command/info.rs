// SPDX-License-Identifier: Apache-2.0
//! `berth info`.

use std::fmt::Write as _;

use berth::api::v1::{InfoRequest, InfoResponse};
use serde::Serialize;

use crate::{
    cli::system::Info,
    context::Context,
    error::{Error, Result},
    output::{self, human, json, listing, template::Template},
};

/// By Docker's names, as far as it has them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct View {
    #[serde(rename = "ID")]
    id: String,
    containers: u32,
    containers_running: u32,
    containers_paused: u32,
    containers_stopped: u32,
    images: u32,
    driver: String,
    backing_filesystem: String,
    logging_driver: String,
    cgroup_driver: String,
    cgroup_version: String,
    security_options: Vec<String>,
    kernel_version: String,
    operating_system: String,
    #[serde(rename = "OSType")]
    os_type: &'static str,
    architecture: String,
    #[serde(rename = "NCPU")]
    ncpu: u32,
    mem_total: u64,
    name: String,
    root_dir: String,
    state_dir: String,
    registry_mirrors: Vec<Mirror>,
    server_version: String,
    client_version: &'static str,
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Mirror {
    host: String,
    mirrors: Vec<String>,
}

/// `berth info`: warnings go to stderr.
pub(super) async fn info(context: &Context, args: Info) -> Result<u8> {
    let request = InfoRequest { namespace: context.namespace.clone() };
    let view = View::of(context.client.system().info(request).await?.into_inner());
    match args.format.as_deref() {
        None => {
            output::print(&view.lines())?;
            for warning in &view.warnings {
                output::warn(&format!("WARNING: {warning}"));
            }
        }
        Some("json") => output::print(&(json::line(&view)? + "\n"))?,
        Some(text) => {
            let value = serde_json::to_value(&view).map_err(|e| Error::new(e.to_string()))?;
            output::print(&(Template::parse(&listing::unescape(text))?.render(&value)? + "\n"))?;
        }
    }
    Ok(0)
}

impl View {
    fn of(info: InfoResponse) -> Self {
        Self {
            id: info.id,
            containers: info.containers,
            containers_running: info.containers_running,
            containers_paused: info.containers_paused,
            containers_stopped: info.containers_stopped,
            images: info.images,
            driver: info.snapshotter,
            backing_filesystem: info.backing_filesystem,
            logging_driver: info.logging_driver,
            cgroup_driver: info.cgroup_driver,
            cgroup_version: info.cgroup_version,
            security_options: info.security_options,
            kernel_version: info.kernel_version,
            operating_system: info.operating_system,
            os_type: "linux",
            architecture: info.architecture,
            ncpu: info.cpus,
            mem_total: info.memory_total,
            name: info.name,
            root_dir: info.root_dir,
            state_dir: info.state_dir,
            registry_mirrors: info
                .registry_mirrors
                .into_iter()
                .map(|m| Mirror { host: m.host, mirrors: m.mirrors })
                .collect(),
            server_version: info.version,
            client_version: env!("CARGO_PKG_VERSION"),
            warnings: info.warnings,
        }
    }

    fn lines(&self) -> String {
        let mut out = format!("Client:\n Version: {}\n\nEngine:\n", self.client_version);
        for (name, value) in self.fields() {
            // Writing to a string can't fail.
            let _ = writeln!(out, " {name}: {value}");
        }
        list(&mut out, "Security Options", self.security_options.iter().cloned());
        let mirrors = self.registry_mirrors.iter().map(|m| format!("{}: {}", m.host, m.mirrors.join(", ")));
        list(&mut out, "Registry Mirrors", mirrors);
        out
    }

    /// Names begin with a blank more where they belong to the line above.
    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("Containers", self.containers.to_string()),
            (" Running", self.containers_running.to_string()),
            (" Paused", self.containers_paused.to_string()),
            (" Stopped", self.containers_stopped.to_string()),
            ("Images", self.images.to_string()),
            ("Server Version", self.server_version.clone()),
            ("Storage Driver", self.driver.clone()),
            (" Backing Filesystem", self.backing_filesystem.clone()),
            ("Logging Driver", self.logging_driver.clone()),
            ("Cgroup Driver", self.cgroup_driver.clone()),
            ("Cgroup Version", self.cgroup_version.clone()),
            ("Kernel Version", self.kernel_version.clone()),
            ("Operating System", self.operating_system.clone()),
            ("OSType", self.os_type.to_owned()),
            ("Architecture", self.architecture.clone()),
            ("CPUs", self.ncpu.to_string()),
            ("Total Memory", human::size_binary(self.mem_total)),
            ("Name", self.name.clone()),
            ("ID", self.id.clone()),
            ("Root Dir", self.root_dir.clone()),
            ("State Dir", self.state_dir.clone()),
        ]
    }
}

fn list(out: &mut String, name: &str, items: impl Iterator<Item = String>) {
    let mut items = items.peekable();
    if items.peek().is_some() {
        let _ = writeln!(out, " {name}:");
    }
    for item in items {
        let _ = writeln!(out, "  {item}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_together_is_indented() {
        let info = InfoResponse {
            containers: 3,
            containers_running: 1,
            memory_total: 25_157_091_328,
            security_options: vec!["seccomp".into()],
            ..Default::default()
        };
        let text = View::of(info).lines();
        assert!(text.contains("\nEngine:\n Containers: 3\n  Running: 1\n"), "{text}");
        assert!(text.contains(" Total Memory: 23.43GiB\n"), "{text}");
        assert!(text.ends_with(" Security Options:\n  seccomp\n"), "{text}");
    }
}

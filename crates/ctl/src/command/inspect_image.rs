// SPDX-License-Identifier: Apache-2.0
//! What `berth image inspect` shows: Docker's names and order of fields, and
//! at the end what Docker doesn't have.

use std::collections::BTreeMap;

use berth::api::v1::{ImageConfig, InspectImageResponse};
use serde::Serialize;
use serde_json::Value;

use crate::output::human::rfc3339_short;

/// An image.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ImageView {
    id: String,
    repo_tags: Vec<String>,
    repo_digests: Vec<String>,
    parent: &'static str,
    comment: String,
    created: String,
    docker_version: String,
    author: String,
    config: ImageConfigView,
    architecture: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    variant: String,
    os: String,
    size: u64,
    graph_driver: GraphDriver,
    #[serde(rename = "RootFS")]
    root_fs: RootFs,
    metadata: Metadata,
    descriptor: Descriptor,
    manifest_digest: String,
    history: Vec<History>,
    pinned: bool,
    last_used_time: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ImageConfigView {
    user: String,
    exposed_ports: BTreeMap<String, BTreeMap<String, String>>,
    env: Vec<String>,
    cmd: Vec<String>,
    #[serde(skip_serializing_if = "Value::is_null")]
    healthcheck: Value,
    volumes: BTreeMap<String, BTreeMap<String, String>>,
    working_dir: String,
    entrypoint: Vec<String>,
    on_build: Value,
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    stop_signal: String,
    #[serde(skip_serializing_if = "Value::is_null")]
    shell: Value,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct GraphDriver {
    data: BTreeMap<&'static str, String>,
    name: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct RootFs {
    #[serde(rename = "Type")]
    kind: &'static str,
    layers: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    last_tag_time: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct History {
    created: String,
    created_by: String,
    comment: String,
    empty_layer: bool,
    size: u64,
}

impl ImageView {
    pub(super) fn of(answer: InspectImageResponse) -> Self {
        let image = answer.image.unwrap_or_default();
        // The engine has checked that it is JSON.
        let raw: Value = serde_json::from_str(&answer.configuration).unwrap_or_default();
        let text = |name: &str| raw[name].as_str().unwrap_or_default().to_owned();
        // The last step's comment is the image's, where it has none itself.
        let last = answer.history.last().map(|entry| entry.comment.clone());
        Self {
            id: image.id,
            repo_tags: image.repo_tags,
            repo_digests: image.repo_digests,
            parent: "",
            comment: Some(text("comment")).filter(|c| !c.is_empty()).or(last).unwrap_or_default(),
            created: rfc3339_short(image.created_at.as_ref()),
            docker_version: text("docker_version"),
            author: answer.author,
            config: ImageConfigView::of(answer.config.unwrap_or_default(), &raw["config"]),
            architecture: image.architecture,
            variant: image.variant,
            os: image.os,
            size: image.size,
            graph_driver: GraphDriver::of(&answer.layer_dirs),
            root_fs: RootFs { kind: "layers", layers: answer.diff_ids },
            metadata: Metadata { last_tag_time: rfc3339_short(answer.tagged_at.as_ref()) },
            descriptor: Descriptor {
                media_type: answer.manifest_media_type,
                digest: answer.manifest_digest.clone(),
                size: answer.manifest_size,
            },
            manifest_digest: answer.manifest_digest,
            history: answer
                .history
                .into_iter()
                .map(|entry| History {
                    created: rfc3339_short(entry.created_at.as_ref()),
                    created_by: entry.created_by,
                    comment: entry.comment,
                    empty_layer: entry.empty_layer,
                    size: entry.size,
                })
                .collect(),
            pinned: image.pinned,
            last_used_time: rfc3339_short(image.used_at.as_ref()),
        }
    }
}

impl GraphDriver {
    fn of(layers: &[String]) -> Self {
        let mut data = BTreeMap::new();
        if let Some((top, below)) = layers.split_first() {
            data.insert("UpperDir", top.clone());
            if !below.is_empty() {
                data.insert("LowerDir", below.join(":"));
            }
        }
        Self { data, name: "overlay" }
    }
}

impl ImageConfigView {
    fn of(config: ImageConfig, raw: &Value) -> Self {
        // Docker has sets as objects of empty objects.
        let set = |list: Vec<String>| list.into_iter().map(|key| (key, BTreeMap::new())).collect();
        Self {
            user: config.user,
            exposed_ports: set(config.exposed_ports),
            env: config.env,
            cmd: config.cmd,
            healthcheck: raw["Healthcheck"].clone(),
            volumes: set(config.volumes),
            working_dir: config.working_dir,
            entrypoint: config.entrypoint,
            on_build: raw["OnBuild"].clone(),
            labels: config.labels.into_iter().collect(),
            stop_signal: config.stop_signal,
            shell: raw["Shell"].clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use berth::api::v1::{HistoryEntry, Image};

    use super::*;

    #[test]
    fn an_image_has_docker_s_names() {
        let configuration = r#"{"docker_version":"27.0","config":{"Healthcheck":{"Test":["NONE"]},
            "OnBuild":["RUN x"],"Shell":["/bin/bash","-c"]}}"#;
        let answer = InspectImageResponse {
            image: Some(Image { id: "sha256:ab".into(), size: 3, ..Default::default() }),
            configuration: configuration.into(),
            layer_dirs: vec!["/l/3/fs".into(), "/l/2/fs".into(), "/l/1/fs".into()],
            history: vec![HistoryEntry { comment: "by hand".into(), ..Default::default() }],
            manifest_digest: "sha256:cd".into(),
            manifest_media_type: "m".into(),
            ..Default::default()
        };
        let value = serde_json::to_value(ImageView::of(answer)).expect("json");
        for (pointer, expected) in [
            ("/Id", "sha256:ab"),
            ("/DockerVersion", "27.0"),
            ("/Comment", "by hand"),
            ("/Parent", ""),
            ("/Config/Healthcheck/Test/0", "NONE"),
            ("/Config/OnBuild/0", "RUN x"),
            ("/Config/Shell/0", "/bin/bash"),
            ("/GraphDriver/Data/UpperDir", "/l/3/fs"),
            ("/GraphDriver/Data/LowerDir", "/l/2/fs:/l/1/fs"),
            ("/RootFS/Type", "layers"),
            ("/Descriptor/digest", "sha256:cd"),
            ("/Descriptor/mediaType", "m"),
            ("/Metadata/LastTagTime", "0001-01-01T00:00:00Z"),
        ] {
            assert_eq!(value.pointer(pointer), Some(&Value::from(expected)), "{pointer}");
        }
    }
}

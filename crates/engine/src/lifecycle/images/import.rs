// SPDX-License-Identifier: Apache-2.0
//! Import: a tar archive becomes an image of one layer.

use std::sync::Arc;

use berth::ids::Namespace;
use serde_json::{Value, json};

use super::{
    Platform, Upload,
    assemble::blocking,
    build::{NewImage, StoredLayer, new_name},
    pull::event,
};
use crate::{
    domain::{digest::Digest, instruction},
    error::Result,
};

/// What an imported image is to be.
#[derive(Debug, Clone)]
pub struct ImportRequest {
    /// Whose image it becomes.
    pub namespace: Namespace,
    /// Its name; may be empty.
    pub reference: String,
    /// What it runs on.
    pub platform: Platform,
    /// For its history.
    pub message: String,
    /// Instructions of a Dockerfile.
    pub changes: Vec<String>,
}

impl Upload {
    /// Makes an image of what was received. The id.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no archive, a bad name or instruction;
    /// those of the host.
    pub async fn import(self, request: ImportRequest) -> Result<Digest> {
        let reference = new_name(&request.reference)?;
        let mut config = instruction::Config::new();
        instruction::apply(&mut config, &request.changes)?;
        let (images, file) = self.into_file().await?;
        let content = Arc::clone(&images.content);
        let layer = blocking(move || StoredLayer::of_file(&content, file)).await?;
        let now = jiff::Timestamp::now().to_string();
        let mut whole = json!({
            "created": now,
            "architecture": request.platform.architecture,
            "os": request.platform.os,
            "config": config,
            "history": [{"created": now, "comment": request.message}],
        });
        if !request.platform.variant.is_empty() {
            whole["variant"] = Value::from(request.platform.variant);
        }
        let new = NewImage { base: None, layer: Some(layer), config: whole, reference };
        let namespace = request.namespace.clone();
        let told = namespace.to_string();
        images.add(namespace, new, move |id, shown| event(&told, "import", id, shown)).await
    }
}

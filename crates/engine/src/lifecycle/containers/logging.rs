// SPDX-License-Identifier: Apache-2.0
//! A container's log beside its life: what its shim is told of it, and what is
//! done with it while it is written.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use berth::api::shim::{Log, log::Driver};

use super::{Containers, Live};
use crate::{
    config::Containers as Defaults,
    domain::{
        container::Document,
        log::{LogConfig, LogDriver},
        record::Record,
    },
    lifecycle::logs::compress,
};

impl Containers {
    /// Has segments of the log compressed until the container has ended, and
    /// those that were closed while no engine was there.
    pub(super) fn watch_log(self: &Arc<Self>, record: &Record, live: &Arc<Live>) {
        let (this, record, live) = (Arc::clone(self), record.clone(), Arc::clone(live));
        tokio::spawn(async move {
            let path = this.log_path(&record.namespace, &record.id);
            loop {
                let changed = this.log_rotations.watch(&path).await;
                this.compress(&record).await;
                let Ok(Some(mut changed)) = changed else { return };
                tokio::select! {
                    () = changed.changed() => {}
                    _ = live.shim.ended() => return this.compress(&record).await,
                }
            }
        });
    }

    async fn compress(self: &Arc<Self>, record: &Record) {
        let Ok(document) = self.document(record.id.clone()).await else { return };
        if !document.config.host.log.compress() {
            return;
        }
        let path = self.log_path(&record.namespace, &record.id);
        // One at a time: it is nobody's hurry.
        let Ok(_turn) = self.compressing.acquire().await else { return };
        let compressed = self.blocking(move |_| Ok(compress(&path))).await;
        if let Ok(Err(e)) = compressed {
            tracing::warn!(id = %record.id, error = %e, "compress a log; it is left as it is");
        }
    }
}

/// What `--details` shows of the container's lines.
pub(in crate::lifecycle) fn attributes(record: &Record, document: &Document) -> BTreeMap<String, String> {
    let effective = &document.effective;
    document.config.host.log.attributes(&effective.labels, &effective.env, &names(record))
}

/// What the template of a tag may name.
pub(in crate::lifecycle) fn names(record: &Record) -> BTreeMap<&'static str, String> {
    let short = |id: &str| id.chars().take(12).collect::<String>();
    let image = record.image_id.as_str();
    [
        ("ID", short(record.id.as_str())),
        ("FullID", record.id.to_string()),
        ("Name", record.name.clone()),
        ("ImageID", short(image.strip_prefix("sha256:").unwrap_or(image))),
        ("ImageFullID", image.to_owned()),
        ("ImageName", record.image.clone()),
        ("DaemonName", "berth".to_owned()),
    ]
    .into()
}

/// The log as the shim is told of it.
pub(super) fn log(record: &Record, document: &Document, path: &Path, defaults: &Defaults) -> Log {
    let config = &document.config.host.log;
    let driver = match config.driver {
        LogDriver::Local => Driver::Local,
        LogDriver::JsonFile => Driver::JsonFile,
        LogDriver::None => Driver::None,
    };
    Log {
        driver: driver.into(),
        path: path.to_string_lossy().into_owned(),
        attributes: attributes(record, document).into_iter().collect(),
        ..limits(config, defaults)
    }
}

/// The part of it that can change while it is written.
pub(super) fn limits(config: &LogConfig, defaults: &Defaults) -> Log {
    let limits = config.limits(defaults.log_max_size.bytes(), defaults.log_max_file);
    Log {
        max_size: limits.max_size,
        max_files: limits.max_files,
        max_age: limits.max_age.as_secs(),
        max_total: limits.max_total,
        ..Log::default()
    }
}

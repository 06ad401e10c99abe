// SPDX-License-Identifier: Apache-2.0
//! A container's log beside its life: what its shim is told of it, and what is
//! done with it while it is written.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use berth::{
    api::shim::{Log, log::Driver},
    bundle,
    ids::ContainerId,
    log::{DROPPED_RECORD, Dropped},
};
use rusqlite::Connection;

use super::{Containers, Live};
use crate::{
    config::{ByteSize, Containers as Defaults},
    domain::{
        container::Document,
        log::{Limits, LogDriver},
        record::Record,
        state::Status,
    },
    error::Result,
    lifecycle::logs::compress,
    store::meta::{containers as rows, logs},
};

impl Containers {
    /// Has segments of the log compressed until the container has ended, and
    /// those that were closed while no engine was there; `compressed` is whether
    /// that was asked for, as far as it is known.
    pub(super) fn watch_log(self: &Arc<Self>, record: &Record, live: &Arc<Live>, compressed: Option<bool>) {
        let (this, record, live) = (Arc::clone(self), record.clone(), Arc::clone(live));
        tokio::spawn(async move {
            let path = this.log_path(&record.namespace, &record.id);
            let record_of_drops = this.bundle_path(&record.namespace, &record.id).join(DROPPED_RECORD);
            let rotated = this.log_rotations.watch(&path).await;
            let in_bundle = this.log_rotations.watch(&record_of_drops).await;
            for watched in [&rotated, &in_bundle] {
                if let Err(e) = watched {
                    tracing::warn!(id = %record.id, error = e.chain(), "watch a log: it isn't compressed");
                }
            }
            let (Ok(Some(mut rotated)), Ok(Some(mut in_bundle))) = (rotated, in_bundle) else { return };
            match compressed {
                None => this.compress(&record).await,
                Some(true) => this.compress_now(&record).await,
                Some(false) => {}
            }
            let mut told = this.tell_dropped(&record, Dropped::default()).await;
            loop {
                tokio::select! {
                    () = rotated.changed() => this.compress(&record).await,
                    () = in_bundle.changed() => told = this.tell_dropped(&record, told).await,
                    _ = live.shim.ended() => return this.compress(&record).await,
                }
            }
        });
    }

    /// Tells everybody that a log has begun to drop lines; how many have been
    /// dropped when this is called again.
    async fn tell_dropped(self: &Arc<Self>, record: &Record, told: Dropped) -> Dropped {
        let record = record.clone();
        let looked = self
            .blocking(move |this| {
                let dropped = dropped(&this.bundle_path(&record.namespace, &record.id));
                if told.lines == 0 && dropped.lines > 0 {
                    // Its name may be another than at its start.
                    let row = this.db.read(|c| rows::any(c, &record.id))?.unwrap_or(record);
                    let counts = [("lines", dropped.lines), ("bytes", dropped.bytes)];
                    this.note(&row, "log_dropped", &counts.map(|(name, n)| (name, n.to_string())))?;
                }
                Ok(dropped)
            })
            .await;
        looked.unwrap_or_else(|e| {
            tracing::warn!(error = e.chain(), "tell that a log drops lines");
            told
        })
    }

    /// What could not be written to its log. Blocks.
    pub(in crate::lifecycle) fn dropped(&self, db: &Connection, record: &Record) -> Result<Dropped> {
        let before = logs::dropped(db, &record.id)?;
        if !matches!(record.status, Status::Starting | Status::Running) {
            return Ok(before);
        }
        let now = dropped(&self.bundle_path(&record.namespace, &record.id));
        Ok(Dropped {
            lines: before.lines.saturating_add(now.lines),
            bytes: before.bytes.saturating_add(now.bytes),
            ..now
        })
    }

    /// What the log of one that has ended doesn't tell of yet.
    pub(in crate::lifecycle) async fn untold(self: &Arc<Self>, id: &ContainerId) -> Result<Dropped> {
        let id = id.clone();
        self.blocking(move |this| this.db.read(|c| logs::dropped(c, &id))).await
    }

    async fn compress(self: &Arc<Self>, record: &Record) {
        let Ok(document) = self.document(record.id.clone()).await else { return };
        if document.config.host.log.compress() {
            self.compress_now(record).await;
        }
    }

    async fn compress_now(self: &Arc<Self>, record: &Record) {
        let path = self.log_path(&record.namespace, &record.id);
        // One at a time: it is nobody's hurry.
        let Ok(_turn) = self.compressing.acquire().await else { return };
        let compressed = self.blocking(move |_| Ok(compress(&path))).await;
        if let Ok(Err(e)) = compressed {
            tracing::warn!(id = %record.id, error = %e, "compress a log; it is left as it is");
        }
    }
}

/// What the shim of this bundle could not write; nothing where it says nothing.
pub(super) fn dropped(bundle: &Path) -> Dropped {
    bundle::read_record(bundle, DROPPED_RECORD).ok().flatten().unwrap_or_default()
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
pub(super) fn log(
    record: &Record,
    document: &Document,
    path: &Path,
    untold: Dropped,
    defaults: &Defaults,
) -> Log {
    let config = &document.config.host.log;
    let driver = match config.driver {
        LogDriver::Local | LogDriver::Journald | LogDriver::Syslog => Driver::Local,
        LogDriver::JsonFile => Driver::JsonFile,
        LogDriver::None => Driver::None,
    };
    Log {
        driver: driver.into(),
        path: path.to_string_lossy().into_owned(),
        untold_lines: untold.untold_lines,
        untold_bytes: untold.untold_bytes,
        ..changeable(record, document, defaults)
    }
}

/// The part of it that can change while it is written.
pub(super) fn changeable(record: &Record, document: &Document, defaults: &Defaults) -> Log {
    let config = &document.config.host.log;
    let limits = config.limits(&Limits {
        max_size: defaults.log_max_size.bytes(),
        max_files: defaults.log_max_file,
        max_age: Duration::from_secs(defaults.log_max_age),
        max_total: defaults.log_max_total.map_or(0, ByteSize::bytes),
    });
    Log {
        max_size: limits.max_size,
        max_files: limits.max_files,
        max_age: limits.max_age.as_secs(),
        max_total: limits.max_total,
        attributes: attributes(record, document).into_iter().collect(),
        ..Log::default()
    }
}

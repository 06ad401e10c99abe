// SPDX-License-Identifier: Apache-2.0
//! The automatic collection: when the disk is fuller than the high mark, images
//! that nothing uses go, the longest unused first, until it is down to the low
//! one. What is in use, pinned, preloaded or young stays, whatever the disk.

use std::{collections::HashSet, path::PathBuf, sync::Arc, time::Duration};

use berth::bundle::now_nanos;
use nix::sys::statvfs::statvfs;

use super::{
    Images,
    assemble::blocking,
    remove::{Removed, remove_unused},
};
use crate::{
    config::Mark,
    domain::digest::Digest,
    error::{Context as _, Result},
    store::meta::{graph::Graph, images as rows, preloaded},
};

/// When to collect, and what.
#[derive(Debug, Clone)]
pub struct Collection {
    /// On the disk that is looked at.
    pub root: PathBuf,
    /// Fuller than this begins it.
    pub high: Mark,
    /// This ends it.
    pub low: Mark,
    /// How long an image has to be of no use.
    pub min_age: Duration,
    /// Between two looks.
    pub interval: Duration,
    /// Only say what it would be.
    pub dry_run: bool,
}

/// A disk's state.
#[derive(Debug, Clone, Copy)]
struct Disk {
    size: u64,
    used: u64,
}

impl Collection {
    fn look(&self) -> Result<Disk> {
        let disk =
            statvfs(&self.root).with_context(|| format!("look at the disk of {}", self.root.display()))?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.fragment_size());
        let free = bytes(disk.blocks_free());
        // Without what is kept back for root: full is when nobody can write.
        let size = bytes(disk.blocks()).saturating_sub(free.saturating_sub(bytes(disk.blocks_available())));
        Ok(Disk { size, used: size.saturating_sub(bytes(disk.blocks_available())) })
    }
}

/// Between two looks at what failed pulls have left.
const TIDY_INTERVAL: Duration = Duration::from_hours(1);

impl Images {
    /// Puts content aside now and then that pulls which failed have left, and
    /// removes what nobody came back for. Never ends.
    pub async fn keep_tidy(self: Arc<Self>) {
        loop {
            tokio::time::sleep(TIDY_INTERVAL).await;
            let content = Arc::clone(&self.content);
            if let Err(e) = blocking(move || content.tidy()).await {
                tracing::warn!(error = %e.chain(), "can't remove what failed pulls have left");
            }
        }
    }

    /// Looks at the disk now and then, and collects. Never ends.
    pub async fn keep_collected(self: Arc<Self>, collection: Collection) {
        let mut told = Vec::new();
        loop {
            let (this, settings) = (Arc::clone(&self), collection.clone());
            match blocking(move || this.collect(&settings)).await {
                Ok(removed) if removed.deleted.is_empty() && removed.untagged.is_empty() => {}
                // A dry run finds the same every time.
                Ok(removed) if collection.dry_run && removed.untagged == told => {}
                Ok(removed) => {
                    let (images, bytes) = (removed.untagged.join(" "), removed.reclaimed);
                    if collection.dry_run {
                        tracing::info!(images, bytes, "the disk is filling up: a collection would remove");
                    } else {
                        tracing::info!(images, bytes, "the disk is filling up: unused images are removed");
                    }
                    told = removed.untagged;
                }
                Err(e) => tracing::warn!(error = %e.chain(), "can't collect unused images"),
            }
            tokio::time::sleep(collection.interval).await;
        }
    }

    /// Collects if it is time. Blocks.
    fn collect(&self, settings: &Collection) -> Result<Removed> {
        let mut removed = Removed::default();
        let before = settings.look()?;
        if before.used <= settings.high.used(before.size) {
            return Ok(removed);
        }
        if !settings.dry_run {
            self.content.tidy()?;
        }
        let age = u64::try_from(settings.min_age.as_nanos()).unwrap_or(u64::MAX);
        let youngest = i64::try_from(now_nanos().saturating_sub(age)).unwrap_or(i64::MAX);
        let (candidates, graph) = self.db.read(|c| {
            let kept = preloaded::images(c)?;
            let mut rows = rows::unused_since(c, youngest)?;
            rows.retain(|row| !kept.contains(&row.id));
            Ok((rows, Graph::read(c)?))
        })?;
        let mut gone: HashSet<String> = HashSet::new();
        for row in candidates {
            let used = if settings.dry_run {
                before.used.saturating_sub(removed.reclaimed)
            } else {
                settings.look()?.used
            };
            if used <= settings.low.used(before.size) {
                break;
            }
            let id: Digest = row.id.parse()?;
            if settings.dry_run {
                gone.insert(row.id.clone());
                removed.untagged.extend(self.names(&id)?);
                removed.deleted.push(row.id);
                removed.reclaimed = graph.without(&gone).1;
            } else {
                self.remove_everywhere(&id, youngest, &mut removed)?;
                self.sweep(&mut removed)?;
            }
        }
        Ok(removed)
    }

    fn names(&self, id: &Digest) -> Result<Vec<String>> {
        self.db.read(|c| {
            let mut names = Vec::new();
            for namespace in rows::namespaces(c, id.as_str())? {
                names.extend(rows::refs_of(c, &namespace, id.as_str())?.into_iter().map(|row| row.name));
            }
            Ok(names)
        })
    }

    /// All names of an image and the image, unless it has come to be of use.
    fn remove_everywhere(&self, id: &Digest, youngest: i64, removed: &mut Removed) -> Result<()> {
        let one = self.db.write(|tx| {
            let mut all = Removed::default();
            let idle = rows::get(tx, id.as_str())?.is_some_and(|row| row.used_at < youngest);
            if !idle || rows::is_pinned(tx, id.as_str())? {
                return Ok(all);
            }
            for namespace in rows::namespaces(tx, id.as_str())? {
                let one = remove_unused(tx, &namespace, id)?;
                all.untagged.extend(one.untagged);
                all.deleted.extend(one.deleted);
            }
            Ok(all)
        })?;
        self.events.committed();
        removed.untagged.extend(one.untagged);
        removed.deleted.extend(one.deleted);
        Ok(())
    }
}

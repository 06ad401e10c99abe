// SPDX-License-Identifier: Apache-2.0
//! Prune: images that nothing uses are removed, and what only they needed;
//! and pins, which keep an image from it.

use std::collections::{BTreeMap, HashSet};

use berth::ids::Namespace;

use super::{
    Images,
    list::{ImageFilter, ImageSummary},
    remove::{Removed, remove_unused},
    resolve::find,
};
use crate::{
    domain::filter::label_matches,
    error::Result,
    store::meta::{graph::Graph, images as rows},
};

/// Which of them.
#[derive(Debug, Clone, Default)]
pub struct PruneOptions {
    /// The tenant.
    pub namespace: Namespace,
    /// Also those that have a name.
    pub all: bool,
    /// Only those made before; nanoseconds since the Unix epoch, 0 is all.
    pub until: u64,
    /// `name` or `name=value`; all must hold.
    pub labels: Vec<String>,
    /// The same; none may hold.
    pub without_labels: Vec<String>,
    /// Only say what it would be.
    pub dry_run: bool,
}

impl PruneOptions {
    fn wants(&self, image: &ImageSummary) -> bool {
        let labels: &BTreeMap<_, _> = &image.labels;
        let until = i64::try_from(self.until).unwrap_or(i64::MAX);
        (self.all || image.repo_tags.is_empty() && image.repo_digests.is_empty())
            && !image.pinned
            && (until == 0 || image.created_at < until)
            && self.labels.iter().all(|wanted| label_matches(wanted, labels))
            && !self.without_labels.iter().any(|unwanted| label_matches(unwanted, labels))
    }
}

impl Images {
    /// Removes images that nothing uses; one that is used meanwhile stays.
    /// Blocks.
    ///
    /// # Errors
    /// Those of the host and of the database; what was removed before is gone.
    pub fn prune(&self, options: &PruneOptions) -> Result<Removed> {
        // Which ones is found out beside any writer, and each is looked at
        // again when it is removed.
        let all = self.list(&options.namespace, &ImageFilter::default())?;
        let unused = self.db.read(|c| {
            let mut unused = Vec::new();
            for image in all.into_iter().filter(|image| options.wants(image)) {
                if !rows::is_used(c, image.id.as_str())? {
                    unused.push(image);
                }
            }
            Ok(unused)
        })?;
        if options.dry_run {
            return self.would_remove(&options.namespace, &unused);
        }
        let mut removed = Removed::default();
        for image in &unused {
            let one = self.db.write(|tx| remove_unused(tx, options.namespace.as_str(), &image.id))?;
            removed.untagged.extend(one.untagged);
            removed.deleted.extend(one.deleted);
        }
        self.events.committed();
        self.sweep(&mut removed)?;
        Ok(removed)
    }

    /// What removing `images` would take away.
    pub(super) fn would_remove(&self, namespace: &Namespace, images: &[ImageSummary]) -> Result<Removed> {
        self.db.read(|c| {
            let mut removed = Removed::default();
            let mut gone = HashSet::new();
            for image in images {
                removed.untagged.extend(image.repo_tags.iter().chain(&image.repo_digests).cloned());
                let own = rows::refs_of(c, namespace.as_str(), image.id.as_str())?.len() as u64;
                if rows::count_refs(c, image.id.as_str())? <= own {
                    gone.insert(image.id.to_string());
                    removed.deleted.push(image.id.to_string());
                }
            }
            let (layers, bytes) = Graph::read(c)?.without(&gone);
            removed.deleted.extend(layers);
            removed.reclaimed = bytes;
            Ok(removed)
        })
    }

    /// Keeps an image from [`Images::prune`], or no longer. Blocks.
    ///
    /// # Errors
    /// `NotFound`, `InvalidArgument` for what can't be an image.
    pub fn pin(&self, namespace: &Namespace, image: &str, keep: bool) -> Result<()> {
        self.db.write(|tx| {
            let found = find(tx, namespace.as_str(), image)?;
            rows::pin(tx, namespace.as_str(), &found.row.id, keep)
        })
    }
}

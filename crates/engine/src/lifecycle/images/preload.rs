// SPDX-License-Identifier: Apache-2.0
//! Preload: archives in a directory are loaded when the engine starts, for
//! machines that reach no registry. Beside everything else, so that nobody
//! waits for it; an archive that can't be loaded is a line in the log.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use berth::{failpoint, ids::Namespace};

use super::{Images, Platform, assemble::blocking, resolve::find};
use crate::{
    error::{Context as _, Result},
    store::meta::preloaded as rows,
};

impl Images {
    /// Loads what is in `directory`, one archive after the other, by name.
    pub async fn preload(self: Arc<Self>, directory: PathBuf) {
        let listed = directory.clone();
        let archives = match blocking(move || archives(&listed)).await {
            Ok(archives) => archives,
            Err(e) => {
                tracing::warn!(directory = %directory.display(), error = %e.chain(), "can't preload images");
                return;
            }
        };
        for path in archives {
            match self.preload_one(&path).await {
                Ok(None) => tracing::debug!(archive = %path.display(), "preloaded before"),
                Ok(Some(images)) => {
                    tracing::info!(archive = %path.display(), images = images.join(" "), "preloaded");
                }
                Err(e) => {
                    tracing::warn!(archive = %path.display(), error = %e.chain(), "can't preload an archive");
                }
            }
        }
    }

    /// What was loaded, by name; `None` when all of it is here.
    async fn preload_one(self: &Arc<Self>, path: &Path) -> Result<Option<Vec<String>>> {
        let (this, namespace, of) = (Arc::clone(self), Namespace::default(), path.to_owned());
        let found = blocking(move || {
            let file = File::open(&of).context("open it")?;
            let stat = file.metadata().context("look at it")?;
            let row = rows::Row {
                path: of.to_string_lossy().into_owned(),
                size: stat.len(),
                mtime: stat.mtime().saturating_mul(1_000_000_000).saturating_add(stat.mtime_nsec()),
                images: Vec::new(),
            };
            Ok(if this.is_preloaded(&row)? { None } else { Some((file, row)) })
        })
        .await?;
        let Some((file, mut row)) = found else { return Ok(None) };
        let loaded = self.load_file(namespace, Platform::host(), file).await?;
        failpoint::hit("preload.loaded")?;
        row.images = loaded.iter().map(|image| image.image_id.to_string()).collect();
        let db = Arc::clone(&self.db);
        blocking(move || db.write(|tx| rows::set(tx, &row))).await?;
        let name = |image: super::Loaded| match image.references.is_empty() {
            true => vec![image.image_id.to_string()],
            false => image.references,
        };
        Ok(Some(loaded.into_iter().flat_map(name).collect()))
    }

    /// It was loaded as it is, and its images are still here.
    fn is_preloaded(&self, archive: &rows::Row) -> Result<bool> {
        self.db.read(|c| {
            let Some(known) = rows::get(c, &archive.path)? else { return Ok(false) };
            let same = (known.size, known.mtime) == (archive.size, archive.mtime);
            let here = |id: &String| find(c, Namespace::default().as_str(), id).is_ok();
            Ok(same && known.images.iter().all(here))
        })
    }
}

/// The files in `directory` that are no secret of their writer.
fn archives(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).context("list them")? {
        let entry = entry.context("list them")?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !hidden && fs::metadata(entry.path()).is_ok_and(|found| found.is_file()) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

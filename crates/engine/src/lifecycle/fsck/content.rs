// SPDX-License-Identifier: Apache-2.0
//! Content: rows against blobs. A blob is stored before its row, so that one
//! without a row may belong to a pull; the engine's start removes the others.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::{Depth, Report, world::World, world::names};
use crate::{
    domain::digest::{Algorithm, Digest, Hasher},
    error::{Context as _, Error, Result},
    store::meta::everything::Blob,
};

pub(super) fn check(world: &World<'_>, depth: Depth, report: &mut Report) -> Result<()> {
    report.checked.images = world.images.len();
    report.checked.blobs = world.blobs.len();
    for need in &world.missing_blobs {
        report.wrong("image", &need.image, format!("its blob {} is unknown", need.digest), "the blob");
    }
    for image in world.images.iter().filter(|image| !image.named) {
        report.wrong("image", &image.id, "it has no name in any namespace", "a name, or no image");
    }
    let base = world.places.root.join("content/blobs");
    let known: HashMap<&str, &Blob> = world.blobs.iter().map(|blob| (blob.digest.as_str(), blob)).collect();
    for blob in &world.blobs {
        of_row(&base, blob, depth, report)?;
    }
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let dir = base.join(algorithm.as_str());
        for name in names(&dir)? {
            let digest = format!("{}:{}", algorithm.as_str(), name.to_string_lossy());
            if !known.contains_key(digest.as_str()) {
                report.pending("blob", digest, "no image needs it yet", "an image, or no blob");
            }
        }
    }
    Ok(())
}

fn of_row(base: &Path, blob: &Blob, depth: Depth, report: &mut Report) -> Result<()> {
    let Ok(digest) = blob.digest.parse::<Digest>() else {
        report.wrong("blob", &blob.digest, "its name is no digest", "a digest");
        return Ok(());
    };
    let path: PathBuf = base.join(digest.algorithm().as_str()).join(digest.hex());
    let found = match fs::symlink_metadata(&path) {
        Ok(found) => found,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            report.wrong("blob", &digest, format!("there is no {}", path.display()), "its content");
            return Ok(());
        }
        Err(e) => return Err(Error::io(format!("look at {}", path.display()), e)),
    };
    if !found.is_file() || found.len() != blob.size {
        report.wrong(
            "blob",
            &digest,
            format!("it has {} bytes", found.len()),
            format!("{} bytes", blob.size),
        );
    } else if depth == Depth::Digests {
        let computed = hash(&path, &digest)?;
        if computed != digest {
            report.wrong("blob", &digest, format!("its content has digest {computed}"), "its own");
        }
    }
    Ok(())
}

fn hash(path: &Path, digest: &Digest) -> Result<Digest> {
    File::open(path)
        .and_then(|mut file| Hasher::of_reader(digest.algorithm(), &mut file))
        .with_context(|| format!("read {}", path.display()))
}

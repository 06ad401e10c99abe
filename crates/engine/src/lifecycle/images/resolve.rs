// SPDX-License-Identifier: Apache-2.0
//! What a user's word for an image stands for.

use berth::ids::Namespace;
use oci_spec::image::ImageConfiguration;
use rusqlite::Connection;

use super::Images;
use crate::{
    domain::{
        digest::Digest,
        health::{self, HealthConfig},
    },
    error::{Context as _, Error, Kind, Result},
    image::reference::Reference,
    store::meta::images as rows,
};

/// Prefix of the name that keeps an image which has lost its last tag.
pub(super) const DANGLING: &str = "<none>@";

/// An image that a container can be made from.
#[derive(Debug, Clone)]
pub struct ResolvedImage {
    /// Digest of the configuration.
    pub id: Digest,
    /// The image's defaults, and what it was built for.
    pub config: ImageConfiguration,
    /// Docker's health check in it.
    pub health: Option<HealthConfig>,
    /// Key of the snapshot to stand on; none for an image without layers.
    pub chain_id: Option<Digest>,
    /// Digest of the manifest.
    pub manifest_digest: Digest,
    /// The image's name as users write it, or its short id where it has none.
    pub reference: String,
}

impl Images {
    /// The image that `image` (a reference, an id, or the beginning of one)
    /// stands for in `namespace`. Blocks.
    ///
    /// # Errors
    /// `NotFound` ("No such image: X"), `InvalidArgument` for what can't be a
    /// reference or for an ambiguous id.
    pub fn resolve(&self, namespace: &Namespace, image: &str) -> Result<ResolvedImage> {
        self.db.read(|c| {
            let found = find(c, namespace.as_str(), image)?;
            let reference = found.familiar();
            Ok(ResolvedImage {
                id: found.row.id.parse()?,
                config: configuration(&found.row)?,
                health: health::of_image(&found.row.config),
                chain_id: found.row.chain_id.as_deref().map(str::parse).transpose()?,
                manifest_digest: found.row.manifest_digest.parse()?,
                reference,
            })
        })
    }
}

/// An image, and the name by which it was found.
#[derive(Debug)]
pub(super) struct Found {
    pub row: rows::ImageRow,
    /// The stored name, when the user gave one and not an id.
    pub name: Option<String>,
}

impl Found {
    fn familiar(&self) -> String {
        match &self.name {
            Some(name) => crate::image::reference::familiar(name).to_owned(),
            None => self.row.id.split_once(':').map_or(&*self.row.id, |(_, hex)| hex)[..12].to_owned(),
        }
    }
}

/// The image's configuration, parsed.
pub(super) fn configuration(row: &rows::ImageRow) -> Result<ImageConfiguration> {
    serde_json::from_str(&row.config).with_context(|| format!("read the configuration of image {}", row.id))
}

/// Finds an image as Docker does: a whole id, then a reference, then the
/// beginning of an id.
pub(super) fn find(c: &Connection, namespace: &str, image: &str) -> Result<Found> {
    if let Some(found) = by_id(c, namespace, image)? {
        return Ok(found);
    }
    let reference = image.parse::<Reference>();
    if let Ok(reference) = &reference
        && let Some(name) = by_reference(c, namespace, reference)?
        && let Some(row) = rows::get(c, &name.image_id)?
    {
        return Ok(Found { row, name: Some(name.name) });
    }
    if let Some(found) = by_prefix(c, namespace, image)? {
        return Ok(found);
    }
    // What can be neither is refused as such; anything else isn't here.
    let shown =
        if is_hex(image) || image.starts_with("sha256:") { image.to_owned() } else { reference?.familiar() };
    Err(Error::new(Kind::NotFound, format!("No such image: {shown}")))
}

fn is_hex(s: &str) -> bool {
    !s.is_empty() && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn by_id(c: &Connection, namespace: &str, image: &str) -> Result<Option<Found>> {
    let id = if image.len() == 64 { format!("sha256:{image}") } else { image.to_owned() };
    let Ok(id) = id.parse::<Digest>() else { return Ok(None) };
    if rows::refs_of(c, namespace, id.as_str())?.is_empty() {
        return Ok(None);
    }
    Ok(rows::get(c, id.as_str())?.map(|row| Found { row, name: None }))
}

fn by_reference(c: &Connection, namespace: &str, reference: &Reference) -> Result<Option<rows::RefRow>> {
    if let Some(row) = rows::get_ref(c, namespace, &reference.stored())? {
        return Ok(Some(row));
    }
    // A tag of the same repository that was pulled as this very digest.
    let Some(digest) = reference.digest() else { return Ok(None) };
    let prefix = format!("{}:", reference.name());
    let rows = rows::refs(c, namespace)?;
    Ok(rows.into_iter().find(|row| row.target == digest.as_str() && row.name.starts_with(&prefix)))
}

fn by_prefix(c: &Connection, namespace: &str, image: &str) -> Result<Option<Found>> {
    let prefix = image.strip_prefix("sha256:").unwrap_or(image);
    if !is_hex(prefix) {
        return Ok(None);
    }
    match rows::by_prefix(c, namespace, prefix)?.as_slice() {
        [] => Ok(None),
        [id] => Ok(rows::get(c, id)?.map(|row| Found { row, name: None })),
        _ => Err(Error::new(
            Kind::InvalidArgument,
            format!("image id {image} is ambiguous: give more of its digits"),
        )),
    }
}

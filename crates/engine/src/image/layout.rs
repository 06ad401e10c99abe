// SPDX-License-Identifier: Apache-2.0
//! Writes archives: an OCI image layout, what `docker save` has always written,
//! or both at once, by a layout's `manifest.json`. Called by
//! `lifecycle::images::save`; reading is [`super::archive`]'s.

use std::{
    collections::HashSet,
    io::{self, Read, Write},
};

use serde::{Deserialize, Serialize};

use super::{
    manifest::{Descriptor, Manifest, OCI_INDEX, OCI_MANIFEST},
    reference::Reference,
};
use crate::domain::digest::Digest;

/// What an archive looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// An OCI layout that `docker load` takes, too.
    #[default]
    Both,
    /// As `docker save` has it: bare layers under names of its own.
    Docker,
    /// An OCI layout.
    Oci,
}

/// An image to write.
#[derive(Debug)]
pub struct Entry {
    /// The manifest's digest.
    pub digest: Digest,
    /// The manifest, as it is stored.
    pub bytes: Vec<u8>,
    /// The same, read.
    pub manifest: Manifest,
    /// Names that it has; may be empty.
    pub references: Vec<Reference>,
    /// Of the layers without their compression, the base first.
    pub diff_ids: Vec<Digest>,
}

/// Writes the parts of an archive one after the other: the documents, then
/// every blob that they name.
pub struct Writer<W: Write> {
    tar: tar::Builder<W>,
    directories: HashSet<String>,
}

impl<W: Write> std::fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

/// Whether a user's word for an image says more than the repository.
#[must_use]
pub fn has_tag_or_digest(image: &str) -> bool {
    let last = image.rsplit('/').next().unwrap_or(image);
    last.contains([':', '@'])
}

impl<W: Write> Writer<W> {
    /// Begins an archive.
    pub fn new(to: W) -> Self {
        Self { tar: tar::Builder::new(to), directories: HashSet::new() }
    }

    /// What says which images are in it.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn documents(&mut self, entries: &[Entry], format: Format) -> io::Result<()> {
        if format != Format::Docker {
            self.index(entries)?;
        }
        if format != Format::Oci {
            let listed: Vec<Listed> = entries.iter().map(|entry| listed(entry, format)).collect();
            self.file("manifest.json", &serde_json::to_vec(&listed)?)?;
        }
        Ok(())
    }

    fn index(&mut self, entries: &[Entry]) -> io::Result<()> {
        self.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let index = Index {
            schema_version: 2,
            media_type: OCI_INDEX,
            manifests: entries.iter().flat_map(indexed).collect(),
        };
        self.file("index.json", &serde_json::to_vec(&index)?)
    }

    /// A blob of `size` bytes.
    ///
    /// # Errors
    /// Those of the writer and of `source`, and `UnexpectedEof` for one that
    /// is shorter.
    pub fn blob(&mut self, digest: &Digest, size: u64, source: impl Read) -> io::Result<()> {
        self.directory("blobs/")?;
        self.directory(&format!("blobs/{}/", digest.algorithm().as_str()))?;
        self.part(&path(digest), size, source)
    }

    /// The configuration of an image, as `docker save` names it.
    ///
    /// # Errors
    /// As for [`Writer::blob`].
    pub fn docker_config(&mut self, id: &Digest, size: u64, source: impl Read) -> io::Result<()> {
        self.part(&docker_config(id), size, source)
    }

    /// A layer without compression, as `docker save` names it.
    ///
    /// # Errors
    /// As for [`Writer::blob`].
    pub fn docker_layer(&mut self, diff_id: &Digest, size: u64, source: impl Read) -> io::Result<()> {
        self.directory(&format!("{}/", diff_id.hex()))?;
        self.part(&docker_layer(diff_id), size, source)
    }

    fn part(&mut self, name: &str, size: u64, source: impl Read) -> io::Result<()> {
        let mut source = source.take(size);
        self.entry(name, size, &mut source)?;
        if source.limit() == 0 { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn finish(self) -> io::Result<W> {
        self.tar.into_inner()
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.entry(name, bytes.len() as u64, bytes)
    }

    fn entry(&mut self, name: &str, size: u64, source: impl Read) -> io::Result<()> {
        let mut header = header(tar::EntryType::Regular, 0o444);
        header.set_size(size);
        self.tar.append_data(&mut header, name, source)
    }

    fn directory(&mut self, name: &str) -> io::Result<()> {
        if !self.directories.insert(name.to_owned()) {
            return Ok(());
        }
        let mut header = header(tar::EntryType::Directory, 0o755);
        header.set_size(0);
        self.tar.append_data(&mut header, name, io::empty())
    }
}

/// Of root and the epoch, so that the same images give the same archive.
fn header(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())
}

fn docker_config(id: &Digest) -> String {
    format!("{}.json", id.hex())
}

fn docker_layer(diff_id: &Digest) -> String {
    format!("{}/layer.tar", diff_id.hex())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u8,
    media_type: &'static str,
    manifests: Vec<Indexed>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Indexed {
    media_type: String,
    digest: String,
    size: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<Annotations>,
}

#[derive(Serialize)]
struct Annotations {
    #[serde(rename = "io.containerd.image.name")]
    name: String,
    #[serde(rename = "org.opencontainers.image.ref.name", skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
}

/// One for each name, as layouts have it.
fn indexed(entry: &Entry) -> Vec<Indexed> {
    let one = |annotations| Indexed {
        media_type: media_type(&entry.bytes),
        digest: entry.digest.to_string(),
        size: entry.bytes.len(),
        annotations,
    };
    if entry.references.is_empty() {
        return vec![one(None)];
    }
    let named = |reference: &Reference| Annotations {
        name: reference.stored(),
        tag: reference.tag().map(ToOwned::to_owned),
    };
    entry.references.iter().map(|reference| one(Some(named(reference)))).collect()
}

/// What a manifest says that it is: OCI's may leave it out.
#[must_use]
pub fn media_type(manifest: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Typed {
        #[serde(rename = "mediaType")]
        media_type: Option<String>,
    }
    let typed = serde_json::from_slice::<Typed>(manifest).ok().and_then(|typed| typed.media_type);
    typed.unwrap_or_else(|| OCI_MANIFEST.to_owned())
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

fn listed(entry: &Entry, format: Format) -> Listed {
    let tags: Vec<String> = entry.references.iter().map(Reference::familiar).collect();
    let id = &entry.manifest.config.digest;
    let layer = |layer: &Descriptor| path(&layer.digest);
    let (config, layers) = match format {
        Format::Docker => (docker_config(id), entry.diff_ids.iter().map(docker_layer).collect()),
        _ => (path(id), entry.manifest.layers.iter().map(layer).collect()),
    };
    Listed { config, repo_tags: (!tags.is_empty()).then_some(tags), layers }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_no_tag() {
        for (word, says) in
            [("a", false), ("a:1", true), ("h:5000/a", false), ("h:5000/a:1", true), ("a@sha256:0", true)]
        {
            assert_eq!(has_tag_or_digest(word), says, "{word}");
        }
    }

    #[test]
    fn a_short_blob_is_an_error_not_a_damaged_archive() {
        let mut writer = Writer::new(Vec::new());
        let e = writer.blob(&Digest::of(b"abc"), 4, &b"abc"[..]).expect_err("short");
        assert_eq!(e.kind(), io::ErrorKind::UnexpectedEof);
    }
}

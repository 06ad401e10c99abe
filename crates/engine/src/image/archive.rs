// SPDX-License-Identifier: Apache-2.0
//! Archives of images: what `docker save` writes, and OCI layouts.
//!
//! The archive is one file, read where its parts are. Nothing is extracted by
//! name: parts are found in an index of the archive's entries.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufReader, Read, Seek as _, SeekFrom},
    os::unix::fs::FileExt as _,
    sync::Arc,
};

use serde::Deserialize;

use super::{
    manifest::{self, Descriptor, Document, MAX_DOCUMENT, Manifest},
    platform::Platform,
    reference::Reference,
    tar::{self, Reader},
};
use crate::{
    domain::digest::Digest,
    error::{Context as _, Error, Kind, Result},
};

/// Most entries of an archive: layers, documents and directories.
const MAX_ENTRIES: usize = 100_000;
/// Largest `manifest.json`.
const MAX_LIST: u64 = 1 << 20;
/// Most images of one archive.
const MAX_IMAGES: usize = 1000;
const MAX_LINKS: usize = 8;
const MAX_DEPTH: usize = 3;

/// Part of the archive's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// An image within an archive.
#[derive(Debug)]
pub struct Image {
    /// What it is to be called.
    pub references: Vec<Reference>,
    /// Its manifest; layers without a media type are of unknown compression.
    pub manifest: Manifest,
    /// The manifest's digest, and the documents that lead to it.
    pub manifest_digest: Digest,
    /// Documents that lead to the manifest, itself included.
    pub documents: Vec<(Digest, Vec<u8>)>,
    /// The configuration's bytes.
    pub config: Vec<u8>,
    /// Where the layers are.
    pub layers: Vec<Part>,
}

/// An archive and where its entries are.
#[derive(Debug)]
pub struct Archive {
    file: Arc<File>,
    parts: HashMap<String, Part>,
    links: HashMap<String, String>,
}

fn invalid(words: impl std::fmt::Display) -> Error {
    Error::new(Kind::InvalidArgument, format!("invalid archive: {words}"))
}

impl Archive {
    /// Indexes an uncompressed archive. Blocks.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no tar archive, those of the host.
    pub fn open(file: Arc<File>) -> Result<Self> {
        let mut source = file.try_clone().context("open the archive")?;
        source.seek(SeekFrom::Start(0)).context("read the archive")?;
        let mut reader = Reader::new(BufReader::with_capacity(256 << 10, source));
        let (mut parts, mut links) = (HashMap::new(), HashMap::new());
        while let Some(entry) = reader.next_entry().map_err(not_tar)? {
            if parts.len() + links.len() >= MAX_ENTRIES {
                return Err(invalid("too many entries"));
            }
            let name = clean(&entry.path, "").ok_or_else(|| invalid("an entry's name leads out of it"))?;
            match entry.kind {
                tar::Kind::File if entry.sparse.is_none() => {
                    parts.insert(name, Part { offset: reader.position(), length: entry.size });
                }
                tar::Kind::Symlink => {
                    let above = name.rsplit_once('/').map_or("", |(above, _)| above);
                    // One that leads elsewhere is to nothing in here.
                    links.extend(clean(&entry.link, above).map(|target| (name.clone(), target)));
                }
                tar::Kind::HardLink => {
                    links.extend(clean(&entry.link, "").map(|target| (name.clone(), target)));
                }
                _ => {}
            }
        }
        Ok(Self { file, parts, links })
    }

    /// The images for `platform`; where an archive holds one image for another
    /// platform only, that one, unless `strict`.
    ///
    /// # Errors
    /// `InvalidArgument` for what isn't an archive of images, `DataLoss` for
    /// damaged content, `FailedPrecondition` when nothing fits the platform.
    pub fn images(&self, platform: &Platform) -> Result<Vec<Image>> {
        let images = if self.find("index.json").is_some() && self.find("oci-layout").is_some() {
            self.oci(platform)?
        } else if self.find("manifest.json").is_some() {
            self.docker()?
        } else {
            return Err(invalid("neither manifest.json nor index.json is in it"));
        };
        if images.is_empty() { Err(invalid("no image is in it")) } else { Ok(images) }
    }

    fn find(&self, name: &str) -> Option<Part> {
        let mut name = name.to_owned();
        for _ in 0..MAX_LINKS {
            if let Some(part) = self.parts.get(&name) {
                return Some(*part);
            }
            name = self.links.get(&name)?.clone();
        }
        None
    }

    fn part(&self, name: &str) -> Result<Part> {
        self.find(name).ok_or_else(|| invalid(format_args!("{:?} isn't in it", shown(name))))
    }

    fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let part = self.part(name)?;
        if part.length > limit {
            return Err(invalid(format_args!("{:?} is larger than {limit} bytes", shown(name))));
        }
        let mut bytes = vec![0_u8; usize::try_from(part.length).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, part.offset).context("read the archive")?;
        Ok(bytes)
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let bytes = self.read(&blob_name(&descriptor.digest), MAX_DOCUMENT)?;
        if descriptor.digest.matches(&bytes) {
            Ok(bytes)
        } else {
            Err(Error::new(Kind::DataLoss, format!("content of {} is damaged", descriptor.digest)))
        }
    }
}

/// An OCI image layout.
impl Archive {
    fn oci(&self, platform: &Platform) -> Result<Vec<Image>> {
        let index = self.read("index.json", MAX_DOCUMENT)?;
        let Document::Index(entries) = Document::parse(&index, manifest::OCI_INDEX)? else {
            return Err(invalid("index.json is no index"));
        };
        let tags = self.docker_tags()?;
        let mut images: Vec<Image> = Vec::new();
        for entry in entries.iter().filter(|entry| !entry.attestation).take(MAX_IMAGES) {
            let Some(mut image) = self.oci_image(entry, platform)? else { continue };
            image.references.extend(entry.name.as_deref().and_then(whole_reference));
            let more = tags.get(image.manifest.config.digest.hex()).into_iter().flatten();
            image.references.extend(more.cloned());
            // A layout has an entry for each name.
            match images.iter_mut().find(|known| known.manifest_digest == image.manifest_digest) {
                Some(known) => known.references.extend(image.references),
                None => images.push(image),
            }
        }
        for image in &mut images {
            image.references.sort();
            image.references.dedup();
        }
        if images.is_empty() && !entries.is_empty() {
            return Err(manifest::no_match(platform));
        }
        Ok(images)
    }

    fn oci_image(&self, entry: &Descriptor, platform: &Platform) -> Result<Option<Image>> {
        let mut descriptor = entry.clone();
        let mut documents = Vec::new();
        for _ in 0..=MAX_DEPTH {
            let bytes = self.blob(&descriptor)?;
            let document = Document::parse(&bytes, &descriptor.media_type)?;
            documents.push((descriptor.digest.clone(), bytes));
            match document {
                Document::Index(entries) => match manifest::choose(&entries, platform) {
                    Some(chosen) => descriptor = chosen.clone(),
                    None => return Ok(None),
                },
                Document::Manifest(manifest) => {
                    let layers =
                        manifest.layers.iter().map(|layer| self.layer(layer)).collect::<Result<_>>()?;
                    let config = self.blob(&manifest.config)?;
                    let (references, manifest_digest) = (Vec::new(), descriptor.digest);
                    return Ok(Some(Image {
                        references,
                        manifest,
                        manifest_digest,
                        documents,
                        config,
                        layers,
                    }));
                }
            }
        }
        Err(invalid("indexes within indexes"))
    }

    fn layer(&self, layer: &Descriptor) -> Result<Part> {
        let part = self.part(&blob_name(&layer.digest))?;
        if part.length == layer.size {
            Ok(part)
        } else {
            Err(Error::new(
                Kind::DataLoss,
                format!("content of {} is damaged: its size is wrong", layer.digest),
            ))
        }
    }

    /// What `manifest.json`, beside an OCI layout, calls the images; by their
    /// configuration's digits.
    fn docker_tags(&self) -> Result<HashMap<String, Vec<Reference>>> {
        if self.find("manifest.json").is_none() {
            return Ok(HashMap::new());
        }
        let mut tags = HashMap::new();
        for item in self.docker_list()? {
            let hex = item.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json").to_owned();
            tags.insert(hex, references(item.repo_tags)?);
        }
        Ok(tags)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerItem {
    config: String,
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct DockerConfig {
    rootfs: DockerRootfs,
}

#[derive(Deserialize)]
struct DockerRootfs {
    diff_ids: Vec<String>,
}

/// What `docker save` writes.
impl Archive {
    fn docker(&self) -> Result<Vec<Image>> {
        self.docker_list()?.into_iter().map(|item| self.docker_image(item)).collect()
    }

    fn docker_list(&self) -> Result<Vec<DockerItem>> {
        let list = self.read("manifest.json", MAX_LIST)?;
        let list: Vec<DockerItem> =
            serde_json::from_slice(&list).map_err(|e| invalid(format_args!("manifest.json: {e}")))?;
        if list.len() > MAX_IMAGES { Err(invalid("too many images")) } else { Ok(list) }
    }

    fn docker_image(&self, item: DockerItem) -> Result<Image> {
        if item.layers.len() > manifest::MAX_LAYERS {
            return Err(invalid(format_args!("more than {} layers", manifest::MAX_LAYERS)));
        }
        let config = self.read(&plain(&item.config)?, MAX_DOCUMENT)?;
        let parsed: DockerConfig = serde_json::from_slice(&config)
            .map_err(|e| invalid(format_args!("{:?}: {e}", shown(&item.config))))?;
        if parsed.rootfs.diff_ids.len() != item.layers.len() {
            return Err(invalid("an image's layers aren't those that its configuration speaks of"));
        }
        let mut descriptors = Vec::with_capacity(item.layers.len());
        let mut layers = Vec::with_capacity(item.layers.len());
        for name in &item.layers {
            let part = self.part(&plain(name)?)?;
            let digest = self.digest_of(part)?;
            descriptors.push(descriptor("", digest, part.length));
            layers.push(part);
        }
        let size = config.len() as u64;
        let config_descriptor =
            descriptor("application/vnd.oci.image.config.v1+json", Digest::of(&config), size);
        let mut manifest = Manifest { config: config_descriptor, layers: descriptors };
        let bytes = self.written(&manifest, &layers)?;
        let manifest_digest = Digest::of(&bytes);
        manifest.layers.iter_mut().for_each(|layer| layer.media_type.clear());
        Ok(Image {
            references: references(item.repo_tags)?,
            manifest,
            documents: vec![(manifest_digest.clone(), bytes)],
            manifest_digest,
            config,
            layers,
        })
    }

    /// The manifest that the image lacks.
    fn written(&self, manifest: &Manifest, layers: &[Part]) -> Result<Vec<u8>> {
        let mut manifest = manifest.clone();
        for (layer, part) in manifest.layers.iter_mut().zip(layers) {
            let mut head = [0_u8; 4];
            let length = usize::try_from(part.length).unwrap_or(usize::MAX).min(head.len());
            self.file.read_exact_at(&mut head[..length], part.offset).context("read the archive")?;
            let suffix = match super::unpack::Compression::sniff(&head) {
                super::unpack::Compression::None => "",
                super::unpack::Compression::Gzip => "+gzip",
                super::unpack::Compression::Zstd => "+zstd",
            };
            layer.media_type = format!("application/vnd.oci.image.layer.v1.tar{suffix}");
        }
        Ok(manifest.to_bytes())
    }

    fn digest_of(&self, part: Part) -> Result<Digest> {
        use crate::domain::digest::{Algorithm, Hasher};
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut buffer = vec![0_u8; 256 << 10];
        let (mut at, end) = (part.offset, part.offset + part.length);
        while at < end {
            let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            self.file.read_exact_at(&mut buffer[..wanted], at).context("read the archive")?;
            hasher.update(&buffer[..wanted]);
            at += wanted as u64;
        }
        Ok(hasher.finish())
    }
}

fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    let media_type = media_type.to_owned();
    Descriptor { media_type, digest, size, platform: None, name: None, attestation: false }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())
}

fn references(tags: Option<Vec<String>>) -> Result<Vec<Reference>> {
    tags.unwrap_or_default().iter().map(|tag| tag.parse()).collect()
}

/// A layout may call an image by a tag alone (`latest`), which names nothing.
fn whole_reference(name: &str) -> Option<Reference> {
    if name.contains(['/', ':']) { name.parse().ok() } else { None }
}

/// A name that a document gives, as it is in the index of entries.
fn plain(name: &str) -> Result<String> {
    clean(name.as_bytes(), "").ok_or_else(|| invalid(format_args!("{:?} leads out of it", shown(name))))
}

/// `raw`, seen from the directory `above`, without `.` and `..`; `None` when
/// it leads out of the archive.
fn clean(raw: &[u8], above: &str) -> Option<String> {
    let raw = std::str::from_utf8(raw).ok()?;
    let above = if raw.starts_with('/') { "" } else { above };
    let mut parts: Vec<&str> = above.split('/').filter(|part| !part.is_empty()).collect();
    for part in raw.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

fn shown(name: &str) -> String {
    name.chars().take(100).collect()
}

fn not_tar(e: std::io::Error) -> Error {
    match e.raw_os_error() {
        Some(_) => Error::io("read the archive", e),
        None if e.kind() == std::io::ErrorKind::UnexpectedEof => invalid("it ends too early"),
        None => invalid(e),
    }
}

/// Uncompresses `source` into `spool`, up to `limit` bytes.
///
/// # Errors
/// `InvalidArgument` for damaged content, those of the host.
pub fn decompress(source: File, spool: &mut File, limit: u64) -> Result<()> {
    use std::io::Write as _;

    let mut head = [0_u8; 4];
    let length = source.read_at(&mut head, 0).context("read the archive")?;
    let mut source = source;
    source.seek(SeekFrom::Start(0)).context("read the archive")?;
    let compression = super::unpack::Compression::sniff(&head[..length]);
    let mut plain = compression.reader(Box::new(source)).map_err(not_tar)?;
    let mut buffer = vec![0_u8; 256 << 10];
    let mut total = 0_u64;
    loop {
        let read = plain.read(&mut buffer).map_err(not_tar)?;
        if read == 0 {
            return Ok(());
        }
        total += read as u64;
        if total > limit {
            return Err(invalid(format_args!("it unfolds to more than {limit} bytes")));
        }
        spool.write_all(&buffer[..read]).context("unpack the archive")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_within_the_archive() {
        assert_eq!(clean(b"./a//b", "").as_deref(), Some("a/b"));
        assert_eq!(clean(b"../x/layer.tar", "y").as_deref(), Some("x/layer.tar"));
        assert_eq!(clean(b"/a", "y").as_deref(), Some("a"));
        for bad in ["..", "../a", "a/../../b"] {
            assert_eq!(clean(bad.as_bytes(), ""), None, "{bad}");
        }
    }

    #[test]
    fn what_is_no_archive_of_images_is_said_to_be_none() {
        use std::io::Write as _;
        for (bytes, words) in [
            (&b""[..], "neither manifest.json nor index.json"),
            (b"hello, this is no archive", "it ends too early"),
            (&[7_u8; 2048], "not an octal number"),
        ] {
            let mut file = tempfile::tempfile().expect("file");
            file.write_all(bytes).expect("write");
            let archive = Archive::open(Arc::new(file));
            let error = archive.and_then(|a| a.images(&Platform::host())).expect_err("refused");
            assert_eq!(error.kind(), Kind::InvalidArgument);
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}

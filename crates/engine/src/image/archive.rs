// SPDX-License-Identifier: Apache-2.0
//! Archives of images: what `docker save` writes, and OCI layouts.
//!
//! The archive is taken apart as it arrives ([`receive`]). Nothing is extracted
//! by name: parts are found in an index of the archive's entries.

mod receive;

use std::{collections::HashMap, fs::File, io::Read, os::unix::fs::FileExt as _};

use serde::Deserialize;

pub use self::receive::Part;
use super::{
    manifest::{self, Descriptor, Document, MAX_DOCUMENT, Manifest},
    platform::Platform,
    reference::Reference,
    tar::{self, Reader},
    unpack::Compression,
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
/// Longest name of an entry, and bytes of all of them.
const MAX_NAME: usize = 4096;
const MAX_NAMES: usize = 32 << 20;
const MAX_LINKS: usize = 8;
const MAX_DEPTH: usize = 3;

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
    parts: HashMap<String, Part>,
    links: HashMap<String, String>,
}

fn invalid(words: impl std::fmt::Display) -> Error {
    Error::new(Kind::InvalidArgument, format!("invalid archive: {words}"))
}

impl Archive {
    /// Reads an archive to its end; `spool` makes unnamed files for what is in
    /// it. Blocks.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no tar archive, those of the host.
    pub fn receive(source: impl Read + Send, spool: &dyn Fn() -> Result<File>) -> Result<Self> {
        let mut reader = Reader::new(receive::plain(source)?);
        let mut spools = receive::Spools::new(spool);
        let (mut parts, mut links) = (HashMap::new(), HashMap::new());
        let mut names = 0;
        while let Some(entry) = reader.next_entry().map_err(not_tar)? {
            if parts.len() + links.len() >= MAX_ENTRIES {
                return Err(invalid("too many entries"));
            }
            names += entry.path.len() + entry.link.len();
            if entry.path.len().max(entry.link.len()) > MAX_NAME || names > MAX_NAMES {
                return Err(invalid("names that are too long"));
            }
            let name = clean(&entry.path, "").ok_or_else(|| invalid("an entry's name leads out of it"))?;
            match entry.kind {
                tar::Kind::File if entry.sparse.is_some() => {
                    return Err(invalid(format_args!("{:?} has holes", shown(&name))));
                }
                tar::Kind::File => {
                    parts.insert(name, spools.take(&mut reader, entry.size)?);
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
        // A checksum may follow, and a sender that still has something to say.
        reader.drain().map_err(not_tar)?;
        Ok(Self { parts, links })
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
                return Some(part.clone());
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
        part.file.read_exact_at(&mut bytes, part.offset).context("read the archive")?;
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
            let digest = part.sha256()?;
            descriptors.push(descriptor("", digest, part.length));
            layers.push(part);
        }
        let size = config.len() as u64;
        let config_descriptor =
            descriptor("application/vnd.oci.image.config.v1+json", Digest::of(&config), size);
        let mut manifest = Manifest { config: config_descriptor, layers: descriptors };
        let bytes = written(&manifest, &layers)?;
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
}

/// The manifest that an image of `docker save` lacks.
fn written(manifest: &Manifest, layers: &[Part]) -> Result<Vec<u8>> {
    let mut manifest = manifest.clone();
    for (layer, part) in manifest.layers.iter_mut().zip(layers) {
        let suffix = match part.compression()? {
            Compression::None => "",
            Compression::Gzip => "+gzip",
            Compression::Zstd => "+zstd",
        };
        layer.media_type = format!("application/vnd.oci.image.layer.v1.tar{suffix}");
    }
    Ok(manifest.to_bytes())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn spool() -> Result<File> {
        tempfile::tempfile().context("make a file")
    }

    #[test]
    fn large_parts_are_files_of_their_own() {
        let mut builder = ::tar::Builder::new(Vec::new());
        for (name, size) in [("a", 10), ("large", 300_000), ("b", 20), ("other", 400_000)] {
            let mut header = ::tar::Header::new_gnu();
            header.set_size(size);
            let bytes = vec![name.as_bytes()[0]; usize::try_from(size).expect("small")];
            builder.append_data(&mut header, name, &*bytes).expect("append");
        }
        let plain = builder.into_inner().expect("tar");
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, &plain).expect("gzip");
        let gzip = gzip.finish().expect("gzip");
        let zstd = zstd::encode_all(&*plain, 1).expect("zstd");
        for bytes in [&plain, &gzip, &zstd] {
            let archive = Archive::receive(&**bytes, &spool).expect("receive");
            let part = |name: &str| archive.find(name).expect(name);
            assert_eq!(part("large").digest, Some(Digest::of(&vec![b'l'; 300_000])));
            assert_eq!(part("large").file.metadata().expect("stat").len(), 300_000);
            assert_eq!((part("a").digest, part("b").offset), (None, 10));
            assert_eq!(archive.read("b", 100).expect("read"), [b'b'; 20]);
            assert_eq!(part("b").sha256().expect("digest"), Digest::of(&[b'b'; 20]));
        }
        let cut = Archive::receive(&gzip[..gzip.len() - 4], &spool).expect_err("cut");
        assert_eq!(cut.kind(), Kind::InvalidArgument);
    }

    #[test]
    fn a_bomb_is_refused_before_it_fills_the_disk() {
        let mut bomb = zstd::Encoder::new(Vec::new(), 1).expect("zstd");
        let mut header = ::tar::Header::new_gnu();
        header.set_size(1 << 40);
        header.set_entry_type(::tar::EntryType::Regular);
        header.set_path("a").expect("path");
        header.set_cksum();
        std::io::Write::write_all(&mut bomb, header.as_bytes()).expect("write");
        for _ in 0..512 {
            std::io::Write::write_all(&mut bomb, &vec![0; 1 << 20]).expect("write");
        }
        let bomb = bomb.finish().expect("zstd");
        let error = Archive::receive(&*bomb, &spool).expect_err("bomb");
        assert!(error.to_string().contains("more than any honest one"), "{error}");
    }

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
        for (bytes, words) in [
            (&b""[..], "neither manifest.json nor index.json"),
            (b"hello, this is no archive", "it ends too early"),
            (&[7_u8; 2048], "not an octal number"),
        ] {
            let archive = Archive::receive(bytes, &|| tempfile::tempfile().context("make a file"));
            let error = archive.and_then(|a| a.images(&Platform::host())).expect_err("refused");
            assert_eq!(error.kind(), Kind::InvalidArgument);
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}

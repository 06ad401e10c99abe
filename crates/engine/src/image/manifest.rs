// SPDX-License-Identifier: Apache-2.0
//! Manifests and indexes, of OCI and Docker: read, checked, chosen from.

use std::fmt;

use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};

use super::platform::Platform;
use crate::{
    domain::digest::Digest,
    error::{Error, Kind, Result},
};

/// Largest manifest, index or configuration.
pub const MAX_DOCUMENT: u64 = 4 << 20;
/// Most layers: what overlayfs has been relied on for.
pub const MAX_LAYERS: usize = 127;
/// Most entries of an index.
const MAX_ENTRIES: usize = 1000;

/// An OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker's image manifest, version 2 schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// Content, by digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// Its name.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// What it is for, where an index says so.
    pub platform: Option<Platform>,
    /// The reference's name in an OCI layout.
    pub name: Option<String>,
    /// An attestation or the like, no image.
    pub attestation: bool,
}

/// What a reference leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// Several images, one per platform.
    Index(Vec<Descriptor>),
    /// One image.
    Manifest(Manifest),
}

/// One image: its configuration and its layers, the base first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The configuration's blob.
    pub config: Descriptor,
    /// The layers' blobs.
    pub layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    schema_version: Option<serde_json::Value>,
    media_type: Option<String>,
    manifests: Option<Vec<RawDescriptor>>,
    layers: Option<Vec<RawDescriptor>>,
    config: Option<RawDescriptor>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<RawPlatform>,
    #[serde(default)]
    annotations: Option<std::collections::BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct RawPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
}

fn invalid(words: impl fmt::Display) -> Error {
    Error::new(Kind::InvalidArgument, format!("invalid manifest: {words}"))
}

impl Document {
    /// Reads a document that came with `media_type`; empty when nobody said.
    ///
    /// # Errors
    /// `InvalidArgument` for anything malformed or ambiguous.
    pub fn parse(bytes: &[u8], media_type: &str) -> Result<Self> {
        let raw: RawDocument = serde_json::from_slice(bytes).map_err(invalid)?;
        if raw.fs_layers.is_some() || raw.schema_version == Some(1.into()) {
            return Err(Error::new(
                Kind::InvalidArgument,
                "the image has a manifest of version 2, schema 1, which is no longer supported: \
                 have it pushed again with a current tool",
            ));
        }
        if raw.schema_version.as_ref().is_some_and(|version| *version != 2) || raw.schema_version.is_none() {
            return Err(invalid("unknown schemaVersion"));
        }
        let own = raw.media_type.as_deref().unwrap_or_default();
        let told = is_index(media_type).or(is_index(own));
        if let (Some(by_header), Some(by_itself)) = (is_index(media_type), is_index(own))
            && by_header != by_itself
        {
            return Err(invalid("it says that it is something else than the registry says"));
        }
        match (raw.manifests, raw.config, raw.layers) {
            // Whoever reads one half sees another image than who reads the other.
            (Some(_), Some(_), _) | (Some(_), _, Some(_)) => Err(invalid("it has both manifests and layers")),
            (Some(entries), None, None) if told != Some(false) => index(entries).map(Self::Index),
            (None, Some(config), Some(layers)) if told != Some(true) => {
                manifest(config, layers).map(Self::Manifest)
            }
            _ => Err(invalid("it is neither an image nor an index of images")),
        }
    }
}

/// Parses a configuration and checks that it belongs to the manifest. With it
/// come the digests of its layers, unpacked.
///
/// # Errors
/// `InvalidArgument` for anything malformed.
pub fn read_configuration(bytes: &[u8], manifest: &Manifest) -> Result<(ImageConfiguration, Vec<Digest>)> {
    let invalid = |words: &dyn fmt::Display| {
        Error::new(Kind::InvalidArgument, format!("invalid image configuration: {words}"))
    };
    let configuration: ImageConfiguration = serde_json::from_slice(bytes).map_err(|e| invalid(&e))?;
    if configuration.rootfs().typ() != "layers" {
        return Err(invalid(&"its rootfs isn't of layers"));
    }
    let diff_ids = configuration.rootfs().diff_ids();
    if diff_ids.len() != manifest.layers.len() {
        let (layers, ids) = (manifest.layers.len(), diff_ids.len());
        return Err(invalid(&format_args!("it speaks of {ids} layers, the manifest of {layers}")));
    }
    let diff_ids = diff_ids.iter().map(|id| id.parse()).collect::<Result<_>>()?;
    Ok((configuration, diff_ids))
}

/// Whether a media type is that of an index; `None` for one we don't know.
fn is_index(media_type: &str) -> Option<bool> {
    match media_type {
        OCI_INDEX | DOCKER_LIST => Some(true),
        OCI_MANIFEST | DOCKER_MANIFEST => Some(false),
        _ => None,
    }
}

fn index(entries: Vec<RawDescriptor>) -> Result<Vec<Descriptor>> {
    if entries.len() > MAX_ENTRIES {
        return Err(invalid(format_args!("an index of more than {MAX_ENTRIES} entries")));
    }
    entries.into_iter().map(descriptor).collect()
}

fn manifest(config: RawDescriptor, layers: Vec<RawDescriptor>) -> Result<Manifest> {
    if layers.len() > MAX_LAYERS {
        return Err(invalid(format_args!("{} layers, more than {MAX_LAYERS}", layers.len())));
    }
    let config = descriptor(config)?;
    if !matches!(config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG | "") {
        let words = format!(
            "it is no container image but an artifact of type {:?}",
            config.media_type.chars().take(100).collect::<String>()
        );
        return Err(Error::new(Kind::FailedPrecondition, words));
    }
    if config.size > MAX_DOCUMENT {
        return Err(invalid("its configuration is too large"));
    }
    Ok(Manifest { config, layers: layers.into_iter().map(descriptor).collect::<Result<_>>()? })
}

fn descriptor(raw: RawDescriptor) -> Result<Descriptor> {
    let annotations = raw.annotations.unwrap_or_default();
    let platform = raw.platform.map(|platform| {
        Platform::new(&platform.os, &platform.architecture, platform.variant.as_deref().unwrap_or_default())
    });
    Ok(Descriptor {
        media_type: raw.media_type,
        digest: raw.digest.parse()?,
        size: raw.size,
        platform,
        name: ["io.containerd.image.name", "org.opencontainers.image.ref.name"]
            .iter()
            .find_map(|key| annotations.get(*key).cloned()),
        attestation: annotations.contains_key("vnd.docker.reference.type"),
    })
}

/// The entry of an index that serves `platform` best; the first of equals.
#[must_use]
pub fn choose<'a>(entries: &'a [Descriptor], platform: &Platform) -> Option<&'a Descriptor> {
    let images = entries.iter().filter(|entry| !entry.attestation);
    let known = images.clone().filter_map(|entry| {
        let offered = entry.platform.as_ref()?;
        platform.match_of(offered).map(|distance| (distance, entry))
    });
    known.min_by_key(|(distance, _)| *distance).map(|(_, entry)| entry).or_else(|| {
        // One that doesn't say what it is for; its configuration will.
        let mut silent = images.filter(|entry| entry.platform.is_none());
        silent.next().filter(|_| silent.next().is_none())
    })
}

/// Nothing for the platform, in Docker's words.
#[must_use]
pub fn no_match(platform: &Platform) -> Error {
    Error::new(
        Kind::FailedPrecondition,
        format!("no matching manifest for {platform} in the manifest list entries"),
    )
}

/// A manifest for an image that came without one.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewManifest<'a> {
    schema_version: u32,
    media_type: &'a str,
    config: NewDescriptor<'a>,
    layers: Vec<NewDescriptor<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewDescriptor<'a> {
    media_type: &'a str,
    digest: &'a str,
    size: u64,
}

impl Manifest {
    /// The manifest as an OCI document.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        fn new(d: &Descriptor) -> NewDescriptor<'_> {
            NewDescriptor { media_type: &d.media_type, digest: d.digest.as_str(), size: d.size }
        }
        let document = NewManifest {
            schema_version: 2,
            media_type: OCI_MANIFEST,
            config: new(&self.config),
            layers: self.layers.iter().map(new).collect(),
        };
        serde_json::to_vec(&document).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(c: char) -> String {
        format!("sha256:{}", c.to_string().repeat(64))
    }

    fn image(extra: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"{OCI_CONFIG}","digest":"{}","size":2}},
               "layers":[{{"mediaType":"x","digest":"{}","size":3}}]{extra}}}"#,
            hex('a'),
            hex('b'),
        )
    }

    #[test]
    fn both_kinds_are_read() {
        let Document::Manifest(manifest) =
            Document::parse(image("").as_bytes(), OCI_MANIFEST).expect("valid")
        else {
            panic!("a manifest");
        };
        assert_eq!((manifest.layers.len(), manifest.config.size), (1, 2));
        let again = Document::parse(&manifest.to_bytes(), "").expect("our own");
        assert_eq!(again, Document::Manifest(manifest));
    }

    #[test]
    fn ambiguous_and_malformed_documents_are_refused() {
        let both = image(r#","manifests":[]"#);
        let twice = image(r#","layers":[]"#);
        let lying = image(&format!(r#","mediaType":"{OCI_INDEX}""#));
        let artifact = image("").replace(OCI_CONFIG, "application/vnd.cncf.helm.config.v1+json");
        let many = format!(
            r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
            vec![format!(r#"{{"digest":"{}","size":1}}"#, hex('a')); 1001].join(",")
        );
        let negative = image("").replace("\"size\":3", "\"size\":-1");
        let path = image("").replace(&hex('b'), "sha256:../../x");
        for (document, media_type) in [
            (both.as_str(), ""),
            (&twice, ""),
            (&lying, ""),
            (&image(""), DOCKER_LIST),
            (&many, ""),
            (&negative, ""),
            (&path, ""),
            (&artifact, ""),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#, ""),
            (r#"{"schemaVersion":2}"#, ""),
            (r#"{"schemaVersion":"2","manifests":[]}"#, ""),
            (r#"{"manifests":[]}"#, ""),
            ("", ""),
            ("[", ""),
            (&"[".repeat(100_000), ""),
        ] {
            assert!(Document::parse(document.as_bytes(), media_type).is_err(), "{document:.100}");
        }
    }

    #[test]
    fn the_best_platform_is_chosen_and_attestations_never_are() {
        let entry = |c: char, platform: Option<&str>, attestation| Descriptor {
            media_type: OCI_MANIFEST.into(),
            digest: hex(c).parse().expect("digest"),
            size: 1,
            platform: platform.map(|p| p.parse().expect("platform")),
            name: None,
            attestation,
        };
        let entries = [
            entry('a', Some("linux/arm/v6"), false),
            entry('b', Some("linux/arm/v7"), false),
            entry('c', Some("linux/amd64"), true),
            entry('d', Some("linux/amd64"), false),
        ];
        let choice =
            |p: &str| choose(&entries, &p.parse().expect("platform")).map(|d| d.digest.hex()[..1].to_owned());
        assert_eq!(choice("linux/amd64").as_deref(), Some("d"));
        assert_eq!(choice("linux/arm/v7").as_deref(), Some("b"));
        assert_eq!(choice("linux/arm/v6").as_deref(), Some("a"));
        assert_eq!(choice("linux/s390x"), None);
        assert!(choose(&[entry('e', None, false)], &Platform::host()).is_some());
        let words = no_match(&"linux/amd64".parse().expect("platform")).to_string();
        assert_eq!(words, "no matching manifest for linux/amd64 in the manifest list entries");
    }
}

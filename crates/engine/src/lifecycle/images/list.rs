// SPDX-License-Identifier: Apache-2.0
//! List, inspect and tag.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
};

use berth::{failpoint, ids::Namespace};
use oci_spec::image::ImageConfiguration;
use rusqlite::Connection;

use super::{
    Images,
    pull::{event, name},
    resolve::{DANGLING, configuration, find},
};
use crate::{
    domain::{digest::Digest, filter::label_matches},
    error::{Error, Kind, Result},
    image::{
        layout,
        manifest::MAX_DOCUMENT,
        reference::{Reference, familiar},
    },
    store::meta::{
        events,
        images::{self as rows, ImageRow, RefRow},
    },
};

/// What a list shows of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSummary {
    /// Digest of the configuration.
    pub id: Digest,
    /// `name:tag`, as users write them.
    pub repo_tags: Vec<String>,
    /// `name@digest`.
    pub repo_digests: Vec<String>,
    /// Nanoseconds since the epoch; 0 when the image doesn't say.
    pub created_at: i64,
    /// Bytes of all unpacked layers.
    pub size: u64,
    /// From the configuration.
    pub labels: BTreeMap<String, String>,
    /// From the configuration.
    pub architecture: String,
    /// From the configuration.
    pub os: String,
    /// From the configuration.
    pub variant: String,
    /// Made from it, in the namespace.
    pub containers: u32,
    /// Bytes of its blobs.
    pub content_size: u64,
    /// Of the platform's manifest.
    pub manifest_digest: String,
    /// The namespace wants it kept.
    pub pinned: bool,
    /// When it was last of use, as `created_at`.
    pub used_at: i64,
}

/// Everything that is known of an image.
#[derive(Debug, Clone)]
pub struct ImageDetails {
    /// As a list shows it.
    pub summary: ImageSummary,
    /// As it was pulled.
    pub configuration: ImageConfiguration,
    /// The same, as text.
    pub raw: String,
    /// Layers: bytes of the files, and where they are; the top first.
    pub layers: Vec<(u64, PathBuf)>,
    /// What the manifest says that it is, and its bytes.
    pub manifest: (String, u64),
    /// When it got its newest name, as `created_at`.
    pub tagged_at: i64,
}

/// What images have besides their own rows.
struct Around {
    containers: HashMap<String, u32>,
    contents: HashMap<String, u64>,
    pinned: HashSet<String>,
}

impl Around {
    fn read(c: &Connection, namespace: &str) -> Result<Self> {
        Ok(Self {
            containers: rows::count_users(c, namespace)?,
            contents: rows::content_sizes(c)?,
            pinned: rows::pinned(c, namespace)?,
        })
    }
}

/// Which images to list; empty is all. Values of one key are alternatives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageFilter {
    /// Globs over `name` or `name:tag`.
    pub reference: Vec<String>,
    /// Only those without a tag, or only those with one.
    pub dangling: Vec<bool>,
    /// `key` or `key=value`; all must hold.
    pub label: Vec<String>,
    /// Older than this image.
    pub before: Vec<String>,
    /// Younger than this image.
    pub since: Vec<String>,
    /// Made before any of these times, nanoseconds since the epoch.
    pub until: Vec<i64>,
}

impl ImageFilter {
    /// Reads `key=value` pairs.
    ///
    /// # Errors
    /// `InvalidArgument`, in Docker's words, for an unknown key or value.
    pub fn parse<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let mut filter = Self::default();
        for (key, value) in pairs {
            let own = value.to_owned();
            match (key, value) {
                ("reference", _) => filter.reference.push(own),
                ("dangling", "true" | "1") => filter.dangling.push(true),
                ("dangling", "false" | "0") => filter.dangling.push(false),
                ("label", _) => filter.label.push(own),
                ("before", _) => filter.before.push(own),
                ("since", _) => filter.since.push(own),
                ("until", _) => filter.until.push(time(value)?),
                ("dangling", _) => {
                    return Err(Error::new(
                        Kind::InvalidArgument,
                        format!("invalid filter 'dangling={value}'"),
                    ));
                }
                _ => return Err(Error::new(Kind::InvalidArgument, format!("invalid filter '{key}'"))),
            }
        }
        Ok(filter)
    }

    fn passes(&self, image: &ImageSummary) -> bool {
        let has_label = |wanted: &String| label_matches(wanted, &image.labels);
        let dangling = image.repo_tags.is_empty();
        (self.dangling.is_empty() || self.dangling.contains(&dangling))
            && self.label.iter().all(has_label)
            && (self.until.is_empty() || self.until.iter().any(|&time| image.created_at < time))
            && (self.reference.is_empty() || !image.repo_tags.is_empty() || !image.repo_digests.is_empty())
    }
}

impl Images {
    /// The namespace's images, newest first. Blocks.
    ///
    /// # Errors
    /// `NotFound` for an image that `before` or `since` names.
    pub fn list(&self, namespace: &Namespace, filter: &ImageFilter) -> Result<Vec<ImageSummary>> {
        let namespace = namespace.as_str();
        self.db.read(|c| {
            let bound = |names: &[String]| -> Result<Option<i64>> {
                let times = names.iter().map(|image| Ok(find(c, namespace, image)?.row.created_at));
                Ok(times.collect::<Result<Vec<_>>>()?.into_iter().min())
            };
            let (before, since) = (bound(&filter.before)?, bound(&filter.since)?);
            let refs = rows::refs(c, namespace)?;
            let around = Around::read(c, namespace)?;
            let mut images = Vec::new();
            for row in rows::all(c, namespace)? {
                let in_time = before.is_none_or(|time| row.created_at < time)
                    && since.is_none_or(|time| row.created_at > time);
                if !in_time {
                    continue;
                }
                let own = refs.iter().filter(|r| r.image_id == row.id && shown(filter, &r.name));
                let image = summary(&row, &configuration(&row)?, own, &around)?;
                if filter.passes(&image) {
                    images.push(image);
                }
            }
            Ok(images)
        })
    }

    /// Everything that is known of an image. Blocks.
    ///
    /// # Errors
    /// `NotFound`, `InvalidArgument` for an ambiguous id.
    pub fn inspect(&self, namespace: &Namespace, image: &str) -> Result<ImageDetails> {
        let namespace = namespace.as_str();
        let (row, mut details) = self.db.read(|c| {
            let row = find(c, namespace, image)?.row;
            let configuration = configuration(&row)?;
            let refs = rows::refs_of(c, namespace, &row.id)?;
            let details = ImageDetails {
                summary: summary(&row, &configuration, refs.iter(), &Around::read(c, namespace)?)?,
                configuration,
                raw: row.config.clone(),
                layers: Vec::new(),
                manifest: (String::new(), 0),
                tagged_at: rows::tagged_at(c, namespace, &row.id)?,
            };
            Ok((row, details))
        })?;
        if let Some(top) = &row.chain_id {
            details.layers = self.snapshots.layers(&top.parse()?)?;
        }
        // It may be gone by now, or damaged: the rest is true all the same.
        if let Ok(manifest) = self.content.read(&row.manifest_digest.parse()?, MAX_DOCUMENT) {
            details.manifest = (layout::media_type(&manifest), manifest.len() as u64);
        }
        Ok(details)
    }

    /// Gives `source` the name `target`, taking it from who had it. Blocks.
    ///
    /// # Errors
    /// `NotFound`, `InvalidArgument` for a name that is none.
    pub fn tag(&self, namespace: &Namespace, source: &str, target: &str) -> Result<()> {
        let reference: Reference = target.parse()?;
        if reference.digest().is_some() {
            let words = "refusing to create a tag with a digest reference";
            return Err(Error::new(Kind::InvalidArgument, words));
        }
        let namespace = namespace.as_str();
        self.db.write(|tx| {
            let row = find(tx, namespace, source)?.row;
            let id: Digest = row.id.parse()?;
            let target = target_of(tx, namespace, &row)?.parse()?;
            name(tx, namespace, &reference, &id, &target)?;
            events::append(tx, &event(namespace, "tag", &id, &reference.familiar()))
        })?;
        self.events.committed();
        failpoint::hit("tag.done")?;
        Ok(())
    }
}

/// What the image was pulled as: the same under another name.
fn target_of(c: &Connection, namespace: &str, row: &ImageRow) -> Result<String> {
    let refs = rows::refs_of(c, namespace, &row.id)?;
    Ok(refs.into_iter().next().map_or_else(|| row.manifest_digest.clone(), |r| r.target))
}

/// Seconds since the epoch, with a fraction, or RFC 3339.
fn time(text: &str) -> Result<i64> {
    let seconds = |seconds: f64| jiff::Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs_f64(seconds);
    let parsed = match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number.abs() < 1e10 => Some(seconds(number)),
        _ => text.parse().ok(),
    };
    let nanos = parsed.and_then(|time: jiff::Timestamp| i64::try_from(time.as_nanosecond()).ok());
    nanos.ok_or_else(|| Error::new(Kind::InvalidArgument, format!("invalid filter 'until={text}'")))
}

fn shown(filter: &ImageFilter, name: &str) -> bool {
    if filter.reference.is_empty() {
        return true;
    }
    let whole = familiar(name);
    let repository = whole.split_once('@').map_or(whole, |(name, _)| name);
    let repository = match repository.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => repository,
    };
    filter.reference.iter().any(|glob| {
        let glob = glob.as_bytes();
        matches(glob, whole.as_bytes()) || matches(glob, repository.as_bytes())
    })
}

/// `*` stands for anything but a slash, `?` for one such character.
fn matches(glob: &[u8], text: &[u8]) -> bool {
    // Where to go back to: after a star, and one character further on.
    let (mut g, mut t, mut back) = (0, 0, None);
    while t < text.len() {
        match glob.get(g) {
            Some(b'*') => {
                back = Some((g, t));
                g += 1;
                continue;
            }
            Some(&c) if c == text[t] || (c == b'?' && text[t] != b'/') => {
                (g, t) = (g + 1, t + 1);
                continue;
            }
            _ => {}
        }
        match back {
            Some((star, at)) if text[at] != b'/' => {
                back = Some((star, at + 1));
                (g, t) = (star + 1, at + 1);
            }
            _ => return false,
        }
    }
    glob[g..].iter().all(|&c| c == b'*')
}

fn summary<'a>(
    row: &ImageRow,
    configuration: &ImageConfiguration,
    refs: impl Iterator<Item = &'a RefRow>,
    around: &Around,
) -> Result<ImageSummary> {
    let (mut repo_tags, mut repo_digests) = (Vec::new(), Vec::new());
    for r in refs.filter(|r| !r.name.starts_with(DANGLING)) {
        let name = familiar(&r.name);
        if let Some((repository, _)) = name.split_once('@') {
            repo_digests.push(format!("{repository}@{}", r.target));
            continue;
        }
        let repository = name.rsplit_once(':').map_or(name, |(repository, _)| repository);
        repo_digests.push(format!("{repository}@{}", r.target));
        repo_tags.push(name.to_owned());
    }
    repo_digests.sort();
    repo_digests.dedup();
    let labels =
        configuration.config().as_ref().and_then(|config| config.labels().clone()).unwrap_or_default();
    Ok(ImageSummary {
        id: row.id.parse()?,
        repo_tags,
        repo_digests,
        created_at: row.created_at,
        size: row.size,
        labels: labels.into_iter().collect(),
        architecture: configuration.architecture().to_string(),
        os: configuration.os().to_string(),
        variant: configuration.variant().clone().unwrap_or_default(),
        containers: around.containers.get(&row.id).copied().unwrap_or(0),
        content_size: around.contents.get(&row.id).copied().unwrap_or(0),
        manifest_digest: row.manifest_digest.clone(),
        pinned: around.pinned.contains(&row.id),
        used_at: row.used_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_within_a_component() {
        for (glob, text, expected) in [
            ("alpine", "alpine", true),
            ("alp*", "alpine", true),
            ("alp*", "alpine:3", true),
            ("*", "alpine", true),
            ("*", "me/app", false),
            ("*/app*", "me/app:1", true),
            ("a?pine", "alpine", true),
            ("a?b", "a/b", false),
            ("*a*b", "xaxxb", true),
            ("", "", true),
            ("a", "", false),
        ] {
            assert_eq!(matches(glob.as_bytes(), text.as_bytes()), expected, "{glob} {text}");
        }
    }

    #[test]
    fn unknown_filters_are_refused() {
        assert!(ImageFilter::parse([("reference", "a"), ("dangling", "true")]).is_ok());
        assert!(ImageFilter::parse([("dangling", "maybe")]).is_err());
        assert!(ImageFilter::parse([("color", "red")]).is_err());
        for (text, nanos) in [("1.5", 1_500_000_000), ("1970-01-01T00:00:02Z", 2_000_000_000)] {
            assert_eq!(ImageFilter::parse([("until", text)]).expect("a time").until, [nanos]);
        }
        assert!(ImageFilter::parse([("until", "yesterday")]).is_err());
    }
}

// SPDX-License-Identifier: Apache-2.0
//! `berth images`.

use std::time::SystemTime;

use berth::api::v1::{Filter, Image, ListImagesRequest};

use crate::{
    cli::image::Images,
    context::Context,
    error::Result,
    output::{
        self, human,
        listing::{Format, Row},
        table,
    },
    parse::{
        reference::{short_id, split_tag},
        time,
    },
};

const NONE: &str = "<none>";
const UNTAGGED: &str = "<untagged>";
const TABLE: &str = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
const TABLE_DIGESTS: &str = "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";

const HEADERS: [(&str, &str); 8] = [
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
];

/// `berth images`.
pub(super) async fn images(context: &Context, args: Images) -> Result<u8> {
    let format = Format::parse(args.format.as_deref(), if args.digests { TABLE_DIGESTS } else { TABLE })?;
    let mut filters = args.filter;
    for filter in filters.iter_mut().filter(|filter| filter.key == "until") {
        // The user's clock counts, not the engine's.
        filter.value = human::rfc3339(&time::point(&filter.value)?);
    }
    filters.extend(args.reference.map(|value| Filter { key: "reference".into(), value }));
    let request = ListImagesRequest { namespace: context.namespace.clone(), filters };
    let list = context.client.images().list(request).await?.into_inner().images;
    if args.tree {
        output::print(&tree(&list))?;
        return Ok(0);
    }
    if args.quiet {
        let id = |i: &Image| if args.no_trunc { i.id.clone() } else { short_id(&i.id).to_owned() };
        let mut ids: Vec<String> = list.iter().map(id).collect();
        ids.dedup();
        output::print(&ids.into_iter().map(|id| id + "\n").collect::<String>())?;
        return Ok(0);
    }
    let now = SystemTime::now();
    let rows: Vec<Row> = list.iter().flat_map(|image| rows(image, args.no_trunc, now)).collect();
    output::print(&format.render(&HEADERS, &rows)?)?;
    Ok(0)
}

/// One row per name; one for an image without.
pub(super) fn rows(image: &Image, whole: bool, now: SystemTime) -> Vec<Row> {
    let digest_of = |repository: &str| {
        let mut pairs = image.repo_digests.iter().filter_map(|name| name.split_once('@'));
        pairs.find(|(name, _)| *name == repository).map_or(NONE, |(_, digest)| digest)
    };
    if image.repo_tags.is_empty() {
        let named = image.repo_digests.first().and_then(|name| name.split_once('@'));
        let (repository, digest) = named.unwrap_or((NONE, NONE));
        return vec![row(image, [repository, NONE, digest], whole, now)];
    }
    let names = image.repo_tags.iter().map(|name| split_tag(name));
    names.map(|(name, tag)| row(image, [name, tag.unwrap_or(NONE), digest_of(name)], whole, now)).collect()
}

/// Every image with its names, and the platform that is here of it.
fn tree(list: &[Image]) -> String {
    let mut lines = vec!["IMAGE\tID\tDISK USAGE\tCONTENT SIZE\tEXTRA".to_owned()];
    for image in list {
        let usage = human::size(image.size + image.content_size);
        let content = human::size(image.content_size);
        let used = if image.containers > 0 { "U" } else { "" };
        let names = if image.repo_tags.is_empty() { &image.repo_digests } else { &image.repo_tags };
        let untagged = [UNTAGGED.to_owned()];
        let names = if names.is_empty() { &untagged[..] } else { names };
        for name in names {
            lines.push(format!("{name}\t{}\t{usage}\t{content}\t{used}", short_id(&image.id)));
        }
        let variant = if image.variant.is_empty() { String::new() } else { format!("/{}", image.variant) };
        let platform = format!("└─ {}/{}{variant}", image.os, image.architecture);
        lines.push(format!("{platform}\t{}\t{usage}\t{content}\t{used}", short_id(&image.manifest_digest)));
    }
    table::align(&lines)
}

fn row(image: &Image, [repository, tag, digest]: [&str; 3], whole: bool, now: SystemTime) -> Row {
    let created = image.created_at.filter(|time| time.seconds > 0);
    let since = created.map(|time| format!("{} ago", human::duration(human::since(&time, now))));
    let row = Row::default()
        .with("ID", if whole { image.id.as_str() } else { short_id(&image.id) })
        .with("Repository", repository)
        .with("Tag", tag)
        .with("Digest", digest)
        .with("CreatedSince", since.unwrap_or_else(|| "N/A".into()))
        .with("CreatedAt", created.map_or_else(|| "N/A".into(), |time| human::created_at(&time)))
        .with("Size", human::size(image.size))
        .with("Containers", image.containers.to_string());
    Row { labels: image.labels.clone().into_iter().collect(), ..row }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn image() -> Image {
        Image {
            id: format!("sha256:1c46c8a3e01e{}", "0".repeat(52)),
            repo_tags: vec!["hello-world:latest".into(), "127.0.0.1:5000/me/hello:1".into()],
            repo_digests: vec!["hello-world@sha256:abc".into()],
            created_at: Some(prost_types::Timestamp { seconds: 1_000_000, nanos: 0 }),
            size: 1_240_000,
            ..Default::default()
        }
    }

    fn render(image: &Image, format: Option<&str>, digests: bool) -> String {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000 + 3 * 86400);
        let default = if digests { TABLE_DIGESTS } else { TABLE };
        Format::parse(format, default)
            .expect("format")
            .render(&HEADERS, &rows(image, false, now))
            .expect("rows")
    }

    #[test]
    fn one_row_per_name() {
        assert_eq!(
            render(&image(), None, false),
            "REPOSITORY                TAG       IMAGE ID       CREATED      SIZE\n\
             hello-world               latest    1c46c8a3e01e   3 days ago   1.24MB\n\
             127.0.0.1:5000/me/hello   1         1c46c8a3e01e   3 days ago   1.24MB\n"
        );
        assert_eq!(
            render(&image(), Some("{{.Repository}}:{{.Tag}} {{.Digest}}"), true),
            "hello-world:latest sha256:abc\n127.0.0.1:5000/me/hello:1 <none>\n"
        );
    }

    #[test]
    fn a_tree_has_the_platform_below_the_names() {
        let mut image = image();
        (image.os, image.architecture, image.variant) = ("linux".into(), "arm64".into(), "v8".into());
        (image.content_size, image.containers) = (760_000, 1);
        image.manifest_digest = "sha256:0123456789abcdef".into();
        assert_eq!(
            tree(&[image, Image { id: "sha256:00".into(), ..Default::default() }])
                .lines()
                .collect::<Vec<_>>(),
            [
                "IMAGE                       ID             DISK USAGE   CONTENT SIZE   EXTRA",
                "hello-world:latest          1c46c8a3e01e   2MB          760kB          U",
                "127.0.0.1:5000/me/hello:1   1c46c8a3e01e   2MB          760kB          U",
                "└─ linux/arm64/v8           0123456789ab   2MB          760kB          U",
                "<untagged>                  00             0B           0B             ",
                "└─ /                                       0B           0B             ",
            ]
        );
    }

    #[test]
    fn an_image_without_a_name_has_a_row() {
        let mut image = image();
        image.repo_tags.clear();
        image.repo_digests.clear();
        image.created_at = None;
        assert_eq!(
            render(&image, Some("{{.Repository}} {{.Tag}} {{.CreatedSince}}"), false),
            "<none> <none> N/A\n"
        );
    }
}

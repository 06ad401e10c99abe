// SPDX-License-Identifier: Apache-2.0
//! `berth container prune`, `berth image prune`, `berth system prune`, and
//! pins, which keep an image from them.

use std::io;

use berth::api::v1::{
    Filter, PinImageRequest, PruneContainersRequest, PruneImagesRequest, PruneImagesResponse,
};

use crate::{
    cli::{image, manage, system},
    context::Context,
    error::{Error, Result},
    output::{self, human},
    parse::time,
};

const CONTAINERS: &str = "WARNING! This will remove all stopped containers.";
const DANGLING: &str = "WARNING! This will remove all dangling images.";
const UNUSED: &str =
    "WARNING! This will remove all images without at least one container associated to them.";

/// `berth container prune`.
pub(super) async fn prune(context: &Context, args: manage::Prune) -> Result<u8> {
    let wanted = Wanted::of(&args.filter)?;
    if !args.force && !confirmed(CONTAINERS)? {
        return Ok(0);
    }
    let (text, bytes) = containers(context, &wanted).await?;
    report(&text, bytes)
}

/// `berth image prune`.
pub(super) async fn images(context: &Context, args: image::Prune) -> Result<u8> {
    let wanted = Wanted::of(&args.filter)?;
    let ask = !args.force && !args.dry_run;
    if ask && !confirmed(if args.all { UNUSED } else { DANGLING })? {
        return Ok(0);
    }
    let pruned = unused(context, &wanted, args.all, args.dry_run).await?;
    if args.dry_run {
        let text = said("Images that would be deleted:", &pruned);
        let space = human::size(pruned.space_reclaimed);
        output::print(&format!("{text}Space that would be reclaimed: {space}\n"))?;
        return Ok(0);
    }
    report(&said("Deleted Images:", &pruned), pruned.space_reclaimed)
}

/// `berth system prune`: containers first, whose images are unused then.
pub(super) async fn system(context: &Context, args: system::Prune) -> Result<u8> {
    let wanted = Wanted::of(&args.filter)?;
    if !args.force && !confirmed(&warning(&args))? {
        return Ok(0);
    }
    let (mut text, mut bytes) = containers(context, &wanted).await?;
    let pruned = unused(context, &wanted, args.all, false).await?;
    text += &said("Deleted Images:", &pruned);
    bytes = bytes.saturating_add(pruned.space_reclaimed);
    report(&text, bytes)
}

/// `berth image pin` and `berth image unpin`.
pub(super) async fn pin(context: &Context, args: image::Pin, keep: bool) -> Result<u8> {
    super::each(args.images, |image| {
        let request =
            PinImageRequest { namespace: context.namespace.clone(), image: image.clone(), unpin: !keep };
        let mut client = context.client.images();
        async move {
            client.pin(request).await?;
            Ok(image)
        }
    })
    .await
}

fn warning(args: &system::Prune) -> String {
    let images = if args.all {
        "all images without at least one container associated to them"
    } else {
        "all dangling images"
    };
    let mut text = format!("WARNING! This will remove:\n  - all stopped containers\n  - {images}\n");
    if !args.filter.is_empty() {
        text += "\n  Items to be pruned will be filtered with:\n";
        for Filter { key, value } in &args.filter {
            text += &format!("  - {key}={value}\n");
        }
    }
    text
}

/// What `--filter` asks for.
#[derive(Debug, Default)]
struct Wanted {
    until: Option<prost_types::Timestamp>,
    labels: Vec<String>,
    without_labels: Vec<String>,
}

impl Wanted {
    fn of(filters: &[Filter]) -> Result<Self> {
        let mut wanted = Self::default();
        for Filter { key, value } in filters {
            match key.as_str() {
                "until" => wanted.until = Some(time::point(value)?),
                "label" => wanted.labels.push(value.clone()),
                "label!" => wanted.without_labels.push(value.clone()),
                _ => return Err(Error::new(format!("invalid filter '{key}'"))),
            }
        }
        Ok(wanted)
    }
}

/// What was removed, in words, and how many bytes.
async fn containers(context: &Context, wanted: &Wanted) -> Result<(String, u64)> {
    let request = PruneContainersRequest {
        namespace: context.namespace.clone(),
        until: wanted.until,
        labels: wanted.labels.clone(),
        without_labels: wanted.without_labels.clone(),
    };
    let pruned = context.client.containers().prune(request).await?.into_inner();
    let text = match pruned.removed.as_slice() {
        [] => String::new(),
        removed => format!("Deleted Containers:\n{}\n\n", removed.join("\n")),
    };
    Ok((text, pruned.space_reclaimed))
}

async fn unused(context: &Context, wanted: &Wanted, all: bool, dry_run: bool) -> Result<PruneImagesResponse> {
    let request = PruneImagesRequest {
        namespace: context.namespace.clone(),
        all,
        until: wanted.until,
        labels: wanted.labels.clone(),
        without_labels: wanted.without_labels.clone(),
        dry_run,
    };
    Ok(context.client.images().prune(request).await?.into_inner())
}

fn said(heading: &str, pruned: &PruneImagesResponse) -> String {
    let untagged = pruned.untagged.iter().map(|name| format!("untagged: {name}\n"));
    let deleted = pruned.deleted.iter().map(|digest| format!("deleted: {digest}\n"));
    let lines: String = untagged.chain(deleted).collect();
    if lines.is_empty() { lines } else { format!("{heading}\n{lines}\n") }
}

fn report(text: &str, bytes: u64) -> Result<u8> {
    output::print(&format!("{text}Total reclaimed space: {}\n", human::size(bytes)))?;
    Ok(0)
}

/// Whether the user says so; the end of the input is a no.
fn confirmed(warning: &str) -> Result<bool> {
    output::print(&format!("{warning}\nAre you sure you want to continue? [y/N] "))?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

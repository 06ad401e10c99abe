// SPDX-License-Identifier: Apache-2.0
//! `berth system df`.

use std::{collections::HashMap, time::SystemTime};

use berth::api::v1::{
    ContainerSummary, DiskUsageRequest, DiskUsageResponse, Image, ListContainersRequest, ListImagesRequest,
    disk_usage_response::Share,
};

use super::{images, ps};
use crate::{
    cli::system::Df,
    context::Context,
    error::Result,
    output::{
        self, human,
        listing::{Format, Row},
    },
};

const TABLE: &str = "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}";
const HEADERS: [(&str, &str); 5] = [
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
];
const IMAGES: &str = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}";
const IMAGE_HEADERS: [(&str, &str); 8] = [
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("Size", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("Containers", "CONTAINERS"),
];
const CONTAINERS: &str =
    "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.Size}}\t{{.LogSize}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}";
const CONTAINER_HEADERS: [(&str, &str); 8] = [
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("Size", "SIZE"),
    ("LogSize", "LOG SIZE"),
    ("RunningFor", "CREATED"),
    ("Status", "STATUS"),
    ("Names", "NAMES"),
];

/// `berth system df`.
pub(super) async fn df(context: &Context, args: Df) -> Result<u8> {
    let format = Format::parse(args.format.as_deref(), TABLE)?;
    let request = DiskUsageRequest { namespace: context.namespace.clone(), verbose: args.verbose };
    let usage = context.client.system().disk_usage(request).await?.into_inner();
    if args.verbose {
        return details(context, &usage).await;
    }
    output::print(&format.render(&HEADERS, &rows(&usage))?)?;
    Ok(0)
}

fn rows(usage: &DiskUsageResponse) -> Vec<Row> {
    let shares = [
        ("Images", usage.images),
        ("Containers", usage.containers),
        ("Container Logs", usage.logs),
        ("Partial Downloads", usage.partial),
        ("Metadata", usage.metadata),
    ];
    let row = |kind: &str, share: Share| {
        Row::default()
            .with("Type", kind)
            .with("TotalCount", share.total.to_string())
            .with("Active", share.active.to_string())
            .with("Size", human::size(share.size))
            .with("Reclaimable", reclaimable(&share))
    };
    let total = Share { size: usage.size, ..Share::default() };
    let mut rows: Vec<Row> =
        shares.into_iter().map(|(kind, share)| row(kind, share.unwrap_or_default())).collect();
    for (at, name) in [(3, "Active"), (4, "TotalCount"), (4, "Active")] {
        // Nothing that is counted, or that is of use to somebody.
        rows[at].fields.insert(name.to_owned(), "".into());
    }
    let mut sum = row("Total", total);
    for name in ["TotalCount", "Active", "Reclaimable"] {
        sum.fields.insert(name.to_owned(), "".into());
    }
    rows.push(sum);
    rows
}

/// Bytes, and how many of a hundred.
fn reclaimable(share: &Share) -> String {
    let bytes = human::size(share.reclaimable);
    match share.size {
        0 => bytes,
        size => format!("{bytes} ({}%)", u128::from(share.reclaimable) * 100 / u128::from(size)),
    }
}

async fn details(context: &Context, usage: &DiskUsageResponse) -> Result<u8> {
    let namespace = context.namespace.clone();
    let request = ListImagesRequest { namespace: namespace.clone(), filters: Vec::new() };
    let list = context.client.images().list(request).await?.into_inner().images;
    let request = ListContainersRequest { namespace, all: true, ..Default::default() };
    let boxes = context.client.containers().list(request).await?.into_inner().containers;
    let format = Format::parse(None, IMAGES)?;
    let mut text = format!(
        "Images space usage:\n\n{}\n",
        format.render(&IMAGE_HEADERS, &image_rows(usage, &list, SystemTime::now()))?
    );
    let format = Format::parse(None, CONTAINERS)?;
    text += &format!(
        "Containers space usage:\n\n{}\n",
        format.render(&CONTAINER_HEADERS, &container_rows(usage, boxes, SystemTime::now()))?
    );
    let size = |share: Option<Share>| human::size(share.unwrap_or_default().size);
    text += &format!(
        "Partial downloads: {}\nMetadata: {}\nTotal: {}\n",
        size(usage.partial),
        size(usage.metadata),
        human::size(usage.size)
    );
    output::print(&text)?;
    Ok(0)
}

fn image_rows(usage: &DiskUsageResponse, list: &[Image], now: SystemTime) -> Vec<Row> {
    let sizes: HashMap<_, _> = usage.image_list.iter().map(|image| (image.id.as_str(), image)).collect();
    let sized = |image: &Image| {
        let size = sizes.get(image.id.as_str());
        let (size, shared) = size.map_or((0, 0), |size| (size.size, size.shared_size));
        let rows = images::rows(image, false, now).into_iter();
        rows.map(move |row| {
            row.with("Size", human::size(size))
                .with("SharedSize", human::size(shared))
                .with("UniqueSize", human::size(size.saturating_sub(shared)))
        })
        .collect::<Vec<_>>()
    };
    list.iter().flat_map(sized).collect()
}

fn container_rows(usage: &DiskUsageResponse, list: Vec<ContainerSummary>, now: SystemTime) -> Vec<Row> {
    let sizes: HashMap<_, _> = usage.container_list.iter().map(|of| (of.id.as_str(), of)).collect();
    let sized = |container: ContainerSummary| {
        let (size, log) = sizes.get(container.id.as_str()).map_or((0, 0), |of| (of.size, of.log_size));
        ps::row(container, false, now).with("Size", human::size(size)).with("LogSize", human::size(log))
    };
    list.into_iter().map(sized).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_their_sum() {
        let share = |size, reclaimable| Some(Share { total: 2, active: 1, size, reclaimable });
        let usage = DiskUsageResponse {
            images: share(2000, 1000),
            containers: share(30, 0),
            logs: share(0, 0),
            partial: share(4, 0),
            metadata: share(5, 0),
            size: 2039,
            ..Default::default()
        };
        let format = Format::parse(None, TABLE).expect("format");
        assert_eq!(
            format.render(&HEADERS, &rows(&usage)).expect("table"),
            "TYPE                TOTAL     ACTIVE    SIZE      RECLAIMABLE\n\
             Images              2         1         2kB       1kB (50%)\n\
             Containers          2         1         30B       0B (0%)\n\
             Container Logs      2         1         0B        0B\n\
             Partial Downloads   2                   4B        0B (0%)\n\
             Metadata                                5B        0B (0%)\n\
             Total                                   2.04kB    \n"
        );
    }
}

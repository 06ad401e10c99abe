// SPDX-License-Identifier: Apache-2.0
//! `berth ps`.

use std::time::SystemTime;

use berth::api::v1::{
    ContainerState, ContainerSummary, ListContainersRequest, Mount,
    container_state::{HealthStatus, Status},
};

use crate::{
    cli::container::Ps,
    context::Context,
    error::Result,
    output::{
        self, human,
        listing::{Format, Row},
        text,
    },
    parse::reference::short_id,
};

const TABLE: &str = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";

const HEADERS: [(&str, &str); 14] = [
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Status", "STATUS"),
    ("State", "STATE"),
    ("Ports", "PORTS"),
    ("Names", "NAMES"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("Networks", "NETWORKS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
];

/// `berth ps`.
pub(super) async fn ps(context: &Context, args: Ps) -> Result<u8> {
    let table = if args.size { format!("{TABLE}\t{{{{.Size}}}}") } else { TABLE.to_owned() };
    let format = Format::parse(args.format.as_deref(), &table)?;
    let last = args.last.and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    let request = ListContainersRequest {
        namespace: context.namespace.clone(),
        all: args.all,
        limit: if args.latest { 1 } else { last },
        filters: args.filter,
        size: args.size,
    };
    let list = context.client.containers().list(request).await?.into_inner().containers;
    if args.quiet {
        let id = |c: &ContainerSummary| if args.no_trunc { c.id.clone() } else { short_id(&c.id).to_owned() };
        output::print(&list.iter().map(|c| id(c) + "\n").collect::<String>())?;
        return Ok(0);
    }
    let now = SystemTime::now();
    let rows: Vec<Row> = list.into_iter().map(|c| row(c, args.no_trunc, now)).collect();
    output::print(&format.render(&HEADERS, &rows)?)?;
    Ok(0)
}

/// One line of a list.
pub(super) fn row(container: ContainerSummary, whole: bool, now: SystemTime) -> Row {
    let state = container.state.unwrap_or_default();
    let created = container.created_at.unwrap_or_default();
    let command = joined(&container.command);
    let command = text::quote(&if whole { command.as_str().into() } else { text::ellipsis(&command, 20) });
    let id = if whole { container.id.as_str() } else { short_id(&container.id) };
    let mut labels: Vec<String> = container.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    labels.sort_unstable();
    let row = Row::default()
        .with("ID", id)
        .with("Image", image(&container.image, whole))
        .with("Command", command)
        .with("CreatedAt", human::created_at(&created))
        .with("RunningFor", format!("{} ago", human::duration(human::since(&created, now))))
        .with("Status", status(&state, now))
        .with("State", state_name(state.status()))
        .with("Ports", "")
        .with("Names", container.name)
        .with("Size", size(container.size_rw, container.size_root_fs))
        .with("Labels", labels.join(","))
        .with("Mounts", mounts(&container.mounts, whole))
        .with("Networks", container.network_mode)
        .with("LocalVolumes", "0");
    Row { labels: container.labels.into_iter().collect(), ..row }
}

/// The command in one line; an argument with a blank stands in quotes.
fn joined(command: &[String]) -> String {
    let quoted = |word: &String| if word.contains(' ') { format!("'{word}'") } else { word.clone() };
    command.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// An image that was given by its id is shown by a short one.
fn image(image: &str, whole: bool) -> &str {
    match image {
        "" => "<no image>",
        image if !whole && image.starts_with("sha256:") => short_id(image),
        image => image,
    }
}

fn status(state: &ContainerState, now: SystemTime) -> String {
    let shown = life(state, now);
    if state.unresponsive { format!("{shown} (Unresponsive)") } else { shown }
}

fn life(state: &ContainerState, now: SystemTime) -> String {
    let ago =
        |time: &Option<prost_types::Timestamp>| human::duration(human::since(&time.unwrap_or_default(), now));
    match state.status() {
        Status::Unspecified | Status::Created => "Created".into(),
        Status::Running => format!("Up {}{}", ago(&state.started_at), health(state.health())),
        Status::Paused => format!("Up {} (Paused)", ago(&state.started_at)),
        Status::Exited => format!("Exited ({}) {} ago", state.exit_code, ago(&state.finished_at)),
        Status::Restarting => format!("Restarting ({}) {} ago", state.exit_code, ago(&state.finished_at)),
        Status::Unknown => "Unknown".into(),
        Status::Removing => "Removal In Progress".into(),
    }
}

/// What stands behind the time of one that runs.
fn health(health: HealthStatus) -> &'static str {
    match health {
        HealthStatus::Unspecified => "",
        HealthStatus::Starting => " (health: starting)",
        HealthStatus::Healthy => " (healthy)",
        HealthStatus::Unhealthy => " (unhealthy)",
    }
}

/// A state in one word, as `--filter status=` takes it.
pub(super) fn state_name(status: Status) -> &'static str {
    match status {
        Status::Unspecified | Status::Created => "created",
        Status::Running => "running",
        Status::Paused => "paused",
        Status::Exited => "exited",
        Status::Restarting => "restarting",
        Status::Unknown => "unknown",
        Status::Removing => "removing",
    }
}

fn size(written: Option<i64>, all: Option<i64>) -> String {
    let shown = |bytes: i64| human::size(u64::try_from(bytes).unwrap_or(0));
    match (written, all) {
        (Some(written), Some(all)) if all > 0 => format!("{} (virtual {})", shown(written), shown(all)),
        (written, _) => shown(written.unwrap_or(0)),
    }
}

fn mounts(mounts: &[Mount], whole: bool) -> String {
    let sources = mounts.iter().map(|m| if m.source.is_empty() { &m.target } else { &m.source });
    sources
        .map(|s| if whole { s.as_str().into() } else { text::ellipsis(s, 15) })
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn at(seconds: i64) -> Option<prost_types::Timestamp> {
        Some(prost_types::Timestamp { seconds, nanos: 0 })
    }

    fn summary() -> ContainerSummary {
        ContainerSummary {
            id: format!("128ec8ceab71{}", "0".repeat(52)),
            name: "exciting_chebyshev".into(),
            image: "hello-world".into(),
            command: vec!["/hello".into()],
            created_at: at(100),
            state: Some(ContainerState {
                status: Status::Exited.into(),
                started_at: at(100),
                finished_at: at(101),
                ..Default::default()
            }),
            labels: [("k".to_owned(), "v".to_owned())].into(),
            ..Default::default()
        }
    }

    #[test]
    fn the_table_of_the_first_minute() {
        let now = UNIX_EPOCH + Duration::from_secs(114);
        let format = Format::parse(None, TABLE).expect("format");
        assert_eq!(
            format.render(&HEADERS, &[row(summary(), false, now)]).expect("render"),
            "CONTAINER ID   IMAGE         COMMAND    CREATED          STATUS                      PORTS     NAMES\n\
             128ec8ceab71   hello-world   \"/hello\"   14 seconds ago   Exited (0) 13 seconds ago             exciting_chebyshev\n"
        );
    }

    #[test]
    fn states_in_words() {
        let now = UNIX_EPOCH + Duration::from_secs(220);
        let state = |status: Status| ContainerState {
            status: status.into(),
            started_at: at(100),
            finished_at: at(100),
            exit_code: 137,
            ..Default::default()
        };
        assert_eq!(status(&state(Status::Running), now), "Up 2 minutes");
        let healthy = ContainerState { health: HealthStatus::Healthy.into(), ..state(Status::Running) };
        assert_eq!(status(&healthy, now), "Up 2 minutes (healthy)");
        assert_eq!(status(&state(Status::Paused), now), "Up 2 minutes (Paused)");
        assert_eq!(status(&state(Status::Created), now), "Created");
        assert_eq!(status(&state(Status::Exited), now), "Exited (137) 2 minutes ago");
        assert_eq!(status(&state(Status::Restarting), now), "Restarting (137) 2 minutes ago");
    }

    #[test]
    fn long_commands_are_cut_and_harmless() {
        let mut long = summary();
        long.command = vec!["sh".into(), "-c".into(), "echo \x1b[2J 1234567890".into()];
        let row = row(long, false, UNIX_EPOCH);
        assert_eq!(row.fields["Command"], r#""sh -c 'echo \x1b[2J 12…""#);
    }

    #[test]
    fn sizes() {
        assert_eq!(size(Some(1_240_000), Some(5_000_000)), "1.24MB (virtual 5MB)");
        assert_eq!(size(None, None), "0B");
    }
}

// SPDX-License-Identifier: Apache-2.0
//! `berth stats`.

use berth::api::v1::{ContainerStats, ContainerStatsRequest, ContainerUsage, container_state::Status};

use crate::{
    cli::manage::Stats,
    context::Context,
    error::Result,
    output::{
        self, human,
        listing::{Format, Row},
    },
    parse::reference::short_id,
    terminal,
};

const TABLE: &str =
    "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}";

const HEADERS: [(&str, &str); 9] = [
    ("Container", "CONTAINER"),
    ("ID", "CONTAINER ID"),
    ("Name", "NAME"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
];

/// To the upper left corner; the rest of a line, and of the screen, is erased
/// as it is written over, so that nothing flickers.
const HOME: &str = "\x1b[H";
const REST_OF_LINE: &str = "\x1b[K\n";
const REST_OF_SCREEN: &str = "\x1b[J";
const CLEAR: &str = "\x1b[2J";

/// `berth stats`: one stream, however many containers.
pub(super) async fn stats(context: &Context, args: Stats) -> Result<u8> {
    let format = Format::parse(args.format.as_deref(), TABLE)?;
    let request = ContainerStatsRequest {
        namespace: context.namespace.clone(),
        containers: args.containers,
        all: args.all,
        stream: !args.no_stream,
        one_shot: false,
    };
    let live = !args.no_stream && terminal::stdout_is_terminal();
    let mut rounds = context.client.containers().stats(request).await?.into_inner();
    let mut before = CLEAR;
    while let Some(round) = rounds.message().await? {
        let rows: Vec<Row> = round.containers.into_iter().map(|line| row(line, args.no_trunc)).collect();
        let text = format.render(&HEADERS, &rows)?;
        if live {
            let text = text.replace('\n', REST_OF_LINE);
            output::print(&format!("{}{HOME}{text}{REST_OF_SCREEN}", std::mem::take(&mut before)))?;
        } else {
            output::print(&text)?;
        }
    }
    Ok(0)
}

fn row(line: ContainerStats, whole: bool) -> Row {
    let runs = matches!(line.status(), Status::Running | Status::Paused | Status::Unknown);
    let id = if whole { line.id.as_str() } else { short_id(&line.id) };
    let row = Row::default().with("Container", line.reference).with("ID", id).with("Name", line.name);
    match line.usage {
        Some(usage) => used(row, &usage),
        // It doesn't run: it uses nothing.
        None if !runs => used(row, &ContainerUsage::default()),
        None => ["CPUPerc", "MemPerc", "NetIO", "BlockIO", "PIDs"]
            .into_iter()
            .fold(row.with("MemUsage", "-- / --"), |row, name| row.with(name, "--")),
    }
}

fn used(row: Row, usage: &ContainerUsage) -> Row {
    let pair = |a, b| format!("{} / {}", human::size(a), human::size(b));
    let memory = format!("{} / {}", human::size_binary(usage.memory), human::size_binary(usage.memory_limit));
    row.with("CPUPerc", format!("{:.2}%", usage.cpu_percent))
        .with("MemUsage", memory)
        .with("MemPerc", format!("{:.2}%", percent(usage.memory, usage.memory_limit)))
        .with("NetIO", pair(usage.network_received, usage.network_sent))
        .with("BlockIO", pair(usage.block_read, usage.block_written))
        .with("PIDs", usage.pids.to_string())
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "shown with two places")]
    let share = part as f64 / whole as f64;
    share * 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(status: Status, usage: Option<ContainerUsage>) -> ContainerStats {
        ContainerStats {
            id: "128ec8ceab71".repeat(5),
            name: "web".into(),
            reference: "we".into(),
            status: status.into(),
            read_at: None,
            usage,
        }
    }

    fn render(format: Option<&str>, lines: Vec<ContainerStats>) -> String {
        let rows: Vec<_> = lines.into_iter().map(|line| row(line, false)).collect();
        Format::parse(format, TABLE).expect("format").render(&HEADERS, &rows).expect("render")
    }

    #[test]
    fn the_table_is_docker_s() {
        let usage = ContainerUsage {
            cpu_percent: 12.345,
            memory: 3 << 20,
            memory_limit: 1 << 30,
            block_read: 8190,
            pids: 7,
            ..Default::default()
        };
        assert_eq!(
            render(None, vec![line(Status::Running, Some(usage)), line(Status::Running, None)]),
            "CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT   MEM %     NET I/O   BLOCK I/O     PIDS\n\
             128ec8ceab71   web       12.35%    3MiB / 1GiB         0.29%     0B / 0B   8.19kB / 0B   7\n\
             128ec8ceab71   web       --        -- / --             --        --        --            --\n"
        );
    }

    #[test]
    fn what_does_not_run_uses_nothing() {
        assert_eq!(
            render(
                Some("{{.Container}} {{.CPUPerc}} {{.MemUsage}} {{.PIDs}}"),
                vec![line(Status::Exited, None)]
            ),
            "we 0.00% 0B / 0B 0\n"
        );
    }

    #[test]
    fn json_has_docker_s_names() {
        let text = render(Some("json"), vec![line(Status::Created, None)]);
        let value: serde_json::Value = serde_json::from_str(text.trim_end()).expect("one line of JSON");
        let mut names: Vec<_> = value.as_object().expect("an object").keys().map(String::as_str).collect();
        names.sort_unstable();
        let docker_s =
            ["BlockIO", "CPUPerc", "Container", "ID", "MemPerc", "MemUsage", "Name", "NetIO", "PIDs"];
        assert_eq!(names, docker_s);
    }
}

// SPDX-License-Identifier: Apache-2.0
//! `berth stats`, and what `berth top` shows of all containers.

use berth::api::v1::{
    ContainerStats, ContainerStatsRequest, ContainerUsage, TtySize, container_state::Status,
};

use crate::{
    cli::manage::{Look, Sort, Stats},
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
    show(context, args.containers, args.all, None, &args.look).await
}

/// Round after round; in the engine's order where there is no other.
pub(super) async fn show(
    context: &Context,
    containers: Vec<String>,
    all: bool,
    sort: Option<Sort>,
    look: &Look,
) -> Result<u8> {
    let format = Format::parse(look.format.as_deref(), TABLE)?;
    let request = ContainerStatsRequest {
        namespace: context.namespace.clone(),
        containers,
        all,
        stream: !look.no_stream,
        one_shot: false,
    };
    let live = !look.no_stream && terminal::stdout_is_terminal();
    let mut rounds = context.client.containers().stats(request).await?.into_inner();
    let mut before = CLEAR;
    while let Some(round) = rounds.message().await? {
        let mut containers = round.containers;
        if let Some(by) = sort {
            sorted(&mut containers, by);
        }
        let rows: Vec<Row> = containers.into_iter().map(|line| row(line, look.no_trunc)).collect();
        let text = format.render(&HEADERS, &rows)?;
        if live {
            let text = fitting(&text, terminal::size()).replace('\n', REST_OF_LINE);
            output::print(&format!("{}{HOME}{text}{REST_OF_SCREEN}", std::mem::take(&mut before)))?;
        } else {
            output::print(&text)?;
        }
    }
    Ok(0)
}

/// Most first; those that use nothing, or don't answer, last.
fn sorted(containers: &mut [ContainerStats], by: Sort) {
    let use_of = |line: &ContainerStats| {
        let Some(usage) = &line.usage else { return -1.0 };
        #[expect(clippy::cast_precision_loss, reason = "only compared")]
        let number = |n: u64| n as f64;
        match by {
            Sort::Cpu => usage.cpu_percent,
            Sort::Memory => number(usage.memory),
            Sort::Net => number(usage.network_received.saturating_add(usage.network_sent)),
            Sort::Block => number(usage.block_read.saturating_add(usage.block_written)),
            Sort::Pids => number(usage.pids),
            Sort::Name => 0.0,
        }
    };
    let more = |a: &ContainerStats, b: &ContainerStats| match by {
        Sort::Name => std::cmp::Ordering::Equal,
        _ => use_of(b).total_cmp(&use_of(a)),
    };
    containers.sort_by(|a, b| more(a, b).then_with(|| a.name.cmp(&b.name)));
}

/// As much as a screen shows: what is more would move it. The last line stays
/// free for the cursor.
fn fitting(text: &str, screen: Option<TtySize>) -> String {
    let Some(TtySize { rows, columns }) = screen else { return text.to_owned() };
    let rows = usize::try_from(rows).unwrap_or(usize::MAX).saturating_sub(1);
    let columns = usize::try_from(columns).unwrap_or(usize::MAX);
    let lines = text.lines().take(rows.max(1));
    lines.map(|line| line.chars().take(columns).chain(['\n']).collect::<String>()).collect()
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
    fn most_comes_first_and_who_does_not_answer_last() {
        let using = |name: &str, cpu_percent, memory| ContainerStats {
            name: name.to_owned(),
            usage: Some(ContainerUsage { cpu_percent, memory, ..Default::default() }),
            ..line(Status::Running, None)
        };
        let silent = ContainerStats { name: "a".into(), ..line(Status::Unknown, None) };
        for (by, order) in [
            (Sort::Cpu, "d,c,b,a"),
            (Sort::Memory, "b,c,d,a"),
            (Sort::Pids, "b,c,d,a"),
            (Sort::Name, "a,b,c,d"),
        ] {
            let mut all = [silent.clone(), using("b", 0.0, 9), using("c", 5.5, 9), using("d", 9.5, 8)];
            sorted(&mut all, by);
            assert_eq!(all.map(|one| one.name).join(","), order, "{by:?}");
        }
    }

    #[test]
    fn a_screen_shows_what_it_has_room_for() {
        let screen = |rows, columns| Some(TtySize { rows, columns });
        let text = "NAME  CPU\none   1\nzwölf 2\n";
        assert_eq!(fitting(text, None), text);
        assert_eq!(fitting(text, screen(4, 80)), text);
        assert_eq!(fitting(text, screen(3, 80)), "NAME  CPU\none   1\n");
        assert_eq!(fitting(text, screen(9, 3)), "NAM\none\nzwö\n");
        assert_eq!(fitting(text, screen(0, 1)), "N\n");
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

// SPDX-License-Identifier: Apache-2.0
//! Events: in order, and without a gap for a client that comes back.

use std::collections::BTreeMap;

use berth::api::v1;
use tokio_stream::StreamExt as _;

use crate::support::{Engine, Image, engine::with_busybox, until};

#[test]
fn a_containers_events_come_in_their_order() {
    let Some(engine) = with_busybox() else { return };
    let events = engine.background(&["events", "--filter", "type=container", "--format", "{{.Action}}"]);
    // The stream is in place once an event of a container that we repeat
    // arrives; what comes before the marker is of no interest.
    let mut tries = 0;
    crate::support::until("the subscription", || {
        tries += 1;
        engine.berth(&["create", "--name", &format!("marker{tries}"), "busybox"]).ok();
        events.output().contains("create").then_some(())
    });
    let before = tries;
    engine.berth(&["run", "--name", "ordered", "busybox", "sh", "-c", "exit 3"]).exits(3);
    engine.berth(&["rm", "ordered"]).ok();
    let seen = events.expect("destroy\n");
    let actions: Vec<_> =
        seen.lines().filter(|a| ["create", "start", "die", "destroy"].contains(a)).collect();
    let own = &actions[actions.len() - 4..];
    assert_eq!(own, ["create", "start", "die", "destroy"], "{seen}");
    assert!(actions.len() <= before + 4, "{seen}");
}

#[test]
fn what_was_is_replayed_and_ends_at_a_time() {
    let Some(engine) = with_busybox() else { return };
    engine.berth(&["run", "--name", "past", "busybox", "sh", "-c", "exit 3"]).exits(3);
    let flags =
        ["events", "--since", "1h", "--until", "0s", "--filter", "container=past", "--filter", "event=die"];
    let said = engine.berth(&[&flags[..], &["--format", "json"]].concat()).ok();
    let event: serde_json::Value = serde_json::from_str(said.line()).expect("one line of JSON");
    assert_eq!((&event["Type"], &event["Action"]), (&"container".into(), &"die".into()));
    assert_eq!(event["Actor"]["Attributes"]["exitCode"], "3");
    assert_eq!(event["Actor"]["Attributes"]["name"], "past");
}

#[test]
fn a_client_that_comes_back_misses_nothing_even_of_a_restart() {
    let Some(mut engine) = with_busybox() else { return };
    let address = engine.address();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");

    engine.berth(&["create", "--name", "first", "busybox"]).ok();
    // All so far, and the cursor of the last one.
    let (seen, cursor) = runtime.block_on(read(&address, 0, "create first"));
    assert!(seen.iter().any(|e| e == "load busybox:latest") || seen[0].starts_with("load"), "{seen:?}");

    // Nobody listens now.
    engine.berth(&["run", "-d", "--name", "second", "busybox", "sleep", "1000"]).ok();
    engine.kill9();
    engine.restart();
    engine.berth(&["kill", "second"]).ok();
    engine.wait("second");
    engine.berth(&["rm", "second"]).ok();

    let (mut seen, last) = runtime.block_on(read(&address, cursor, "destroy second"));
    // That of the signal may come after that of the end, which is as quick.
    let killed = seen.iter().position(|event| event == "kill second").expect("kill");
    assert!((2..4).contains(&killed), "{seen:?}");
    seen.remove(killed);
    assert_eq!(seen, ["create second", "start second", "die second", "destroy second"]);
    assert!(last > cursor);
}

/// Reads events after `cursor` up to the one that is `end`; as "action name",
/// with the last one's cursor. Cursors only ever grow.
async fn read(address: &str, cursor: u64, end: &str) -> (Vec<String>, u64) {
    let client = berth::Client::connect(address).await.expect("connect");
    let request = v1::SubscribeRequest { after: Some(cursor), ..Default::default() };
    let mut stream = client.events().subscribe(request).await.expect("subscribe").into_inner();
    let (mut seen, mut last) = (Vec::new(), cursor);
    let read = async {
        while let Some(message) = stream.try_next().await.expect("an event") {
            let Some(v1::subscribe_response::Kind::Event(event)) = message.kind else { continue };
            assert!(event.cursor > last, "{} after {last}", event.cursor);
            last = event.cursor;
            let name = event.attributes.get("name").cloned().unwrap_or_default();
            seen.push(format!("{} {name}", event.action));
            if seen.last().is_some_and(|s| s == end) {
                return;
            }
        }
        panic!("the stream ended");
    };
    tokio::time::timeout(crate::support::wait::DEADLINE, read).await.expect("the last event in time");
    (seen, last)
}

#[test]
fn two_listeners_see_the_same() {
    let Some(engine) = with_busybox() else { return };
    for n in 0..3 {
        engine.berth(&["run", "--rm", "--name", &format!("c{n}"), "busybox", "true"]).ok();
    }
    let replay = |engine: &Engine| engine.berth(&["events", "--since", "1h", "--until", "0s"]).ok().stdout;
    let (one, two) = (replay(&engine), replay(&engine));
    assert_eq!(one, two);
    assert_eq!(one.lines().filter(|l| l.contains(" container destroy ")).count(), 3, "{one}");
}

/// All that has happened, as (container or image, action).
fn replay(engine: &Engine, filters: &[&str]) -> Vec<(String, String)> {
    let mut args = vec!["events", "--since", "1h", "--until", "0s", "--format", "{{.Actor.ID}} {{.Action}}"];
    for filter in filters {
        args.extend(["--filter", filter]);
    }
    let said = engine.berth(&args).ok().stdout;
    let pair = |line: &str| line.split_once(' ').map(|(id, action)| (id.to_owned(), action.to_owned()));
    said.lines().filter_map(pair).collect()
}

#[test]
fn the_order_of_a_life_holds_under_load() {
    let Some(engine) = with_busybox() else { return };
    let eat = ["dd", "if=/dev/zero", "of=/dev/shm/fill", "bs=1M", "count=60"];
    let greedy = [&["-m", "16m", "--memory-swap", "16m", "busybox"][..], &eat].concat();
    let lives: [&[&str]; 4] = [
        &["busybox", "true"],
        &greedy,
        &["busybox", "sh", "-c", "exit 3"],
        &["busybox", "nothing-of-this-name"],
    ];
    for _ in 0..4 {
        let mut running: Vec<_> = (0..12)
            .map(|n| engine.background(&[&["run", "--rm"][..], lives[n % lives.len()]].concat()))
            .collect();
        for run in &mut running {
            run.wait();
        }
    }
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (id, action) in replay(&engine, &["type=container"]) {
        if ["create", "start", "oom", "die", "destroy"].contains(&action.as_str()) {
            all.entry(id).or_default().push(action);
        }
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for actions in all.values() {
        *counts.entry(actions.join(" ")).or_default() += 1;
    }
    let expected = [
        ("create destroy".to_owned(), 12),
        ("create start die destroy".to_owned(), 24),
        ("create start oom die destroy".to_owned(), 12),
    ];
    assert_eq!(counts, expected.into());
}

#[test]
fn every_filter_finds_its_own_and_nothing_else() {
    let Some(engine) = with_busybox() else { return };
    let health = ["--health-cmd", "true", "--health-interval", "100ms"];
    let flags = ["run", "-d", "--name", "web", "--label", "tier=front", "--label", "plain"];
    let id =
        engine.berth(&[&flags[..], &health, &["busybox", "sleep", "1000"]].concat()).ok().line().to_owned();
    engine.berth(&["create", "--name", "webs", "--label", "tier=back", "busybox"]).ok();
    engine.berth(&["exec", "web", "true"]).ok();
    engine.berth(&["tag", "busybox", "other:1"]).ok();
    until("it to be healthy", || (!replay(&engine, &["event=health_status"]).is_empty()).then_some(()));
    engine.berth(&["update", "--no-healthcheck", "web"]).ok();
    let all = replay(&engine, &[]);
    let wanted =
        |is: &dyn Fn(&(String, String)) -> bool| all.iter().filter(|e| is(e)).cloned().collect::<Vec<_>>();
    let own = wanted(&|(event, _)| *event == id);
    let containers = wanted(&|(event, _)| !event.starts_with("sha256:"));
    let images = wanted(&|(event, _)| event.starts_with("sha256:"));
    let action =
        |words: &'static [&'static str]| wanted(&move |(_, action)| words.contains(&action.as_str()));
    assert!(own.len() >= 5 && images.len() >= 2 && containers.len() > own.len(), "{all:?}");
    let image = images[0].0.clone();
    let (by_id, by_digest) = (format!("container={}", &id[..12]), format!("image={image}"));
    for (filters, expected) in [
        (&["type=container"][..], containers.clone()),
        (&["type=image"], images.clone()),
        (&["type=image", "type=container"], all.clone()),
        (&["type=network"], Vec::new()),
        (&["container=web"], own.clone()),
        (&[by_id.as_str()], own.clone()),
        (&["container=web", "container=webs"], containers.clone()),
        (&["event=create"], action(&["create"])),
        (&["event=create", "event=start"], action(&["create", "start"])),
        (&["event=health_status"], action(&["health_status: healthy"])),
        (&["event=health_status: healthy"], action(&["health_status: healthy"])),
        (&["event=exec_die"], action(&["exec_die"])),
        (&["label=tier"], containers.clone()),
        (&["label=tier=front"], own.clone()),
        (&["label=tier", "label=plain"], own.clone()),
        (&["label=tier=front", "label=tier=back"], Vec::new()),
        (&["image=busybox"], wanted(&|(event, action)| *event != image || action != "tag")),
        (&[by_digest.as_str()], images.clone()),
        (&["scope=local", "container=web"], own.clone()),
        (&["scope=swarm"], Vec::new()),
        (&["network=none"], Vec::new()),
        (&["volume=x"], Vec::new()),
        (&["daemon=x"], Vec::new()),
    ] {
        assert_eq!(replay(&engine, filters), expected, "{filters:?}");
    }
    engine.berth(&["events", "--filter", "colour=red"]).exits(1).complains(&["invalid filter 'colour'"]);
    engine.berth(&["events", "--filter", "colour"]).exits(125).complains(&["bad format of filter"]);
}

/// All events after `cursor`, up to the end of the container `last`, whatever
/// becomes of the engine meanwhile.
async fn follow(address: String, last: &str) -> Vec<(u64, String)> {
    let (mut cursor, mut seen) = (0, Vec::new());
    loop {
        let request = v1::SubscribeRequest { after: Some(cursor), ..Default::default() };
        let Ok(client) = berth::Client::connect(&address).await else { continue };
        let Ok(stream) = client.events().subscribe(request).await else { continue };
        let mut stream = stream.into_inner();
        while let Some(Ok(message)) = stream.next().await {
            let event = match message.kind {
                Some(v1::subscribe_response::Kind::Event(event)) => event,
                Some(v1::subscribe_response::Kind::Gap(gap)) => panic!("a gap: {gap:?}"),
                _ => continue,
            };
            cursor = event.cursor;
            seen.push((cursor, event.action.clone()));
            if event.action == "destroy" && event.attributes.get("name").is_some_and(|name| name == last) {
                return seen;
            }
        }
    }
}

#[test]
fn a_cursor_leads_over_dead_engines_without_a_gap_or_a_repeat() {
    let Some(mut engine) = with_busybox() else { return };
    let address = engine.address();
    let follower = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let all =
            async { tokio::time::timeout(4 * crate::support::wait::DEADLINE, follow(address, "last")).await };
        runtime.block_on(all).expect("the last event in time")
    });
    for round in 0..4 {
        let name = |n: u32| format!("c{round}-{n}");
        let names: Vec<_> = (0..4).map(name).collect();
        let mut running: Vec<_> = (names.iter())
            .map(|name| engine.background(&["run", "--name", name, "busybox", "sh", "-c", "sleep 0.1"]))
            .collect();
        let first = format!("container={}", names[0]);
        until("something to have happened", || (replay(&engine, &[&first]).len() > round % 3).then_some(()));
        engine.kill9();
        engine.restart();
        for run in &mut running {
            run.wait();
        }
    }
    engine.berth(&["run", "--rm", "--name", "last", "busybox", "true"]).ok();
    let followed = follower.join().expect("the follower");
    let format = ["--since", "1h", "--until", "0s", "--format", "{{.Cursor}} {{.Action}}"];
    let told = engine.berth(&[&["events"], &format[..]].concat()).ok().stdout;
    let told: Vec<_> = told
        .lines()
        .filter_map(|line| {
            line.split_once(' ').map(|(n, action)| (n.parse().expect("cursor"), action.to_owned()))
        })
        .collect();
    assert_eq!(followed, told);
}

#[test]
fn what_is_remembered_has_bounds_on_disk_and_who_comes_late_is_told() {
    const KEPT: usize = 100;
    let Some(mut engine) = Engine::start_with("[events]\nretain = 100\n") else { return };
    engine.load(&Image::busybox(), "busybox");
    engine.berth(&["create", "--name", "box", "busybox"]).ok();
    let database = engine.dir().join("root/meta.db");
    let rows = || {
        let meta = rusqlite::Connection::open(&database).expect("open");
        let count: i64 = meta.query_row("SELECT count(*) FROM events", (), |row| row.get(0)).expect("count");
        usize::try_from(count).expect("a count")
    };
    let address = engine.address();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let rename = |times: usize| {
        runtime.block_on(async {
            let client = berth::Client::connect(&address).await.expect("connect");
            for n in 0..times {
                let (from, to) = if n % 2 == 0 { ("box", "xob") } else { ("xob", "box") };
                let request = v1::RenameContainerRequest {
                    container: from.to_owned(),
                    new_name: to.to_owned(),
                    ..Default::default()
                };
                client.containers().rename(request).await.expect("rename");
            }
        });
    };
    rename(1500);
    until("the first events to be forgotten", || (rows() <= 1100).then_some(()));
    let size = std::fs::metadata(&database).expect("stat").len();
    rename(2200);
    until("those after them to be forgotten", || (rows() <= KEPT + 1100).then_some(()));
    let now = std::fs::metadata(&database).expect("stat").len();
    assert!(now <= size + size / 2, "{size} bytes, then {now}");
    engine.kill9();
    engine.restart();
    until("the next engine to forget the rest", || (rows() <= KEPT + 5).then_some(()));
    let late = engine.berth(&["events", "--after", "1", "--until", "0s", "--format", "{{.Action}}"]).ok();
    assert!(late.stderr.contains("are no longer kept"), "{}", late.stderr);
    assert_eq!(late.stdout.lines().count(), rows());
}

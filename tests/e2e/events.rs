// SPDX-License-Identifier: Apache-2.0
//! Events: in order, and without a gap for a client that comes back.

use berth::api::v1;
use tokio_stream::StreamExt as _;

use crate::support::{Engine, engine::with_busybox};

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

    let (seen, last) = runtime.block_on(read(&address, cursor, "destroy second"));
    assert_eq!(seen, ["create second", "start second", "kill second", "die second", "destroy second"]);
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

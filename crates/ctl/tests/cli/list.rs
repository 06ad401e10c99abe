// SPDX-License-Identifier: Apache-2.0
//! Tables, templates and JSON of `ps`, `images`, `inspect`, `info`, `events`.

use std::time::{SystemTime, UNIX_EPOCH};

use berth::api::v1::{Container, ContainerState, ContainerSummary, Event, container_state::Status};

use crate::engine::{Engine, ID, NAME, Script, image};

fn container() -> ContainerSummary {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("clock").as_secs();
    let ago = |hours: u64| {
        Some(prost_types::Timestamp { seconds: i64::try_from(now - hours * 3600).expect("time"), nanos: 0 })
    };
    ContainerSummary {
        id: ID.into(),
        name: NAME.into(),
        image: "hello-world".into(),
        command: vec!["/hello".into()],
        created_at: ago(5),
        state: Some(ContainerState {
            status: Status::Exited.into(),
            exit_code: 3,
            finished_at: ago(4),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[test]
fn ps_in_every_form() {
    let engine = Engine::new(Script { containers: vec![container()], ..Default::default() });
    assert_eq!(
        engine.berth(&["ps", "-a"]).stdout,
        "CONTAINER ID   IMAGE         COMMAND    CREATED       STATUS                   PORTS     NAMES\n\
         128ec8ceab71   hello-world   \"/hello\"   5 hours ago   Exited (3) 4 hours ago             exciting_chebyshev\n"
    );
    assert_eq!(engine.berth(&["ps", "-q"]).stdout, "128ec8ceab71\n");
    assert_eq!(engine.berth(&["ps", "-q", "--no-trunc"]).stdout, format!("{ID}\n"));
    assert_eq!(
        engine.berth(&["container", "ls", "--format", "{{.Names}}={{.State}}"]).stdout,
        format!("{NAME}=exited\n")
    );
    let json = engine.berth(&["ps", "--format", "json"]).stdout;
    let value: serde_json::Value = serde_json::from_str(&json).expect("json");
    assert_eq!(value["Names"], NAME);
    engine.seen().calls.clear();
    engine.berth(&["ps", "-l", "-f", "status=exited", "-f", "name=x"]);
    assert_eq!(engine.seen().calls, ["list all=false limit=1 filters=2"]);
    let wrong = engine.berth(&["ps", "--format", "{{.Nope}}"]);
    assert_eq!(wrong.code, 1);
    assert!(wrong.stderr.contains("can't evaluate field Nope"), "{wrong:?}");
}

#[test]
fn an_empty_list_has_a_header() {
    let engine = Engine::new(Script::default());
    assert_eq!(
        engine.berth(&["ps"]).stdout,
        "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES\n"
    );
    assert_eq!(engine.berth(&["images"]).stdout, "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE\n");
}

#[test]
fn images_have_decimal_sizes() {
    let engine = Engine::new(Script { images: vec![image("hello-world:latest")], ..Default::default() });
    let table = engine.berth(&["images"]).stdout;
    assert!(table.starts_with("REPOSITORY    TAG       IMAGE ID       CREATED        SIZE\nhello-world   latest    1c46c8a3e01e   "), "{table}");
    assert!(table.ends_with("1.24MB\n"), "{table}");
}

#[test]
fn inspect_finds_containers_and_images() {
    let container = Container {
        id: ID.into(),
        name: "web".into(),
        state: Some(ContainerState { exit_code: 3, ..Default::default() }),
        ..Default::default()
    };
    let engine = Engine::new(Script {
        images: vec![image("img:latest")],
        inspect: [("web".to_owned(), container)].into(),
        ..Default::default()
    });
    let both: serde_json::Value =
        serde_json::from_str(&engine.berth(&["inspect", "web", "img:latest"]).stdout).expect("json");
    assert_eq!(both[0]["Name"], "/web");
    assert_eq!(both[1]["RepoTags"][0], "img:latest");
    assert_eq!(engine.berth(&["inspect", "-f", "{{.State.ExitCode}}", "web"]).stdout, "3\n");
    let missing = engine.berth(&["inspect", "nope"]);
    assert_eq!(
        (missing.code, missing.stdout.as_str(), missing.stderr.as_str()),
        (1, "[]\n", "Error: No such object: nope\n")
    );
    assert_eq!(engine.berth(&["image", "inspect", "web"]).stderr, "Error: No such image: web\n");
}

#[test]
fn events_and_info() {
    let event = Event {
        cursor: 1,
        time: Some(prost_types::Timestamp { seconds: 1_763_939_358, nanos: 123_456_789 }),
        r#type: "container".into(),
        action: "start".into(),
        id: ID.into(),
        attributes: [("image".to_owned(), "img".to_owned())].into(),
        ..Default::default()
    };
    let engine = Engine::new(Script { events: vec![event], ..Default::default() });
    assert_eq!(
        engine.berth(&["events", "--since", "1h", "--until", "0s"]).stdout,
        format!("2025-11-23T23:09:18.123456789Z container start {ID} (image=img)\n")
    );
    let info = engine.berth(&["info"]);
    assert!(info.stdout.contains("\n Images: 4\n"), "{info:?}");
    assert_eq!(info.stderr, "WARNING: no swap limit\n");
    assert_eq!(engine.berth(&["version", "-f", "{{.Server.Version}}"]).stdout, "9.9.9\n");
}

#[test]
fn top_is_a_table_that_moves_no_cursor() {
    let engine = Engine::new(Script::default());
    assert_eq!(
        engine.berth(&["top", "web", "-eo", "pid,args"]).stdout,
        "PID                 CMD\n7                   x\\x1b[2J\n"
    );
    assert!(engine.seen().calls.contains(&r#"top web ["-eo", "pid,args"]"#.to_owned()));
}

#[test]
fn diff_is_a_line_a_change() {
    let engine = Engine::new(Script::default());
    assert_eq!(engine.berth(&["diff", "web"]).stdout, "C /etc\nA /etc/\\x1b[2J\\nx\nD /etc/old\n");
}

#[test]
fn prune_asks_first_and_hands_its_filters_on() {
    let engine = Engine::new(Script::default());
    let asked = engine.berth(&["container", "prune"]);
    assert!(asked.stderr.is_empty() && asked.stdout.ends_with("Are you sure you want to continue? [y/N] "));
    assert!(engine.seen().calls.is_empty(), "nobody said yes");
    let args = ["--filter", "until=7", "--filter", "label=a=b", "--filter", "label!=keep"];
    let done = engine.berth(&[&["container", "prune", "-f"][..], &args].concat());
    assert_eq!(done.stdout, format!("Deleted Containers:\n{ID}\n\nTotal reclaimed space: 1.24MB\n"));
    assert_eq!(engine.seen().calls, [r#"prune Some(7) ["a=b"] ["keep"]"#]);
    let bad = engine.berth(&["container", "prune", "-f", "--filter", "colour=red"]);
    assert!(bad.stderr.contains("invalid filter 'colour'"), "{}", bad.stderr);
}

#[test]
fn prunes_ask_first_and_say_what_they_did() {
    let engine = Engine::new(Script::default());
    let done = "Deleted Images:\nuntagged: a:1\ndeleted: sha256:ab\n\nTotal reclaimed space: 1kB\n";
    // A prune of the system removes a container of 1.24 MB as well.
    let sum = |arguments: &[&str]| if arguments[0] == "system" { "reclaimed space: 1.24MB\n" } else { done };
    let ask = "Are you sure you want to continue? [y/N] ";
    for (arguments, warning) in [
        (&["image", "prune"][..], "WARNING! This will remove all dangling images.\n"),
        (
            &["image", "prune", "-a"],
            "WARNING! This will remove all images without at least one container associated to them.\n",
        ),
        (
            &["system", "prune", "--filter", "until=2h"],
            "WARNING! This will remove:\n  - all stopped containers\n  - all dangling images\n\n  \
             Items to be pruned will be filtered with:\n  - until=2h\n\n",
        ),
    ] {
        let no = engine.berth_with(arguments, "\n", &[]);
        assert_eq!((no.code, no.stdout), (0, format!("{warning}{ask}")), "{arguments:?}");
        let yes = engine.berth_with(arguments, "y\n", &[]);
        assert!(yes.stdout.starts_with(&format!("{warning}{ask}")), "{yes:?}");
        assert!(yes.stdout.ends_with(sum(arguments)), "{yes:?}");
    }
    assert!(engine.berth(&["image", "prune", "-f"]).stdout.ends_with(done));
    let dry = engine.berth(&["image", "prune", "-a", "--dry-run"]).stdout;
    assert!(dry.starts_with("Images that would be deleted:\n") && !dry.contains("reclaimed space"), "{dry}");
    let wrong = engine.berth(&["image", "prune", "-f", "--filter", "color=red"]);
    assert_eq!((wrong.code, wrong.stderr.as_str()), (1, "invalid filter 'color'\n"));
    engine.seen().calls.clear();
    assert_eq!(engine.berth(&["image", "pin", "a", "b"]).stdout, "a\nb\n");
    engine.berth(&["image", "unpin", "a"]);
    let mut calls = engine.seen().calls.clone();
    calls[..2].sort();
    assert_eq!(calls, ["pin a true", "pin b true", "pin a false"]);
}

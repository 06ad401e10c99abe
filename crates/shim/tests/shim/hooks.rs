// SPDX-License-Identifier: Apache-2.0
//! Hooks at the calls of the Task service. They run in the bundle's directory.

use std::fs;

use berth::{api::shim::CreateOptions, ttrpc::Code};
use serde_json::{Value, json};

use crate::harness::{Shim, spec};

fn shell(script: &str) -> Value {
    json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}])
}

/// Writes its name and what it is told of the container.
fn note(name: &str) -> Value {
    shell(&format!("echo {name} $(tr -d ' ' | grep -o '\"status\":\"[a-z]*\"') >>hooks"))
}

fn with_hooks(args: &[&str], hooks: Value) -> Option<Shim> {
    let mut spec = spec(args);
    spec["hooks"] = hooks;
    Shim::with_spec(spec)
}

fn notes(shim: &Shim) -> String {
    fs::read_to_string(shim.path("hooks")).unwrap_or_default()
}

#[tokio::test]
async fn hooks_have_run_when_their_call_answers() {
    let hooks = json!({
        "prestart": note("prestart"), "createRuntime": note("createRuntime"),
        "poststart": note("poststart"), "poststop": note("poststop"),
    });
    let Some(shim) = with_hooks(&["sh", "-c", "exit 3"], hooks) else { return };
    let engine = shim.connect().await;
    engine.create(CreateOptions::default()).await.unwrap();
    let created = "prestart \"status\":\"created\"\ncreateRuntime \"status\":\"creating\"\n";
    assert_eq!(notes(&shim), created);
    engine.start().await.unwrap();
    let started = format!("{created}poststart \"status\":\"running\"\n");
    assert_eq!(notes(&shim), started);
    assert_eq!(engine.wait().await.unwrap().exit_status, 3);
    assert_eq!(notes(&shim), started, "nobody has deleted it");
    engine.delete().await.unwrap();
    assert_eq!(notes(&shim), format!("{started}poststop \"status\":\"stopped\"\n"));
}

#[tokio::test]
async fn a_failing_hook_of_the_start_ends_the_container() {
    let hooks = json!({"poststart": shell("echo why >&2; exit 4"), "poststop": note("poststop")});
    let Some(shim) = with_hooks(&["sleep", "1000"], hooks) else { return };
    let engine = shim.connect().await;
    engine.create(CreateOptions::default()).await.unwrap();
    let e = engine.start().await.unwrap_err();
    let expected =
        "error running poststart hook #0: /bin/sh: exit status 4, stdout: , stderr: why".to_owned();
    assert_eq!((e.code, e.message), (Code::Internal, expected));
    assert_eq!(engine.wait().await.unwrap().exit_status, 137);
    engine.delete().await.unwrap();
    assert_eq!(notes(&shim), "poststop \"status\":\"stopped\"\n");
}

#[tokio::test]
async fn a_failing_hook_of_the_creation_leaves_nothing() {
    let hooks = json!({"createRuntime": shell("exit 4"), "poststop": note("poststop")});
    let Some(shim) = with_hooks(&["sleep", "1000"], hooks) else { return };
    let engine = shim.connect().await;
    let e = engine.create(CreateOptions::default()).await.unwrap_err();
    assert!(e.message.starts_with("error running createRuntime hook #0"), "{}", e.message);
    assert_eq!(notes(&shim), "poststop \"status\":\"stopped\"\n");
    assert_eq!(engine.start().await.unwrap_err().code, Code::NotFound);
}

// SPDX-License-Identifier: Apache-2.0
//! What can't be done is said in the words that callers know, and leaves
//! nothing.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::harness::Host;

#[test]
fn verbs_in_the_wrong_state() {
    let host = Host::sleeper();
    for line in
        ["start ID", "kill ID", "delete ID", "pause ID", "ps ID", "update --memory 1g ID", "events ID"]
    {
        assert_eq!(host.run(line).error_message(), "container does not exist", "{line}");
    }
    assert_eq!(host.run("delete --force ID").status, 0);
    host.run("create --bundle BUNDLE ID").ok();
    let exists = host.run("create --bundle BUNDLE ID").error_message();
    assert!(exists.contains("container with given ID already exists"), "{exists}");
    host.run("start ID").ok();
    assert_eq!(host.run("start ID").error_message(), "cannot start an already running container");
    let why = format!("cannot delete container {} that is not stopped: running", host.id);
    assert_eq!(host.run("delete ID").error_message(), why);
    assert_eq!(host.run("resume ID").error_message(), "container not paused");
    host.run("pause ID").ok();
    assert_eq!(host.run("pause ID").error_message(), "container not running");
    assert_eq!(host.run("start ID").error_message(), "cannot start a container in the paused state");
    host.run("resume ID").ok();
    host.run("kill ID KILL").ok();
    crate::harness::wait_until("the end", || host.status() == "stopped");
    for line in ["kill ID", "pause ID", "update --memory 1g ID"] {
        assert_eq!(host.run(line).error_message(), "container not running", "{line}");
    }
    let events = host.run("events --stats ID").error_message();
    assert_eq!(events, format!("container with id {} is not running", host.id));
}

#[test]
fn command_lines_that_mean_nothing() {
    let host = Host::sleeper();
    for (line, message) in [
        ("create --bundle BUNDLE a/b", "create failed: invalid container ID format"),
        ("create --bundle BUNDLE ..", "create failed: invalid container ID format"),
        ("state", "berth-oci: \"state\" requires exactly 1 argument(s)"),
        ("state a b", "berth-oci: \"state\" requires exactly 1 argument(s)"),
        ("state --nothing ID", "flag provided but not defined: -nothing"),
        ("kill ID NOTHING", "unknown signal \"NOTHING\""),
        ("events --interval 0s ID", "duration interval must be greater than 0"),
        ("list --format xml", "invalid format option"),
        ("--log-format xml list", "invalid log-format: xml"),
        ("nothing", "No help topic for 'nothing'"),
        ("checkpoint ID", "checkpoint is not supported"),
        ("restore ID", "restore is not supported"),
    ] {
        let ran = host.run(line);
        assert_eq!((ran.status, ran.error_message().as_str()), (1, message), "{line}");
    }
}

#[test]
fn bundles_that_are_none() {
    let mut host = Host::sleeper();
    let create = |host: &Host| {
        let message = host.run("create --bundle BUNDLE ID").error_message();
        host.assert_gone();
        message
    };
    host.spec["ociVersion"] = json!("2.0.0");
    assert!(create(&host).contains("ociVersion: \"2.0.0\" is not supported"));
    host.spec["ociVersion"] = json!("1.0.0");
    host.spec["process"]["args"] = json!([]);
    assert!(create(&host).contains("process.args"));
    host.spec["process"]["args"] = json!(["true"]);
    host.spec["process"]["terminal"] = json!(true);
    let why = "create failed: cannot allocate tty if runc will detach without setting console socket";
    assert_eq!(create(&host), why);
    host.spec["process"]["terminal"] = json!(false);
    let why = "create failed: cannot use console socket if runc will not detach or allocate tty";
    assert_eq!(host.run("create --bundle BUNDLE --console-socket /none ID").error_message(), why);
    let why = host.run("create --bundle /none ID").error_message();
    assert!(why.contains("/none: No such file or directory"), "{why}");
    let command = host.command();
    drop(command);
    let empty = host.path("empty");
    fs::create_dir(&empty).unwrap();
    let why = host.run("create --bundle DIR/empty ID").error_message();
    assert_eq!(why, "create failed: JSON specification file config.json not found");
    fs::write(empty.join("config.json"), "{\"ociVersion\":").unwrap();
    let why = host.run("create --bundle DIR/empty ID").error_message();
    assert!(why.starts_with("create failed: config.json: "), "{why}");
}

#[test]
fn errors_go_to_the_log_as_json_and_to_standard_error() {
    let host = Host::sleeper();
    let ran = host.run("--log DIR/log --log-format json state none");
    assert_eq!((ran.status, ran.stderr.as_str()), (1, "container does not exist\n"));
    let line = fs::read_to_string(host.path("log")).unwrap();
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&value["level"], &value["msg"]), (&json!("error"), &json!("container does not exist")));
}

#[test]
fn a_creation_that_is_killed_at_any_moment_leaves_what_delete_removes() {
    let host = Host::sleeper();
    for cut in 0..25 {
        let mut create = host.spawn("create --bundle BUNDLE ID");
        let moment = Instant::now() + Duration::from_micros(500 * cut);
        while Instant::now() < moment {
            std::thread::yield_now();
        }
        create.kill().unwrap();
        create.wait().unwrap();
        host.run("delete --force ID").ok();
        host.assert_gone();
    }
}

#[test]
fn what_a_cut_off_creation_left_is_removed() {
    let host = Host::sleeper();
    let dir = host.path("root").join(&host.id);
    fs::create_dir_all(&dir).unwrap();
    assert_eq!(host.run("state ID").error_message(), "container does not exist");
    assert_eq!(host.run("delete ID").error_message(), "container does not exist");
    assert!(!dir.exists());
    fs::create_dir_all(&dir).unwrap();
    host.run("delete --force ID").ok();
    assert!(!dir.exists());
}

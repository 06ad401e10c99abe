// SPDX-License-Identifier: Apache-2.0
//! `berth logs` and `berth wait`.

use berth::api::v1::LogsResponse;

use crate::engine::{Ended, Engine, Of, Script};

fn line(stream: Of, data: &'static str) -> LogsResponse {
    LogsResponse {
        stream: stream.into(),
        timestamp: Some(prost_types::Timestamp { seconds: 1_763_939_358, nanos: 5 }),
        data: data.into(),
        ..LogsResponse::default()
    }
}

#[test]
fn each_stream_goes_to_its_own() {
    let engine = Engine::new(Script {
        log: vec![line(Of::Stdout, "out\n"), line(Of::Stderr, "err\n")],
        ..Default::default()
    });
    let result = engine.berth(&["logs", "-f", "-n", "5", "web"]);
    assert_eq!(result, Ended { code: 0, stdout: "out\n".into(), stderr: "err\n".into() });
    assert_eq!(engine.seen().calls, ["logs follow=true tail=Some(5)"]);
    assert_eq!(engine.berth(&["logs", "-t", "web"]).stdout, "2025-11-23T23:09:18.000000005Z out\n");
    let missing = engine.berth(&["logs", "missing"]);
    assert_eq!(
        (missing.code, missing.stderr.as_str()),
        (1, "Error response from engine: No such container: missing\n")
    );
}

#[test]
fn wait_prints_the_exit_code() {
    let engine = Engine::new(Script { exit: Some(9), ..Default::default() });
    assert_eq!(engine.berth(&["start", "web"]).stdout, "web\n");
    assert_eq!(
        engine.berth(&["wait", "web"]),
        Ended { code: 0, stdout: "9\n".into(), stderr: String::new() }
    );
    assert_eq!(engine.berth(&["wait", "missing"]).code, 1);
}

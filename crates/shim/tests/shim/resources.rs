// SPDX-License-Identifier: Apache-2.0
//! Counters and limits over the Task service.

use berth::{
    api::{
        metrics::{v1, v2},
        shim::CreateOptions,
        task::{KillRequest, StatsRequest, StatsResponse, UpdateTaskRequest},
    },
    ttrpc::{Code, Status},
};
use prost::Message as _;
use prost_types::Any;
use serde_json::{Value, json};

use crate::harness::{Engine, ID, Shim};

/// What the test looks at, whichever version the host has.
struct Seen {
    cpu: u64,
    memory_limit: u64,
    pids_limit: u64,
}

async fn stats(engine: &Engine) -> Result<Seen, Status> {
    let request = StatsRequest { id: ID.to_owned() };
    let any = engine.call::<StatsResponse>("Stats", &request).await?.stats.unwrap();
    if any.type_url == "io.containerd.cgroups.v1.Metrics" {
        let metrics = v1::Metrics::decode(&*any.value).unwrap();
        let memory_limit = metrics.memory.unwrap().usage.unwrap().limit;
        let cpu = metrics.cpu.unwrap().usage.unwrap().total;
        return Ok(Seen { cpu, memory_limit, pids_limit: metrics.pids.unwrap().limit });
    }
    assert_eq!(any.type_url, "io.containerd.cgroups.v2.Metrics");
    let metrics = v2::Metrics::decode(&*any.value).unwrap();
    let memory_limit = metrics.memory.unwrap().usage_limit;
    Ok(Seen { cpu: metrics.cpu.unwrap().usage_usec, memory_limit, pids_limit: metrics.pids.unwrap().limit })
}

async fn update(engine: &Engine, type_url: &str, resources: &Value) -> Result<(), Status> {
    let any = Any { type_url: type_url.to_owned(), value: resources.to_string().into_bytes() };
    let request =
        UpdateTaskRequest { id: ID.to_owned(), resources: Some(any), annotations: Default::default() };
    engine.call("Update", &request).await
}

const LINUX: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

#[tokio::test]
async fn limits_change_and_the_counters_show_it() {
    let Some(shim) = Shim::new("while :; do :; done") else { return };
    let engine = shim.connect().await;
    assert_eq!(stats(&engine).await.err().unwrap().code, Code::NotFound, "before Create");
    engine.create(CreateOptions::default()).await.unwrap();
    engine.start().await.unwrap();
    let before = stats(&engine).await.unwrap();
    let limits = json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 33}});
    update(&engine, LINUX, &limits).await.unwrap();
    let after = stats(&engine).await.unwrap();
    assert_eq!((after.memory_limit, after.pids_limit), (67_108_864, 33));
    assert_ne!(before.memory_limit, after.memory_limit);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while stats(&engine).await.unwrap().cpu <= before.cpu {
        assert!(std::time::Instant::now() < deadline, "its time is counted");
    }
    // Without a limit nothing is limited to nothing (C07).
    update(&engine, LINUX, &json!({"pids": {}})).await.unwrap();
    assert_eq!(stats(&engine).await.unwrap().pids_limit, 33);
}

#[tokio::test]
async fn a_bad_update_says_which_field_is_bad() {
    let Some(shim) = Shim::new("sleep 1000") else { return };
    let engine = shim.connect().await;
    engine.create(CreateOptions::default()).await.unwrap();
    let e = update(&engine, LINUX, &json!({"cpu": {"cpus": "4000-4095"}})).await.unwrap_err();
    assert_eq!(e.code, Code::InvalidArgument);
    assert!(e.message.contains("linux.resources.cpu.cpus"), "{}", e.message);
    let e = update(&engine, "types.containerd.io/x/WindowsResources", &json!({})).await.unwrap_err();
    assert_eq!(e.code, Code::InvalidArgument);
    engine.start().await.unwrap();
    let kill = KillRequest { id: ID.to_owned(), signal: 9, ..Default::default() };
    engine.call::<()>("Kill", &kill).await.unwrap();
    engine.wait().await.unwrap();
    let ended = stats(&engine).await.err().unwrap();
    assert_eq!(ended.code, Code::FailedPrecondition, "there is nothing left to count");
}

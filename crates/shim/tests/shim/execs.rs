// SPDX-License-Identifier: Apache-2.0
//! Processes that join a container: streams, signals, ends.

use berth::{
    api::{
        shim::{AttachOpen, CreateOptions, ExecOptions},
        task::{
            DeleteRequest, DeleteResponse, ExecProcessRequest, KillRequest, PidsRequest, PidsResponse,
            ResizePtyRequest, StartRequest, StartResponse, StateRequest, StateResponse, WaitRequest,
            WaitResponse,
        },
        task_types::Status as TaskStatus,
    },
    attach::Kind,
    ttrpc::{Code, Status},
};
use prost::Message as _;
use serde_json::json;

use crate::harness::{Attached, Engine, ID, Shim};

/// A process of Exec, by its id.
pub(crate) struct Exec<'a> {
    engine: &'a Engine,
    id: &'a str,
}

impl<'a> Exec<'a> {
    async fn add(engine: &'a Engine, id: &'a str, script: &str) -> Self {
        Self::add_with(engine, id, script, |_, _| {}).await
    }

    pub(crate) async fn add_with(
        engine: &'a Engine,
        id: &'a str,
        script: &str,
        change: impl FnOnce(&mut ExecOptions, &mut ExecProcessRequest),
    ) -> Self {
        let process = json!({
            "args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0},
        });
        let mut options = ExecOptions { process: process.to_string().into(), ..Default::default() };
        let mut request =
            ExecProcessRequest { id: ID.to_owned(), exec_id: id.to_owned(), ..Default::default() };
        change(&mut options, &mut request);
        request.spec = Some(prost_types::Any {
            type_url: "berth.shim.v1.ExecOptions".to_owned(),
            value: options.encode_to_vec(),
        });
        engine.call::<()>("Exec", &request).await.unwrap();
        Self { engine, id }
    }

    pub(crate) async fn start(&self) -> Result<u32, Status> {
        let request = StartRequest { id: ID.to_owned(), exec_id: self.id.to_owned() };
        self.engine.call("Start", &request).await.map(|answer: StartResponse| answer.pid)
    }

    pub(crate) async fn wait(&self) -> u32 {
        let request = WaitRequest { id: ID.to_owned(), exec_id: self.id.to_owned() };
        self.engine.call::<WaitResponse>("Wait", &request).await.unwrap().exit_status
    }

    async fn kill(&self, signal: i32, all: bool) -> Result<(), Status> {
        let signal = signal.unsigned_abs();
        let request = KillRequest { id: ID.to_owned(), exec_id: self.id.to_owned(), signal, all };
        self.engine.call("Kill", &request).await
    }

    pub(crate) async fn delete(&self) -> Result<DeleteResponse, Status> {
        let request = DeleteRequest { id: ID.to_owned(), exec_id: self.id.to_owned() };
        self.engine.call("Delete", &request).await
    }

    async fn status(&self) -> Result<TaskStatus, Status> {
        let request = StateRequest { id: ID.to_owned(), exec_id: self.id.to_owned() };
        self.engine.call("State", &request).await.map(|state: StateResponse| state.status())
    }

    /// A client that misses nothing.
    async fn attach(&self, shim: &Shim) -> Attached {
        let open = AttachOpen {
            stdin: true,
            stdout: true,
            stderr: true,
            exec_id: self.id.to_owned(),
            wait: true,
            ..AttachOpen::default()
        };
        shim.attach(open).await.ready().await
    }
}

/// A container that goes on until it is killed.
async fn container() -> Option<(Shim, Engine)> {
    let shim = Shim::new("exec sleep 1000")?;
    let engine = shim.connect().await;
    engine.create(CreateOptions::default()).await.unwrap();
    engine.start().await.unwrap();
    Some((shim, engine))
}

#[tokio::test]
async fn its_output_is_whole_and_its_exit_code_its_own() {
    let Some((shim, engine)) = container().await else { return };
    let exec = Exec::add(&engine, "e1", "seq 1 40000; echo err >&2; exit 7").await;
    assert_eq!(exec.status().await.unwrap(), TaskStatus::Created);
    let mut client = exec.attach(&shim).await;
    let pid = exec.start().await.unwrap();
    assert!(pid > 0);
    let expected: String = (1..=40_000).map(|n| format!("{n}\n")).collect();
    let seen = client.rest().await;
    assert!(seen.stdout == expected.as_bytes(), "{} bytes", seen.stdout.len());
    assert_eq!(seen.stderr, b"err\n");
    assert_eq!(exec.wait().await, 7);
    assert_eq!(exec.status().await.unwrap(), TaskStatus::Stopped);
    assert_eq!(exec.delete().await.unwrap().exit_status, 7);
    assert_eq!(exec.status().await.expect_err("deleted").code, Code::NotFound);
}

#[tokio::test]
async fn a_program_that_is_not_there_is_said_and_ends_its_clients() {
    let Some((shim, engine)) = container().await else { return };
    let exec = Exec::add_with(&engine, "e1", "", |options, _| {
        let process = json!({"args": ["/bin/nothing"], "cwd": "/", "user": {"uid": 0, "gid": 0}});
        options.process = process.to_string().into();
    })
    .await;
    let mut client = exec.attach(&shim).await;
    let error = exec.start().await.expect_err("not there");
    assert_eq!(error.code, Code::NotFound);
    assert!(error.message.contains("/bin/nothing"), "{}", error.message);
    assert_eq!(client.rest().await, crate::harness::Seen::default());
    assert_eq!(exec.wait().await, 127);
    exec.delete().await.unwrap();
}

#[tokio::test]
async fn what_it_leaves_behind_keeps_nobody_and_lives_on() {
    let Some((shim, engine)) = container().await else { return };
    let script = "(sleep 1000 | cat) & echo started";
    let exec = Exec::add(&engine, "e1", script).await;
    let mut client = exec.attach(&shim).await;
    exec.start().await.unwrap();
    assert_eq!(client.rest().await.stdout, b"started\n");
    assert_eq!(exec.wait().await, 0);
    exec.delete().await.unwrap();
    let pids: PidsResponse = engine.call("Pids", &PidsRequest { id: ID.to_owned() }).await.unwrap();
    assert!(pids.processes.len() >= 3, "{pids:?}");
}

#[tokio::test]
async fn what_a_filter_prints_after_it_is_not_lost() {
    let Some((shim, engine)) = container().await else { return };
    let exec = Exec::add(&engine, "e1", "(sleep 0.1; echo late) & exit 3").await;
    let mut client = exec.attach(&shim).await;
    exec.start().await.unwrap();
    assert_eq!(client.rest().await.stdout, b"late\n");
    assert_eq!(exec.wait().await, 3);
}

#[tokio::test]
async fn signals_go_to_it_alone() {
    let Some((_shim, engine)) = container().await else { return };
    let exec = Exec::add(&engine, "e1", "exec sleep 1000").await;
    assert_eq!(exec.kill(15, false).await.expect_err("not started").code, Code::FailedPrecondition);
    exec.start().await.unwrap();
    assert_eq!(exec.delete().await.expect_err("runs").code, Code::FailedPrecondition);
    exec.kill(15, false).await.unwrap();
    assert_eq!(exec.wait().await, 143);
    assert_eq!(exec.kill(15, false).await.expect_err("ended").code, Code::NotFound);
    let state: StateResponse =
        engine.call("State", &StateRequest { id: ID.to_owned(), ..Default::default() }).await.unwrap();
    assert_eq!(state.status(), TaskStatus::Running);
}

#[tokio::test]
async fn input_ends_when_its_client_leaves() {
    let Some((shim, engine)) = container().await else { return };
    let exec = Exec::add_with(&engine, "e1", "cat; exit 5", |options, _| {
        (options.open_stdin, options.stdin_once) = (true, true);
    })
    .await;
    let mut client = exec.attach(&shim).await;
    exec.start().await.unwrap();
    client.send(Kind::Stdin, b"through").await;
    assert_eq!(client.until(|seen| seen.stdout.len() == 7).await.stdout, b"through");
    drop(client);
    assert_eq!(exec.wait().await, 5);
}

#[tokio::test]
async fn one_that_is_bound_to_its_client_ends_with_it() {
    let Some((shim, engine)) = container().await else { return };
    let exec = Exec::add_with(&engine, "e1", "echo up; sleep 1000", |options, _| {
        options.kill_on_disconnect = true;
    })
    .await;
    let mut client = exec.attach(&shim).await;
    exec.start().await.unwrap();
    client.until(|seen| seen.stdout == b"up\n").await;
    drop(client);
    assert_eq!(exec.wait().await, 137);
}

#[tokio::test]
async fn a_terminal_has_the_size_that_was_asked_for_last() {
    let Some((shim, engine)) = container().await else { return };
    let exec =
        Exec::add_with(&engine, "e1", "stty size; tty_now=1; read x; stty size", |options, request| {
            request.terminal = true;
            options.open_stdin = true;
        })
        .await;
    let resize =
        |height, width| ResizePtyRequest { id: ID.to_owned(), exec_id: "e1".to_owned(), width, height };
    // Before there is a terminal.
    engine.call::<()>("ResizePty", &resize(31, 97)).await.unwrap();
    let mut client = exec.attach(&shim).await;
    assert_eq!(client.tty, Some(true));
    exec.start().await.unwrap();
    client.until(|seen| seen.stdout.ends_with(b"31 97\r\n")).await;
    engine.call::<()>("ResizePty", &resize(40, 120)).await.unwrap();
    client.send(Kind::Stdin, b"\n").await;
    assert!(client.rest().await.stdout.ends_with(b"40 120\r\n"));
    assert_eq!(exec.wait().await, 0);
}

#[tokio::test]
async fn ids_are_unique_and_belong_to_a_container_that_runs() {
    let Some(shim) = Shim::new("exec sleep 1000") else { return };
    let engine = shim.connect().await;
    let request = |spec: Option<prost_types::Any>| ExecProcessRequest {
        id: ID.to_owned(),
        exec_id: "e1".to_owned(),
        spec,
        ..Default::default()
    };
    let process = prost_types::Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".to_owned(),
        value: br#"{"args":["true"],"cwd":"/","user":{"uid":0,"gid":0}}"#.to_vec(),
    };
    let early = engine.call::<()>("Exec", &request(Some(process.clone()))).await.expect_err("nothing there");
    assert_eq!(early.code, Code::NotFound);
    engine.create(CreateOptions::default()).await.unwrap();
    engine.start().await.unwrap();
    engine.call::<()>("Exec", &request(Some(process.clone()))).await.unwrap();
    let twice = engine.call::<()>("Exec", &request(Some(process))).await.expect_err("twice");
    assert_eq!(twice.code, Code::AlreadyExists);
    let none = engine.call::<()>("Exec", &request(None)).await.expect_err("no process");
    assert_eq!(none.code, Code::InvalidArgument);
}

#[tokio::test]
async fn the_container_takes_them_along() {
    let Some((shim, engine)) = container().await else { return };
    let exec = Exec::add(&engine, "e1", "sleep 1000").await;
    let mut client = exec.attach(&shim).await;
    exec.start().await.unwrap();
    engine
        .call::<()>("Kill", &KillRequest { id: ID.to_owned(), signal: 9, ..Default::default() })
        .await
        .unwrap();
    assert_eq!(engine.wait().await.unwrap().exit_status, 137);
    assert_eq!(exec.wait().await, 137);
    assert_eq!(client.rest().await, crate::harness::Seen::default());
    engine.delete().await.unwrap();
}

#[tokio::test]
async fn hundreds_leave_the_shim_as_it_was() {
    let Some((shim, engine)) = container().await else { return };
    // Pages of the program itself count as dirty while its file is being written.
    let memory = || {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", shim.pid())).unwrap();
        let line = text.lines().find(|line| line.starts_with("Anonymous:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let files = || std::fs::read_dir(format!("/proc/{}/fd", shim.pid())).unwrap().count();
    let mut before = (0, 0);
    for round in 0..300 {
        let id = format!("e{round}");
        let exec = Exec::add(&engine, &id, "exit 0").await;
        exec.start().await.unwrap();
        assert_eq!(exec.wait().await, 0);
        exec.delete().await.unwrap();
        if round == 50 {
            before = (memory(), files());
        }
    }
    let after = (memory(), files());
    assert!(after.0 <= before.0 + 256, "KiB and descriptors: {before:?}, then {after:?}");
    assert_eq!(after.1, before.1);
}

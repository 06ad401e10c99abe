// SPDX-License-Identifier: Apache-2.0
//! From Create to Shutdown, and what comes between.

use std::fs;

use berth::{
    api::{
        shim::CreateOptions,
        task::{
            ConnectRequest, ConnectResponse, ExecProcessRequest, KillRequest, PauseRequest, PidsRequest,
            PidsResponse, ResumeRequest, StateRequest, StateResponse,
        },
        task_types::Status as TaskStatus,
    },
    bundle::{self, ExitRecord, ProcessIdentity},
    ttrpc::Code,
};
use berth_shim::kernel::process::pidfd_open;
use nix::sys::wait::WaitStatus;

use crate::harness::{Engine, ID, Shim, ends, spec};

async fn state(engine: &Engine) -> StateResponse {
    engine.call("State", &StateRequest { id: ID.to_owned(), ..Default::default() }).await.unwrap()
}

async fn kill(engine: &Engine, signal: u32) {
    let request = KillRequest { id: ID.to_owned(), signal, ..Default::default() };
    engine.call::<()>("Kill", &request).await.unwrap();
}

#[tokio::test]
async fn a_container_from_create_to_shutdown() {
    let Some(mut shim) = Shim::new("exit 42") else { return };
    let engine = shim.connect().await;
    let pid = engine.create(CreateOptions::default()).await.unwrap();
    assert_eq!(state(&engine).await.status(), TaskStatus::Created);
    let init: ProcessIdentity =
        bundle::read_record(&shim.path(""), bundle::INIT_RECORD).unwrap().expect("init.json after Create");
    assert_eq!(init.pid, pid);
    assert!(init.pidfd_inode > 0 && init.start_time > 0, "{init:?}");
    assert_eq!(engine.start().await.unwrap(), pid);
    let exit = engine.wait().await.unwrap();
    // At once: the record is on disk before Wait answers.
    let record: ExitRecord =
        bundle::read_record(&shim.path(""), bundle::EXIT_RECORD).unwrap().expect("exit.json before Wait");
    assert_eq!((exit.exit_status, record.exit_code, record.pid), (42, 42, pid));
    assert_eq!(exit.exited_at, Some(record.exited_at().into()));
    let stopped = state(&engine).await;
    assert_eq!((stopped.status(), stopped.exit_status), (TaskStatus::Stopped, 42));
    assert_eq!(engine.wait().await.unwrap(), exit, "however often one asks");
    let deleted = engine.delete().await.unwrap();
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 42));
    assert_eq!(engine.wait().await.unwrap_err().code, Code::NotFound);
    engine.shut_down().await;
    assert!(matches!(shim.end(), WaitStatus::Exited(_, 0)));
}

#[tokio::test]
async fn what_is_asked_wrongly_gets_the_right_code() {
    let Some(shim) = Shim::new("sleep 1000") else { return };
    let engine = shim.connect().await;
    assert_eq!(engine.start().await.unwrap_err().code, Code::NotFound, "before Create");
    engine.create(CreateOptions::default()).await.unwrap();
    assert_eq!(engine.create(CreateOptions::default()).await.unwrap_err().code, Code::AlreadyExists);
    engine.start().await.unwrap();
    assert_eq!(engine.start().await.unwrap_err().code, Code::FailedPrecondition);
    assert_eq!(engine.delete().await.unwrap_err().code, Code::FailedPrecondition);
    let other = StateRequest { id: "other".to_owned(), ..Default::default() };
    assert_eq!(engine.call::<StateResponse>("State", &other).await.unwrap_err().code, Code::NotFound);
    let exec = ExecProcessRequest { id: ID.to_owned(), ..Default::default() };
    assert_eq!(engine.call::<()>("Exec", &exec).await.unwrap_err().code, Code::InvalidArgument);
    let signal = KillRequest { id: ID.to_owned(), signal: 4711, ..Default::default() };
    assert_eq!(engine.call::<()>("Kill", &signal).await.unwrap_err().code, Code::InvalidArgument);
}

#[tokio::test]
async fn a_program_that_does_not_exist_leaves_nothing() {
    let Some(mut shim) = Shim::with_spec(spec(&["/nope"])) else { return };
    let engine = shim.connect().await;
    let error = match engine.create(CreateOptions::default()).await {
        Err(error) => error,
        Ok(_) => engine.start().await.unwrap_err(),
    };
    assert_eq!(error.code, Code::NotFound, "{error}");
    assert!(error.message.contains("/nope"), "{error}");
    engine.shut_down().await;
    assert!(matches!(shim.end(), WaitStatus::Exited(_, 0)));
}

#[tokio::test]
async fn the_container_does_not_notice_an_engine_that_goes() {
    let Some(shim) = Shim::new("sleep 1000") else { return };
    let first = shim.connect().await;
    let pid = first.create(CreateOptions::default()).await.unwrap();
    first.start().await.unwrap();
    {
        // Dropped in the middle of a Wait.
        let waiting = first.wait();
        tokio::select! {
            biased;
            exit = waiting => panic!("it runs: {exit:?}"),
            _ = state(&first) => {}
        }
    }
    drop(first);
    let second = shim.connect().await;
    let answer: ConnectResponse =
        second.call_v2("Connect", &ConnectRequest { id: ID.to_owned() }).await.unwrap();
    assert_eq!((answer.shim_pid, answer.task_pid), (shim.pid(), pid));
    kill(&second, 9).await;
    assert_eq!(second.wait().await.unwrap().exit_status, 137);
    assert_eq!(second.delete().await.unwrap().exit_status, 137);
}

#[tokio::test]
async fn a_shim_that_is_killed_takes_its_container_with_it() {
    let Some(mut shim) = Shim::new("sleep 1000") else { return };
    let engine = shim.connect().await;
    let pid = engine.create(CreateOptions::default()).await.unwrap();
    engine.start().await.unwrap();
    let container = pidfd_open(pid).unwrap();
    shim.kill();
    shim.end();
    assert!(ends(&container), "the container ends");
}

#[tokio::test]
async fn shutdown_waits_for_a_container_and_an_unstarted_one_can_be_deleted() {
    let Some(mut shim) = Shim::new("sleep 1000") else { return };
    let engine = shim.connect().await;
    let pid = engine.create(CreateOptions::default()).await.unwrap();
    let container = pidfd_open(pid).unwrap();
    assert_eq!(engine.delete().await.unwrap().exit_status, 137);
    assert!(ends(&container));
    engine.shut_down().await;
    assert!(matches!(shim.end(), WaitStatus::Exited(_, 0)));
}

#[tokio::test]
async fn paused_and_resumed() {
    let Some(shim) = Shim::new("sleep 1000") else { return };
    let engine = shim.connect().await;
    engine.create(CreateOptions::default()).await.unwrap();
    let pid = engine.start().await.unwrap();
    engine.call::<()>("Pause", &PauseRequest { id: ID.to_owned() }).await.unwrap();
    assert_eq!(state(&engine).await.status(), TaskStatus::Paused);
    engine.call::<()>("Resume", &ResumeRequest { id: ID.to_owned() }).await.unwrap();
    assert_eq!(state(&engine).await.status(), TaskStatus::Running);
    let pids: PidsResponse = engine.call("Pids", &PidsRequest { id: ID.to_owned() }).await.unwrap();
    assert!(pids.processes.iter().any(|process| process.pid == pid), "{pids:?}");
    engine.call::<()>("Pause", &PauseRequest { id: ID.to_owned() }).await.unwrap();
    kill(&engine, 9).await;
    assert_eq!(engine.wait().await.unwrap().exit_status, 137, "SIGKILL ends a frozen one too");
}

#[tokio::test]
async fn there_is_one_thread() {
    let Some(shim) = Shim::new("sleep 1000") else { return };
    let engine = shim.connect().await;
    engine.create(CreateOptions::default()).await.unwrap();
    engine.start().await.unwrap();
    let threads = fs::read_dir(format!("/proc/{}/task", shim.pid())).unwrap().count();
    assert_eq!(threads, 1);
}

// SPDX-License-Identifier: Apache-2.0
//! Output, input, terminals: attach, log and containerd's pipes.

use std::{fs, os::unix::fs::OpenOptionsExt as _};

use berth::{
    api::{
        shim::{AttachOpen, CreateOptions, Log, log::Driver},
        task::CreateTaskRequest,
    },
    attach::Kind,
};
use nix::{fcntl::OFlag, sys::stat::Mode, unistd::mkfifo};
use serde_json::{Value, json};

use crate::harness::{ALL, ID, OUTPUT, Seen, Shim, create, spec};

#[tokio::test]
async fn output_is_exact_for_a_client_and_in_the_log() {
    let Some(shim) = Shim::new("echo one; echo err >&2; printf 'no end'") else { return };
    let engine = shim.connect().await;
    // Before Create: it waits.
    let client = shim.attach(OUTPUT).await;
    engine.create(CreateOptions { log: Some(shim.log_options()), ..Default::default() }).await.unwrap();
    let mut client = client.ready().await;
    assert_eq!(client.tty, Some(false));
    engine.start().await.unwrap();
    assert_eq!(engine.wait().await.unwrap().exit_status, 0);
    // Wait has answered: the log is whole.
    let mut log = shim.log();
    log.sort();
    assert_eq!(log, ["stderr F err", "stdout F one", "stdout P no end"]);
    assert_eq!(
        client.rest().await,
        Seen { stdout: b"one\nno end".to_vec(), stderr: b"err\n".to_vec(), missed: 0 }
    );
    let mut late = shim.attach(OUTPUT).await.ready().await;
    assert_eq!(late.rest().await, Seen::default(), "a client that comes after the end");
}

#[tokio::test]
async fn two_hundred_kibibytes_of_a_short_life() {
    let Some(mut shim) = Shim::new("seq 1 40000") else { return };
    let engine = shim.connect().await;
    engine.create(CreateOptions { log: Some(shim.log_options()), ..Default::default() }).await.unwrap();
    let mut client = shim.attach(OUTPUT).await.ready().await;
    engine.start().await.unwrap();
    engine.wait().await.unwrap();
    engine.delete().await.unwrap();
    engine.shut_down().await;
    // The client hasn't read a byte yet; what waits for it outlives the task.
    let expected: String = (1..=40_000).map(|n| format!("{n}\n")).collect();
    assert!(client.rest().await.stdout == expected.as_bytes());
    let log: String = shim.log().iter().map(|line| format!("{}\n", &line["stdout F ".len()..])).collect();
    assert!(log == expected);
    shim.end();
}

#[tokio::test]
async fn input_comes_from_a_client_until_it_says_so() {
    let Some(shim) = Shim::new("cat; echo done") else { return };
    let engine = shim.connect().await;
    engine.create(CreateOptions { open_stdin: true, ..Default::default() }).await.unwrap();
    let mut client = shim.attach(ALL).await.ready().await;
    engine.start().await.unwrap();
    client.send(Kind::Stdin, b"hello\n").await;
    assert_eq!(client.until(|seen| seen.stdout.ends_with(b"\n")).await.stdout, b"hello\n");
    client.send(Kind::StdinClosed, b"").await;
    assert_eq!(client.rest().await.stdout, b"done\n");
    assert_eq!(engine.wait().await.unwrap().exit_status, 0);
}

#[tokio::test]
async fn input_is_closed_when_the_first_client_leaves() {
    let Some(shim) = Shim::new("cat; exit 3") else { return };
    let engine = shim.connect().await;
    let options = CreateOptions { open_stdin: true, stdin_once: true, ..Default::default() };
    engine.create(options).await.unwrap();
    let client = shim.attach(ALL).await.ready().await;
    engine.start().await.unwrap();
    drop(client);
    assert_eq!(engine.wait().await.unwrap().exit_status, 3);
}

#[tokio::test]
async fn input_stays_open_when_a_client_that_may_return_is_lost() {
    let Some(shim) = Shim::new("cat; exit 3") else { return };
    let engine = shim.connect().await;
    let options = CreateOptions { open_stdin: true, stdin_once: true, ..Default::default() };
    engine.create(options).await.unwrap();
    let returning = AttachOpen { keep_stdin: true, ..ALL };
    let mut client = shim.attach(returning.clone()).await.ready().await;
    engine.start().await.unwrap();
    client.send(Kind::Stdin, b"one\n").await;
    client.until(|seen| seen.stdout == b"one\n").await;
    drop(client);
    let mut client = shim.attach(returning).await.ready().await;
    client.send(Kind::Stdin, b"two\n").await;
    client.until(|seen| seen.stdout == b"two\n").await;
    client.send(Kind::StdinClosed, b"").await;
    assert_eq!(engine.wait().await.unwrap().exit_status, 3);
}

#[tokio::test]
async fn large_input_is_neither_lost_nor_kept_in_memory() {
    let Some(shim) = Shim::new("head -c 1000000 | tr a b") else { return };
    let engine = shim.connect().await;
    engine.create(CreateOptions { open_stdin: true, ..Default::default() }).await.unwrap();
    // There is no log that it could get from what it is too slow for.
    let mut client = shim.attach(AttachOpen { wait: true, ..ALL }).await.ready().await;
    let mut writer = shim.attach(AttachOpen { stdin: true, ..Default::default() }).await.ready().await;
    engine.start().await.unwrap();
    let chunk = vec![b'a'; 50_000];
    let write = async {
        for _ in 0..20 {
            writer.send(Kind::Stdin, &chunk).await;
        }
    };
    let (seen, ()) = tokio::join!(client.until(|seen| seen.stdout.len() >= 1_000_000), write);
    assert!(seen.stdout == vec![b'b'; 1_000_000]);
}

fn numbers(last: u32) -> String {
    (1..=last).map(|n| format!("{n}\n")).collect()
}

#[tokio::test]
async fn a_client_that_takes_nothing_holds_nobody_up_and_gets_it_all_from_the_log() {
    let Some(shim) = Shim::new("seq 1 200000; printf 'no end'; read x </fifo; echo; seq 1 200000 >&2") else {
        return;
    };
    mkfifo(&shim.path("rootfs/fifo"), Mode::S_IRWXU).unwrap();
    let engine = shim.connect().await;
    let log = Log { max_size: 100_000, max_files: 1000, ..shim.log_options() };
    engine.create(CreateOptions { log: Some(log), ..Default::default() }).await.unwrap();
    let mut idle = shim.attach(OUTPUT).await.ready().await;
    let mut ends = shim.attach(OUTPUT).await.ready().await;
    let mut errors = shim.attach(AttachOpen { stdout: false, ..OUTPUT }).await.ready().await;
    let mut busy = shim.attach(AttachOpen { wait: true, ..OUTPUT }).await.ready().await;
    engine.start().await.unwrap();
    let expected = numbers(200_000) + "no end";
    let seen = busy.until(|seen| seen.stdout.len() >= expected.len()).await;
    assert!(seen.stdout == expected.as_bytes());
    // Lines that aren't in the log yet are its, too.
    let seen = idle.until(|seen| seen.stdout.len() >= expected.len()).await;
    assert!(seen.stdout == expected.as_bytes() && seen.missed == 0, "{}", seen.stdout.len());
    fs::write(shim.path("rootfs/fifo"), "go\n").unwrap();
    for client in [&mut busy, &mut idle] {
        let rest = client.rest().await;
        assert_eq!(rest.stdout, b"\n");
        assert!(rest.stderr == numbers(200_000).as_bytes() && rest.missed == 0);
    }
    assert_eq!(engine.wait().await.unwrap().exit_status, 0);
    // These have read nothing until now.
    let seen = ends.rest().await;
    assert!(seen.stdout == format!("{expected}\n").as_bytes() && seen.missed == 0);
    let seen = errors.rest().await;
    assert!(seen.stdout.is_empty() && seen.stderr == numbers(200_000).as_bytes() && seen.missed == 0);
}

#[tokio::test]
async fn what_the_log_has_no_more_is_told_to_the_byte() {
    for log in ["none", "short", "json"] {
        let Some(shim) = Shim::new("seq 1 300000; seq 1 10 >&2") else { return };
        let engine = shim.connect().await;
        let log = match log {
            "none" => None,
            "short" => Some(Log { max_size: 50_000, max_files: 2, ..shim.log_options() }),
            _ => Some(Log { driver: Driver::JsonFile.into(), ..shim.log_options() }),
        };
        engine.create(CreateOptions { log, ..Default::default() }).await.unwrap();
        let mut idle = shim.attach(OUTPUT).await.ready().await;
        engine.start().await.unwrap();
        assert_eq!(engine.wait().await.unwrap().exit_status, 0);
        let seen = idle.rest().await;
        let expected = numbers(300_000);
        let all = expected.len() + numbers(10).len();
        assert!(expected.as_bytes().starts_with(&seen.stdout[..100_000]));
        assert!(seen.missed > 500_000, "{}", seen.missed);
        assert_eq!(seen.stdout.len() + seen.stderr.len() + usize::try_from(seen.missed).unwrap(), all);
    }
}

#[tokio::test]
async fn in_a_pipeline_the_container_waits() {
    let Some(shim) = Shim::new("seq 1 300000; echo done >/done") else { return };
    let engine = shim.connect().await;
    engine.create(CreateOptions::default()).await.unwrap();
    let mut slow = shim.attach(AttachOpen { wait: true, ..OUTPUT }).await.ready().await;
    let mut idle = shim.attach(OUTPUT).await.ready().await;
    engine.start().await.unwrap();
    let expected = numbers(300_000);
    slow.until(|seen| !seen.stdout.is_empty()).await;
    assert!(!shim.path("rootfs/done").exists());
    let seen = slow.rest().await;
    assert!(expected.as_bytes().ends_with(&seen.stdout) && seen.missed == 0);
    assert!(idle.rest().await.missed > 0);
}

#[tokio::test]
async fn a_mark_says_where_the_log_ends_and_what_it_lacks_comes() {
    let Some(shim) = Shim::new("echo one; printf two; read x </fifo; echo three") else { return };
    mkfifo(&shim.path("rootfs/fifo"), Mode::S_IRWXU).unwrap();
    let engine = shim.connect().await;
    engine.create(CreateOptions { log: Some(shim.log_options()), ..Default::default() }).await.unwrap();
    let mut first = shim.attach(OUTPUT).await.ready().await;
    engine.start().await.unwrap();
    first.until(|seen| seen.stdout.ends_with(b"two")).await;
    let mut client = shim.attach(AttachOpen { mark: true, ..OUTPUT }).await.ready().await;
    let length = fs::metadata(shim.path("log.cri")).unwrap().len();
    assert_eq!(client.place, Some((1, length)));
    assert_eq!(client.until(|seen| !seen.stdout.is_empty()).await.stdout, b"two");
    fs::write(shim.path("rootfs/fifo"), "go\n").unwrap();
    assert_eq!(client.rest().await.stdout, b"three\n");
}

fn on_a_terminal(script: &str) -> Value {
    let mut spec = spec(&["sh", "-c", script]);
    spec["process"]["terminal"] = json!(true);
    spec
}

fn terminal(rows: u32, columns: u32) -> CreateTaskRequest {
    let options = CreateOptions {
        open_stdin: true,
        console_rows: rows,
        console_columns: columns,
        ..Default::default()
    };
    CreateTaskRequest { terminal: true, ..create(&options) }
}

#[tokio::test]
async fn a_terminal_has_a_size_that_can_change() {
    let Some(shim) = Shim::with_spec(on_a_terminal("stty size; read x; stty size; exit 5")) else { return };
    let engine = shim.connect().await;
    engine.create_with(terminal(24, 80)).await.unwrap();
    let mut client = shim.attach(ALL).await.ready().await;
    assert_eq!(client.tty, Some(true));
    engine.start().await.unwrap();
    assert_eq!(client.until(|seen| seen.stdout.ends_with(b"\n")).await.stdout, b"24 80\r\n");
    client.send(Kind::Resize, &[0, 40, 0, 132]).await;
    client.send(Kind::Stdin, b"\n").await;
    assert!(client.rest().await.stdout.ends_with(b"40 132\r\n"));
    assert_eq!(engine.wait().await.unwrap().exit_status, 5);
}

#[tokio::test]
async fn control_c_reaches_the_program() {
    let Some(shim) =
        Shim::with_spec(on_a_terminal("trap 'echo caught; exit 6' INT; echo go; while :; do sleep 1; done"))
    else {
        return;
    };
    let engine = shim.connect().await;
    engine.create_with(terminal(24, 80)).await.unwrap();
    let mut client = shim.attach(ALL).await.ready().await;
    engine.start().await.unwrap();
    client.until(|seen| seen.stdout.ends_with(b"go\r\n")).await;
    client.send(Kind::Stdin, b"\x03").await;
    assert!(client.rest().await.stdout.ends_with(b"caught\r\n"));
    assert_eq!(engine.wait().await.unwrap().exit_status, 6);
}

#[tokio::test]
async fn a_log_of_json_lines_is_rotated() {
    let Some(shim) = Shim::new("seq 1 1000") else { return };
    let engine = shim.connect().await;
    let path = shim.path("log.json");
    let log = Log {
        driver: Driver::JsonFile.into(),
        path: path.to_str().unwrap().to_owned(),
        max_size: 20_000,
        max_files: 3,
        ..Default::default()
    };
    engine.create(CreateOptions { log: Some(log), ..Default::default() }).await.unwrap();
    engine.start().await.unwrap();
    engine.wait().await.unwrap();
    let numbers: Vec<_> = berth::log::segments(&path).unwrap().into_keys().collect();
    assert!(numbers.len() == 3 && numbers[0] > 1, "{numbers:?}");
    let segments: Vec<_> = numbers
        .iter()
        .map(|number| fs::read_to_string(berth::log::segment(&path, *number)).unwrap())
        .collect();
    assert!(segments.iter().all(|text| text.len() <= 20_000));
    assert_eq!(fs::read_to_string(&path).unwrap(), segments[2]);
    let lines: Vec<Value> =
        segments.concat().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let numbers: Vec<u32> =
        lines.iter().map(|line| line["log"].as_str().unwrap().trim_end().parse().unwrap()).collect();
    assert_eq!(*numbers.last().unwrap(), 1000);
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "no gap between the segments");
}

#[tokio::test]
async fn containerds_pipes() {
    let Some(shim) = Shim::new("cat; echo err >&2") else { return };
    let engine = shim.connect().await;
    let [stdin, stdout, stderr] = ["in", "out", "err"].map(|name| shim.path(name));
    for path in [&stdin, &stdout] {
        mkfifo(path, Mode::S_IRWXU).unwrap();
    }
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let request = CreateTaskRequest {
        id: ID.to_owned(),
        stdin: text(&stdin),
        stdout: text(&stdout),
        stderr: format!("file://{}", text(&stderr)),
        ..Default::default()
    };
    engine.create_with(request).await.unwrap();
    engine.start().await.unwrap();
    // A first client vanishes, a second one comes.
    for word in ["a\n", "b\n"] {
        let mut options = fs::OpenOptions::new();
        let mut pipe = options.write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&stdin).unwrap();
        std::io::Write::write_all(&mut pipe, word.as_bytes()).unwrap();
    }
    let close = berth::api::task::CloseIoRequest { id: ID.to_owned(), stdin: true, ..Default::default() };
    engine.call::<()>("CloseIO", &close).await.unwrap();
    assert_eq!(engine.wait().await.unwrap().exit_status, 0);
    // Who comes late finds all of it, and its end.
    assert_eq!(fs::read_to_string(stdout).unwrap(), "a\nb\n");
    assert_eq!(fs::read_to_string(stderr).unwrap(), "err\n");
}

// SPDX-License-Identifier: Apache-2.0
//! Making a probe: a process in the container, or a connection from its
//! network. What is read of an answer is bounded, and so is the time.

use std::{
    io,
    net::SocketAddr,
    os::fd::AsFd as _,
    sync::Arc,
    time::{Duration, SystemTime},
};

use berth::{
    api::shim::{AttachOpen, ExecOptions},
    attach::Kind as FrameKind,
    ids::ExecId,
};
use nix::sys::socket::AddressFamily;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use super::{Containers, Live};
use crate::{
    domain::{
        container::Document,
        exec::ExecConfig,
        health::{self, Health, MAX_OUTPUT, Probed, Test},
        id,
        probe::{self, Http, Tcp},
    },
    error::{Context as _, Error, Kind, Result},
    kernel::netns,
    shim::{attach, task::Terminal, timeouts},
};

/// What ids of probes begin with: an engine that finds one ends it.
pub(in crate::lifecycle) const PREFIX: &str = "health-";

/// How a probe went.
struct Answer {
    exit_code: i32,
    output: String,
}

impl Containers {
    /// Makes a probe. That it can't be made is a failure of it as well.
    pub(super) async fn probe(
        self: &Arc<Self>,
        live: &Arc<Live>,
        document: &Document,
        check: &Health,
    ) -> Probed {
        let start = health::nanos(SystemTime::now());
        let answer = match &check.test {
            Test::Command(command) => self.run_probe(live, document, command, check.timeout).await,
            Test::Http(http) => within(check.timeout, ask(live, http)).await,
            Test::Tcp(tcp) => within(check.timeout, reach(live, tcp)).await,
        };
        let answer = answer.unwrap_or_else(|e| Answer { exit_code: -1, output: e.chain() });
        Probed {
            start,
            end: health::nanos(SystemTime::now()),
            exit_code: answer.exit_code,
            output: answer.output,
        }
    }

    async fn run_probe(
        self: &Arc<Self>,
        live: &Arc<Live>,
        document: &Document,
        command: &[String],
        timeout: Duration,
    ) -> Result<Answer> {
        let config = ExecConfig { command: command.to_vec(), ..ExecConfig::default() };
        let process = serde_json::to_vec(&config.process(document, self.all_capabilities()))
            .map_err(|e| Error::new(Kind::Internal, "encode the process").with_source(e))?;
        let user = config.lookup(document);
        let options = ExecOptions { process, user, ..ExecOptions::default() };
        let fresh: ExecId = id::fresh()?;
        let id: ExecId = format!("{PREFIX}{fresh}")
            .parse()
            .map_err(|e: berth::ids::InvalidId| Error::new(Kind::Internal, "name a probe").with_source(e))?;
        live.task.add_exec(&id, Terminal::No, &options).await?;
        let result = tokio::time::timeout(timeout, run(live, &id)).await;
        let answer =
            result.unwrap_or_else(|_| Ok(Answer { exit_code: -1, output: health::too_long(timeout) }));
        if answer.as_ref().is_ok_and(|answer| answer.exit_code == -1) {
            end(live, &id).await;
        }
        // One that isn't there any more needs no forgetting.
        let _ = live.task.delete_exec(&id).await;
        answer
    }
}

/// Runs an added process to its end.
async fn run(live: &Live, id: &ExecId) -> Result<Answer> {
    let wanted = AttachOpen {
        stdout: true,
        stderr: true,
        exec_id: id.to_string(),
        wait: true,
        ..AttachOpen::default()
    };
    let (_input, mut output) = attach::open(live.bundle.dir(), wanted).await?;
    live.task.start_exec(id).await?;
    let mut said = Vec::new();
    while let Some(frame) = output.next().await.context("read what a probe says")? {
        // All is taken, so that the process isn't held up; little is kept.
        if matches!(frame.kind, FrameKind::Stdout | FrameKind::Stderr) && said.len() <= MAX_OUTPUT {
            said.extend_from_slice(&frame.payload);
        }
    }
    let answer = live.task.wait_exec(id).await?;
    Ok(Answer { exit_code: answer.exit_code.into(), output: health::shortened(&said) })
}

/// Ends a probe that has had its time, with what it has started.
async fn end(live: &Live, id: &ExecId) {
    if let Err(e) = live.task.kill_exec(id, libc::SIGKILL.unsigned_abs(), true).await
        && e.kind() != Kind::NotFound
    {
        tracing::warn!(container = %live.id, error = e.chain(), "end a probe that takes too long");
    }
    drop(tokio::time::timeout(timeouts::KILLED, live.task.wait_exec(id)).await);
}

async fn within(timeout: Duration, work: impl Future<Output = Result<Answer>>) -> Result<Answer> {
    let result = tokio::time::timeout(timeout, work).await;
    result.unwrap_or_else(|_| Ok(Answer { exit_code: -1, output: health::too_long(timeout) }))
}

async fn reach(live: &Arc<Live>, tcp: &Tcp) -> Result<Answer> {
    let (_, address) = connect(live, tcp).await?;
    Ok(Answer { exit_code: 0, output: format!("connected to {address}") })
}

async fn ask(live: &Arc<Live>, http: &Http) -> Result<Answer> {
    let (mut stream, address) = connect(live, &http.server).await?;
    let context = || format!("ask {address}");
    stream.write_all(http.request.as_bytes()).await.with_context(context)?;
    let mut answer = Vec::new();
    let most = u64::try_from(probe::MAX_ANSWER).unwrap_or(u64::MAX);
    (&mut stream).take(most).read_to_end(&mut answer).await.with_context(context)?;
    let status = probe::status(&answer).ok_or_else(|| {
        Error::new(Kind::Unavailable, format!("{address} does not answer as an HTTP server does"))
    })?;
    let well = probe::is_well(status);
    Ok(Answer { exit_code: i32::from(!well), output: health::shortened(&probe::shown(&answer)) })
}

/// The first of the addresses that takes a connection.
async fn connect(live: &Arc<Live>, tcp: &Tcp) -> Result<(TcpStream, SocketAddr)> {
    let mut last = None;
    for address in &tcp.addresses {
        match connect_to(live, *address).await {
            Ok(stream) => return Ok((stream, *address)),
            Err(e) => {
                last.get_or_insert_with(|| Error::io(format!("connect to {address}"), e));
            }
        }
    }
    Err(last.unwrap_or_else(|| Error::new(Kind::Internal, "a probe without an address")))
}

async fn connect_to(live: &Arc<Live>, address: SocketAddr) -> io::Result<TcpStream> {
    let live = Arc::clone(live);
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let make = move || {
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        netns::tcp_socket(live.init.get().ok_or_else(gone)?.pidfd().as_fd(), family)
    };
    let socket = tokio::task::spawn_blocking(make).await.map_err(io::Error::other)??;
    TcpSocket::from_std_stream(socket).connect(address).await
}

// SPDX-License-Identifier: Apache-2.0
//! `berth run`: create, attach, start, copy, and end as the container ended.

use std::future::Future;

use berth::api::v1::{CreateContainerResponse, RemoveContainerRequest, StartContainerRequest};
use tonic::Code;

use super::{
    config::{self, Streams},
    create,
};
use crate::{
    cli::container::{Run, Stream},
    context::Context,
    error::{BERTH_FAILED, Error, Result},
    output,
    session::{Exit, Options, Outcome, Session, Target},
    terminal,
};

/// `berth run`.
pub(super) async fn run(connect: impl Future<Output = Result<Context>>, args: Run) -> Result<u8> {
    if args.create.tty && args.create.interactive && !args.detach && !terminal::stdin_is_terminal() {
        return Err(Error::new("the input device is not a TTY").with_code(BERTH_FAILED));
    }
    work(connect, args).await.map_err(|e| e.of_run("run"))
}

async fn work(connect: impl Future<Output = Result<Context>>, args: Run) -> Result<u8> {
    let Run { detach, stream, create } = args;
    let streams = if detach { Streams::NONE } else { Streams::of(&create) };
    let config = config::of(&create, streams)?;
    let context = connect.await?;
    let container = create::make(&context, &create, config).await?;
    if detach {
        start(&context, &container.id).await?;
        output::print(&format!("{}\n", container.id))?;
        return Ok(0);
    }
    let options = Options {
        stdin: streams.stdin && create.interactive,
        stdout: streams.stdout,
        stderr: streams.stderr,
        tty: create.tty,
        sig_proxy: stream.sig_proxy,
        detach_keys: stream.detach_keys,
        from_start: true,
        next_start: false,
        logs: false,
        wait: waits(create.tty),
    };
    attached(&context, container, options, create.rm).await
}

async fn attached(
    context: &Context,
    container: CreateContainerResponse,
    options: Options,
    rm: bool,
) -> Result<u8> {
    let CreateContainerResponse { id, name, .. } = container;
    let session = match Session::open(context, Target { id: id.clone(), name }, options).await {
        Ok(session) => session,
        Err(error) => return Err(clean(context, &id, rm, error).await),
    };
    // A container that removes itself may be gone before Start has answered:
    // it is waited for beforehand.
    let mut exit = if rm { Exit::of_removed(context, &id) } else { Exit::of(context, &id) };
    if rm && let Some(early) = exit.begin().await {
        return early;
    }
    if let Err(error) = start(context, &id).await {
        drop(session);
        return Err(clean(context, &id, rm, error).await);
    }
    session.resize();
    match session.run(exit).await? {
        Outcome::Exited(code) => Ok(code),
        Outcome::Detached => Ok(0),
    }
}

/// Starts a created container.
pub(super) async fn start(context: &Context, id: &str) -> Result<()> {
    let request = StartContainerRequest { namespace: context.namespace.clone(), container: id.to_owned() };
    context.client.containers().start(request).await?;
    Ok(())
}

/// What `--rm` promises also holds for a container that never ran.
async fn clean(context: &Context, id: &str, rm: bool, error: Error) -> Error {
    if rm {
        let request = RemoveContainerRequest {
            namespace: context.namespace.clone(),
            container: id.to_owned(),
            force: true,
        };
        if let Err(status) = context.client.containers().remove(request).await
            && status.code() != Code::NotFound
        {
            output::warn(&format!("WARNING: container {id} is not removed: {}", status.message()));
        }
    }
    error
}

/// The part of the flags that `start` and `attach` share.
pub(super) fn options(stream: Stream, tty: bool, stdin: bool) -> Options {
    Options {
        stdin,
        stdout: true,
        stderr: true,
        tty,
        sig_proxy: stream.sig_proxy,
        detach_keys: stream.detach_keys,
        from_start: false,
        next_start: false,
        logs: false,
        wait: false,
    }
}

/// Whether the container waits for us: in a pipeline every byte counts, and
/// who runs it there knows how fast its other end is.
pub(super) fn waits(tty: bool) -> bool {
    !tty && !terminal::stdout_is_terminal()
}

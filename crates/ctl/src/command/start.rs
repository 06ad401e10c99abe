// SPDX-License-Identifier: Apache-2.0
//! `berth start`.

use berth::api::v1::{InspectContainerRequest, container_state::Status};

use super::run;
use crate::{
    cli::container::Start,
    context::Context,
    error::{Error, Result},
    output,
    session::{Exit, Outcome, Session, Target},
    terminal,
};

/// `berth start`.
pub(super) async fn start(context: &Context, args: Start) -> Result<u8> {
    if args.attach || args.interactive {
        return attached(context, args).await;
    }
    let mut failed = Vec::new();
    for name in args.targets.containers {
        match run::start(context, &name).await {
            Ok(()) => output::print(&format!("{name}\n"))?,
            Err(error) => {
                output::warn(&error.to_string());
                failed.push(name);
            }
        }
    }
    if failed.is_empty() {
        return Ok(0);
    }
    Err(Error::new(format!("Error: failed to start containers: {}", failed.join(", "))))
}

async fn attached(context: &Context, args: Start) -> Result<u8> {
    let [name] = args.targets.containers.as_slice() else {
        return Err(Error::new("you cannot start and attach multiple containers at once"));
    };
    let request = InspectContainerRequest { namespace: context.namespace.clone(), container: name.clone() };
    let container = context.client.containers().inspect(request).await?.into_inner().container;
    let container = container.unwrap_or_default();
    let config = container.config.unwrap_or_default();
    let stdin = args.interactive && config.open_stdin;
    if stdin && config.tty && !terminal::stdin_is_terminal() {
        return Err(Error::new("the input device is not a TTY"));
    }
    let mut options = run::options(args.stream, config.tty, stdin);
    let status = container.state.unwrap_or_default().status();
    options.wait = run::waits(config.tty);
    options.from_start = status == Status::Created;
    options.next_start = matches!(status, Status::Exited | Status::Restarting);
    let rm = config.host.is_some_and(|host| host.auto_remove);
    let id = container.id;
    let session = Session::open(context, Target { id: id.clone(), name: container.name }, options).await?;
    let mut exit = if rm { Exit::of_removed(context, &id) } else { Exit::of(context, &id) };
    if rm && let Some(early) = exit.begin().await {
        return early;
    }
    run::start(context, &id).await?;
    session.resize();
    match session.run(exit).await? {
        Outcome::Exited(code) => Ok(code),
        Outcome::Detached => Ok(0),
    }
}

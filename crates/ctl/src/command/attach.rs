// SPDX-License-Identifier: Apache-2.0
//! `berth attach`.

use berth::api::v1::{InspectContainerRequest, container_state::Status};

use super::run;
use crate::{
    cli::container::Attach,
    context::Context,
    error::{Error, Result},
    session::{Exit, Options, Outcome, Session, Target},
    terminal,
};

/// `berth attach`.
pub(super) async fn attach(context: &Context, args: Attach) -> Result<u8> {
    let request =
        InspectContainerRequest { namespace: context.namespace.clone(), container: args.container.clone() };
    let container = context.client.containers().inspect(request).await?.into_inner().container;
    let container = container.unwrap_or_default();
    match container.state.unwrap_or_default().status() {
        Status::Running | Status::Created | Status::Unknown | Status::Unspecified => {}
        Status::Paused => {
            return Err(Error::new("You cannot attach to a paused container, unpause it first"));
        }
        Status::Restarting => {
            return Err(Error::new("You cannot attach to a restarting container, wait until it is running"));
        }
        Status::Exited | Status::Removing => {
            return Err(Error::new("You cannot attach to a stopped container, start it first"));
        }
    }
    let config = container.config.unwrap_or_default();
    let stdin = !args.no_stdin && config.open_stdin;
    if stdin && config.tty && !terminal::stdin_is_terminal() {
        return Err(Error::new("the input device is not a TTY"));
    }
    let options = run::options(args.stream, config.tty, stdin);
    // All comes from the log then: after a lost engine it goes on where it was.
    let options = Options { logs: args.logs, from_start: args.logs && !config.tty, ..options };
    let target = Target { id: container.id.clone(), name: container.name };
    let exit = if config.host.is_some_and(|host| host.auto_remove) {
        Exit::of_removed(context, &container.id)
    } else {
        Exit::of(context, &container.id)
    };
    match Session::open(context, target, options).await?.run(exit).await? {
        Outcome::Exited(code) => Ok(code),
        Outcome::Detached => Err(Error::new("read escape sequence")),
    }
}

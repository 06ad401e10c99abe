// SPDX-License-Identifier: Apache-2.0
//! `berth exec`, `berth exec ls` and `berth exec kill`.

use std::time::SystemTime;

use berth::api::v1::{self, KillExecRequest, ListExecsRequest, run_exec_request::Start};

use super::each;
use crate::{
    cli::container::{Exec, ExecKill, ExecLs, ExecVerb},
    context::Context,
    error::{Error, Result},
    output::{
        self, human,
        listing::{Format, Row},
        text,
    },
    parse::{key_value, lines, reference::short_id},
    session::{Outcome, exec::ExecSession},
    terminal,
};

const TABLE: &str =
    "{{.ID}}\t{{.Container}}\t{{.PID}}\t{{.User}}\t{{.RunningFor}}\t{{.Status}}\t{{.Command}}";

const HEADERS: [(&str, &str); 7] = [
    ("ID", "EXEC ID"),
    ("Container", "CONTAINER"),
    ("PID", "PID"),
    ("User", "USER"),
    ("RunningFor", "STARTED"),
    ("Status", "STATUS"),
    ("Command", "COMMAND"),
];

/// `berth exec`.
pub(super) async fn exec(context: &Context, mut args: Exec) -> Result<u8> {
    match args.verb.take() {
        Some(ExecVerb::Ls(args)) => list(context, args).await,
        Some(ExecVerb::Kill(args)) => kill(context, args).await,
        None => run(context, args).await,
    }
}

async fn run(context: &Context, args: Exec) -> Result<u8> {
    if args.command().is_empty() {
        return Err(Error::new("\"berth exec\" requires a container and a command; see berth exec --help"));
    }
    if args.tty && args.interactive && !args.detach && !terminal::stdin_is_terminal() {
        return Err(Error::new("the input device is not a TTY"));
    }
    let mut env = Vec::new();
    for file in &args.env_file {
        env.extend(lines::env_file(file)?);
    }
    for variable in &args.env {
        env.push(key_value::env(variable, |name| std::env::var(name).ok())?);
    }
    let start = Start {
        namespace: context.namespace.clone(),
        container: args.container().to_owned(),
        command: args.command().to_vec(),
        tty: args.tty,
        stdin: args.interactive && !args.detach,
        env,
        working_dir: args.workdir.clone().unwrap_or_default(),
        user: args.user.clone().unwrap_or_default(),
        privileged: args.privileged,
        detach: args.detach,
        kill_on_disconnect: args.kill_on_disconnect,
        size: if args.tty { terminal::size() } else { None },
    };
    let session = ExecSession::open(context, start, args.stream.sig_proxy, args.stream.detach_keys).await?;
    if args.detach {
        return Ok(0);
    }
    match session.run().await? {
        Outcome::Exited(code) => Ok(code),
        Outcome::Detached => Ok(0),
    }
}

async fn list(context: &Context, args: ExecLs) -> Result<u8> {
    let format = Format::parse(args.format.as_deref(), TABLE)?;
    let request = ListExecsRequest {
        namespace: context.namespace.clone(),
        container: args.container.unwrap_or_default(),
        all: args.all,
    };
    let list = context.client.execs().list(request).await?.into_inner().execs;
    let id = |exec: &v1::Exec| if args.no_trunc { exec.id.clone() } else { short_id(&exec.id).to_owned() };
    if args.quiet {
        output::print(&list.iter().map(|exec| id(exec) + "\n").collect::<String>())?;
        return Ok(0);
    }
    let now = SystemTime::now();
    let rows: Vec<Row> = list.iter().map(|exec| row(exec, id(exec), args.no_trunc, now)).collect();
    output::print(&format.render(&HEADERS, &rows)?)?;
    Ok(0)
}

fn row(exec: &v1::Exec, id: String, whole: bool, now: SystemTime) -> Row {
    let command = exec.command.join(" ");
    let command = if whole { command } else { text::ellipsis(&command, 40).into_owned() };
    let started = exec.started_at.unwrap_or_default();
    let status = match exec.exited_at {
        None => "Up".to_owned(),
        Some(_) => format!("Exited ({})", exec.exit_code),
    };
    Row::default()
        .with("ID", id)
        .with("Container", exec.container_name.as_str())
        .with("PID", exec.pid.to_string())
        .with("User", exec.user.as_str())
        .with("RunningFor", format!("{} ago", human::duration(human::since(&started, now))))
        .with("Status", status)
        .with("Command", text::quote(&command))
}

async fn kill(context: &Context, args: ExecKill) -> Result<u8> {
    each(args.execs, |exec| {
        let request = KillExecRequest {
            namespace: context.namespace.clone(),
            container: String::new(),
            exec_id: exec.clone(),
            signal: args.signal.clone(),
        };
        let mut client = context.client.execs();
        async move { client.kill(request).await.map(|_| exec).map_err(Error::from) }
    })
    .await
}

// SPDX-License-Identifier: Apache-2.0
//! An ExecProcessRequest as the supervisor wants it: our engine puts its own
//! options where containerd puts an OCI process.

use berth::{
    api::{shim::ExecOptions, task::ExecProcessRequest},
    ids::ExecId,
    ttrpc::{Code, Status},
};
use prost::Message as _;
use prost_types::Any;

use super::create;
use crate::{
    io::{diag, stdio::Config},
    kernel::tty::Size,
    runtime,
    supervisor::call::{AddExec, OnDisconnect, Streams},
};

/// Name of our engine's options.
const OPTIONS: &str = "berth.shim.v1.ExecOptions";
/// Name of what containerd sends, without the version before it.
const PROCESS: &str = "Process";

/// Checks and translates a request.
///
/// # Errors
/// `InvalidArgument` for what contradicts itself, `Unimplemented` for what
/// this version doesn't do.
pub(super) fn read(request: ExecProcessRequest) -> Result<AddExec, Status> {
    let id = id(&request.exec_id)?;
    let options = options(request.spec)?;
    let process = runtime::spec::read_process(&options.process).map_err(|e| invalid(e.to_string()))?;
    for warning in &process.warnings {
        diag::warn(format_args!("process {id}: {warning}"));
    }
    let mut process = process.value;
    process.set_terminal(Some(request.terminal));
    let terminal = request.terminal.then(|| console_size(&process)).transpose()?;
    let stdin = create::input(&request.stdin, options.open_stdin, options.stdin_once);
    let outputs = [create::output(&request.stdout)?, create::output(&request.stderr)?];
    let stdio = Config { terminal, stdin, outputs, log: None };
    let streams = Streams {
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr,
        terminal: request.terminal,
    };
    let on_disconnect = if options.kill_on_disconnect { OnDisconnect::Kill } else { OnDisconnect::GoOn };
    Ok(AddExec { id, process, user: options.user, stdio, streams, on_disconnect })
}

/// An exec id that is one.
///
/// # Errors
/// `InvalidArgument`.
pub(super) fn id(text: &str) -> Result<ExecId, Status> {
    text.parse().map_err(|e: berth::ids::InvalidId| invalid(e.to_string()))
}

/// What containerd's own shims say of a process in the answer to Pids.
pub(super) fn details(exec_id: &str) -> Any {
    let details = ProcessDetails { exec_id: exec_id.to_owned() };
    Any { type_url: "containerd.runc.v1.ProcessDetails".to_owned(), value: details.encode_to_vec() }
}

#[derive(prost::Message)]
struct ProcessDetails {
    #[prost(string, tag = "1")]
    exec_id: String,
}

fn options(spec: Option<Any>) -> Result<ExecOptions, Status> {
    let Some(any) = spec else { return Err(invalid("an exec without a process".to_owned())) };
    match any.type_url.rsplit('/').next() {
        Some(OPTIONS) => {
            ExecOptions::decode(&*any.value).map_err(|e| invalid(format!("decode {OPTIONS}: {e}")))
        }
        Some(PROCESS) => Ok(ExecOptions { process: any.value, ..ExecOptions::default() }),
        _ => Err(invalid(format!("an exec of {} is not possible", any.type_url.escape_debug()))),
    }
}

fn console_size(process: &oci_spec::runtime::Process) -> Result<Size, Status> {
    let size = process.console_size();
    let number = |n: Option<u64>| u32::try_from(n.unwrap_or(0)).unwrap_or(u32::MAX);
    create::size(number(size.map(|s| s.height())), number(size.map(|s| s.width())))
}

fn invalid(message: String) -> Status {
    Status::new(Code::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::stdio::InputFrom;

    const JSON: &str = r#"{"args":["ls"],"cwd":"/","user":{"uid":0,"gid":0}}"#;

    fn request(type_url: &str, value: Vec<u8>) -> ExecProcessRequest {
        let spec = Some(Any { type_url: type_url.to_owned(), value });
        ExecProcessRequest { exec_id: "e1".to_owned(), spec, ..Default::default() }
    }

    #[test]
    fn containerds_process_and_our_options() {
        let url = "types.containerd.io/opencontainers/runtime-spec/1/Process";
        let add = read(request(url, JSON.into())).expect("valid");
        assert_eq!((add.id.as_str(), add.user.as_str()), ("e1", ""));
        assert_eq!((add.stdio.stdin, add.on_disconnect), (InputFrom::Nothing, OnDisconnect::GoOn));
        let options = ExecOptions {
            process: JSON.into(),
            user: "web".to_owned(),
            open_stdin: true,
            kill_on_disconnect: true,
            ..Default::default()
        };
        let add = read(request(OPTIONS, options.encode_to_vec())).expect("valid");
        assert_eq!((add.user.as_str(), add.on_disconnect), ("web", OnDisconnect::Kill));
        assert_eq!(add.stdio.stdin, InputFrom::Clients { once: false });
    }

    #[test]
    fn what_is_no_process_is_refused() {
        for bad in [
            ExecProcessRequest { exec_id: "e1".to_owned(), ..Default::default() },
            request("x/Spec", JSON.into()),
            request(PROCESS, b"rubbish".to_vec()),
            ExecProcessRequest { exec_id: "../e".to_owned(), ..request(PROCESS, JSON.into()) },
        ] {
            assert_eq!(read(bad).expect_err("refused").code, Code::InvalidArgument);
        }
    }
}

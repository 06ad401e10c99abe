// SPDX-License-Identifier: Apache-2.0
//! A CreateTaskRequest, and what an update carries, as the supervisor wants it. Our engine says what the
//! streams are in its options; containerd names pipes and files.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use berth::{
    api::{
        shim::{CreateOptions, Log, log::Driver},
        task::CreateTaskRequest,
    },
    log::DROPPED_RECORD,
    ttrpc::{Code, Status},
};
use oci_spec::runtime::LinuxResources;
use prost::Message as _;
use prost_types::Any;

use crate::{
    io::{
        log::{Format, LogConfig, Settings, segments::Limits},
        stdio::{Config, InputFrom, OutputTo},
    },
    kernel::tty::Size,
    runtime,
    supervisor::call::{Change, Create, Streams},
};

/// Name of our engine's options; a prefix ending in `/` may stand before it.
const OPTIONS: &str = "berth.shim.v1.CreateOptions";

/// Name of what our engine changes of a log.
const LOG: &str = "berth.shim.v1.Log";

/// Checks and translates a request.
///
/// # Errors
/// `InvalidArgument` for what contradicts itself, `Unimplemented` for what
/// this version doesn't do.
pub(super) fn read(request: CreateTaskRequest) -> Result<Create, Status> {
    if !request.checkpoint.is_empty() {
        return Err(Status::new(Code::Unimplemented, "restoring from a checkpoint is not supported"));
    }
    let options = options(&request)?;
    let terminal = match request.terminal {
        true => Some(size(options.console_rows, options.console_columns)?),
        false => None,
    };
    let stdin = input(&request.stdin, options.open_stdin, options.stdin_once);
    let log = options.log.map(|wanted| log(wanted, &request.bundle)).transpose()?.flatten();
    let stdio =
        Config { terminal, stdin, outputs: [output(&request.stdout)?, output(&request.stderr)?], log };
    let streams = Streams {
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr,
        terminal: request.terminal,
    };
    Ok(Create {
        rootfs: request.rootfs,
        user: options.user,
        filter: options.seccomp_filter,
        init: options.init,
        limit: (options.timeout > 0).then(|| Duration::from_secs(options.timeout)),
        stdio,
        streams,
    })
}

/// What an update changes: limits, as JSON, by the name that containerd gives
/// to it, or, of our engine's, the log.
///
/// # Errors
/// `InvalidArgument` for anything else.
pub(super) fn update(any: Option<Any>) -> Result<Change, Status> {
    if let Some(any) = &any
        && any.type_url.rsplit('/').next() == Some(LOG)
    {
        let log = Log::decode(&*any.value)
            .map_err(|e| Status::new(Code::InvalidArgument, format!("decode {LOG}: {e}")))?;
        return Ok(Change::Log(Settings {
            limits: limits(&log),
            attributes: log.attributes.into_iter().collect(),
        }));
    }
    resources(any).map(|limits| Change::Resources(Box::new(limits)))
}

fn resources(any: Option<Any>) -> Result<LinuxResources, Status> {
    let invalid = |message: String| Status::new(Code::InvalidArgument, message);
    let any = any.ok_or_else(|| invalid("an update without resources".to_owned()))?;
    if any.type_url.rsplit('/').next() != Some("LinuxResources") {
        return Err(invalid(format!("an update of {} is not possible", any.type_url.escape_debug())));
    }
    runtime::spec::read_resources(&any.value).map_err(|e| invalid(e.to_string()))
}

/// A terminal's size.
///
/// # Errors
/// `InvalidArgument` when a number is above 65535.
pub(super) fn size(rows: u32, columns: u32) -> Result<Size, Status> {
    match (u16::try_from(rows), u16::try_from(columns)) {
        (Ok(rows), Ok(columns)) => Ok(Size { rows, columns }),
        _ => Err(Status::new(Code::InvalidArgument, format!("invalid terminal size {columns}x{rows}"))),
    }
}

fn options(request: &CreateTaskRequest) -> Result<CreateOptions, Status> {
    match &request.options {
        Some(any) if any.type_url.rsplit('/').next() == Some(OPTIONS) => CreateOptions::decode(&*any.value)
            .map_err(|e| Status::new(Code::InvalidArgument, format!("decode {OPTIONS}: {e}"))),
        // Options for runc, say: containerd passes them to whoever it runs.
        _ => Ok(CreateOptions::default()),
    }
}

fn log(log: Log, bundle: &str) -> Result<Option<LogConfig>, Status> {
    let format = match log.driver() {
        Driver::Unspecified | Driver::None => return Ok(None),
        Driver::Local => Format::Cri,
        Driver::JsonFile => Format::JsonFile,
    };
    let path = PathBuf::from(&log.path);
    if !path.is_absolute() {
        return Err(Status::new(
            Code::InvalidArgument,
            format!("log path {} is not absolute", path.display()),
        ));
    }
    let dropped = (!bundle.is_empty()).then(|| Path::new(bundle).join(DROPPED_RECORD));
    let limits = Limits { path, ..limits(&log) };
    Ok(Some(LogConfig {
        format,
        limits,
        dropped,
        untold: (log.untold_lines, log.untold_bytes),
        attributes: log.attributes.into_iter().collect(),
    }))
}

fn limits(log: &Log) -> Limits {
    Limits {
        path: PathBuf::new(),
        max_size: log.max_size,
        max_files: log.max_files,
        max_age: Duration::from_secs(log.max_age),
        max_total: log.max_total,
    }
}

/// Where input comes from: a named pipe, or attached clients when it is open.
pub(super) fn input(pipe: &str, open: bool, once: bool) -> InputFrom {
    match (pipe, open) {
        ("", false) => InputFrom::Nothing,
        ("", true) => InputFrom::Clients { once },
        (pipe, _) => InputFrom::Fifo(PathBuf::from(pipe)),
    }
}

pub(super) fn output(text: &str) -> Result<OutputTo, Status> {
    OutputTo::parse(text).map_err(|message| Status::new(Code::Unimplemented, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_options(options: &CreateOptions, type_url: &str) -> CreateTaskRequest {
        let any = prost_types::Any { type_url: type_url.to_owned(), value: options.encode_to_vec() };
        CreateTaskRequest { options: Some(any), ..Default::default() }
    }

    #[test]
    fn our_engines_options_count_and_others_are_passed_over() {
        let options = CreateOptions {
            user: "web".to_owned(),
            open_stdin: true,
            stdin_once: true,
            ..Default::default()
        };
        for url in ["berth.shim.v1.CreateOptions", "type.googleapis.com/berth.shim.v1.CreateOptions"] {
            let create = read(with_options(&options, url)).expect("valid");
            assert_eq!(create.user, "web");
            assert_eq!(create.stdio.stdin, InputFrom::Clients { once: true });
        }
        let create = read(with_options(&options, "containerd.runc.v1.Options")).expect("valid");
        assert_eq!((create.user.as_str(), create.stdio.stdin), ("", InputFrom::Nothing));
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        let log = Log { driver: Driver::Local.into(), path: "relative".to_owned(), ..Default::default() };
        let relative = with_options(&CreateOptions { log: Some(log), ..Default::default() }, OPTIONS);
        assert_eq!(read(relative).expect_err("refused").code, Code::InvalidArgument);
        let large = CreateOptions { console_rows: 70_000, ..Default::default() };
        let large = CreateTaskRequest { terminal: true, ..with_options(&large, OPTIONS) };
        assert_eq!(read(large).expect_err("refused").code, Code::InvalidArgument);
        let binary = CreateTaskRequest { stdout: "binary:///x".to_owned(), ..Default::default() };
        assert_eq!(read(binary).expect_err("refused").code, Code::Unimplemented);
    }

    #[test]
    fn containerds_pipes_and_files() {
        let request = CreateTaskRequest {
            stdin: "/run/in".to_owned(),
            stdout: "/run/out".to_owned(),
            stderr: "file:///tmp/err".to_owned(),
            ..Default::default()
        };
        let create = read(request).expect("valid");
        assert_eq!(create.stdio.stdin, InputFrom::Fifo("/run/in".into()));
        assert_eq!(
            create.stdio.outputs,
            [OutputTo::Fifo("/run/out".into()), OutputTo::File("/tmp/err".into())]
        );
        assert_eq!(create.streams.stdout, "/run/out");
    }
}

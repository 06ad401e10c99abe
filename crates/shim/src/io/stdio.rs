// SPDX-License-Identifier: Apache-2.0
//! Sets a container's standard streams up: which pipes there are before it is
//! made, and what runs on them afterwards.

use std::{
    fs::OpenOptions,
    io,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    rc::Rc,
};

use nix::{fcntl::OFlag, unistd::pipe2};
use tokio::{net::UnixStream, sync::mpsc, task::JoinSet};

use super::{
    Stream,
    attach::{self, Attachable},
    fifo::{self, KeepOpen},
    input::{self, Input},
    log::{Format, Log, segments::Limits},
    output::{Output, RawFile, Source},
    queue::Framing,
};
use crate::kernel::{tty::Size, watch::watch};

/// What the standard streams of a container are connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// A terminal of this size instead of three pipes.
    pub terminal: Option<Size>,
    /// Where input comes from.
    pub stdin: InputFrom,
    /// Where output goes besides the log and attached clients.
    pub outputs: [OutputTo; 2],
    /// The log.
    pub log: Option<LogConfig>,
}

/// Which log is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// How a line looks.
    pub format: Format,
    /// Where it is and how large it gets.
    pub limits: Limits,
}

/// Where a container's input comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputFrom {
    /// End of file at once.
    Nothing,
    /// Attached clients.
    Clients {
        /// The first that leaves closes it.
        once: bool,
    },
    /// A named pipe.
    Fifo(PathBuf),
}

/// Where a stream goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputTo {
    /// Nowhere in particular.
    Nothing,
    /// A named pipe.
    Fifo(PathBuf),
    /// A file, appended to.
    File(PathBuf),
}

impl OutputTo {
    /// As containerd writes it: a path, or a URI.
    ///
    /// # Errors
    /// A line for the user when the scheme isn't supported.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once("://") {
            None if text.is_empty() => Ok(Self::Nothing),
            None => Ok(Self::Fifo(text.into())),
            Some(("fifo", path)) => Ok(Self::Fifo(path.into())),
            Some(("file", path)) => Ok(Self::File(path.into())),
            Some((scheme, _)) => Err(format!("output to {scheme}:// is not supported")),
        }
    }
}

/// The container's ends of its pipes.
#[derive(Debug)]
pub struct ChildPipes {
    /// To read from.
    pub stdin: OwnedFd,
    /// To write to.
    pub stdout: OwnedFd,
    /// To write to.
    pub stderr: OwnedFd,
}

/// What was opened before the container exists.
#[derive(Debug)]
pub struct Opened {
    config: Config,
    /// Our ends; none with a terminal.
    stdin: Option<OwnedFd>,
    outputs: [Option<OwnedFd>; 2],
}

/// Opens pipes; `None` for the container's ends with a terminal.
///
/// # Errors
/// EMFILE and the like.
pub fn open(config: Config) -> io::Result<(Opened, Option<ChildPipes>)> {
    if config.terminal.is_some() {
        return Ok((Opened { config, stdin: None, outputs: [None, None] }, None));
    }
    let (child_stdin, stdin) = if config.stdin == InputFrom::Nothing {
        (OpenOptions::new().read(true).open("/dev/null")?.into(), None)
    } else {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        (read, Some(write))
    };
    let (out, child_out) = pipe2(OFlag::O_CLOEXEC)?;
    let (err, child_err) = pipe2(OFlag::O_CLOEXEC)?;
    let pipes = ChildPipes { stdin: child_stdin, stdout: child_out, stderr: child_err };
    Ok((Opened { config, stdin, outputs: [Some(out), Some(err)] }, Some(pipes)))
}

impl Opened {
    /// Starts to move bytes. `console` is the terminal's master.
    ///
    /// # Errors
    /// When a FIFO or file can't be opened, or a descriptor not be watched.
    pub fn connect(mut self, console: Option<OwnedFd>, tasks: &mut JoinSet<()>) -> io::Result<Stdio> {
        let console = console.map(shared).transpose()?;
        let [out, err] = self.outputs.map(|end| end.map(shared).transpose());
        let sources: [Option<Source>; 2] = [console.clone().map_or(out, |c| Ok(Some(c)))?, err?];
        let writer = match (&console, self.stdin.take()) {
            (Some(console), _) if self.config.stdin != InputFrom::Nothing => Some(Rc::clone(console)),
            (_, Some(stdin)) => Some(shared(stdin)?),
            _ => None,
        };
        let log = self.config.log.take().map(|log| Log::new(log.format, log.limits));
        let [to_out, to_err] = &self.config.outputs;
        let files = [open_file(to_out)?, open_file(to_err)?];
        let output = Output::new(console.is_some(), sources, log, files);
        for (stream, target) in Stream::ALL.into_iter().zip([to_out, to_err]) {
            if let OutputTo::Fifo(path) = target {
                write_fifo(path, stream, &output, tasks)?;
            }
        }
        for stream in Stream::ALL {
            tasks.spawn_local(Rc::clone(&output).pump(stream));
        }
        let (input, keep_open) = start_input(writer, &self.config.stdin, tasks)?;
        // A terminal stays open for whoever comes next: leaving it is detaching.
        let stdin_once = console.is_none() && self.config.stdin == InputFrom::Clients { once: true };
        Ok(Stdio { clients: Attachable { output, input, console, stdin_once }, keep_open })
    }
}

fn shared(fd: OwnedFd) -> io::Result<Source> {
    Ok(Rc::new(watch(fd)?))
}

fn open_file(target: &OutputTo) -> io::Result<Option<RawFile>> {
    let OutputTo::File(path) = target else { return Ok(None) };
    let file =
        OpenOptions::new().append(true).create(true).mode(0o640).open(path).map_err(|e| named(path, &e))?;
    Ok(Some(RawFile::new(file)))
}

fn write_fifo(path: &Path, stream: Stream, output: &Rc<Output>, tasks: &mut JoinSet<()>) -> io::Result<()> {
    // With a terminal there is no second stream, and nobody opens its pipe.
    if output.is_tty() && stream == Stream::Stderr {
        return Ok(());
    }
    let fifo = fifo::open_output(path).map_err(|e| named(path, &e))?;
    let wants = Stream::ALL.map(|s| s == stream);
    let subscriber = output.subscribe(wants, Framing::Raw);
    tasks.spawn_local(fifo::write_output(fifo, Rc::clone(output), subscriber));
    Ok(())
}

fn start_input(
    writer: Option<Source>,
    from: &InputFrom,
    tasks: &mut JoinSet<()>,
) -> io::Result<(Option<input::Sender>, Option<KeepOpen>)> {
    let Some(writer) = writer else { return Ok((None, None)) };
    // One message: a sender waits until the one before it was written.
    let (sender, receiver) = mpsc::channel(1);
    tasks.spawn_local(input::run(writer, receiver));
    let mut keep_open = None;
    if let InputFrom::Fifo(path) = from {
        let (fifo, keep) = fifo::open_stdin(path).map_err(|e| named(path, &e))?;
        tasks.spawn_local(fifo::read_stdin(fifo, sender.clone()));
        keep_open = Some(keep);
    }
    Ok((Some(sender), keep_open))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("open {}: {error}", path.display()))
}

/// The standard streams of a container that exists.
#[derive(Debug)]
pub struct Stdio {
    clients: Attachable,
    keep_open: Option<KeepOpen>,
}

impl Stdio {
    /// The container's output.
    #[must_use]
    pub fn output(&self) -> &Rc<Output> {
        &self.clients.output
    }

    /// Serves an attached client.
    pub fn attach(&self, client: UnixStream, tasks: &mut JoinSet<()>) {
        tasks.spawn_local(attach::serve(client, self.clients.clone()));
    }

    /// No more input, once what is under way has been written.
    pub fn close_stdin(&mut self, tasks: &mut JoinSet<()>) {
        if self.keep_open.take().is_some() {
            // The pipe ends when its client has closed it too.
            return;
        }
        if let Some(input) = self.clients.input.clone() {
            tasks.spawn_local(async move {
                // Fails when nothing reads any more: then it's closed.
                let _ = input.send(Input::Close).await;
            });
        }
    }

    /// Changes the terminal's size; nothing without a terminal.
    pub fn resize(&self, size: Size) {
        if let Some(console) = &self.clients.console {
            attach::resize(console, size);
        }
    }

    /// The container has ended: nobody's input is wanted any more.
    pub fn end(&mut self) {
        self.clients.output.close();
        self.clients.input = None;
        self.clients.console = None;
        self.keep_open = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containerds_ways_to_name_an_output() {
        assert_eq!(OutputTo::parse(""), Ok(OutputTo::Nothing));
        assert_eq!(OutputTo::parse("/run/x-stdout"), Ok(OutputTo::Fifo("/run/x-stdout".into())));
        assert_eq!(OutputTo::parse("fifo:///run/x"), Ok(OutputTo::Fifo("/run/x".into())));
        assert_eq!(OutputTo::parse("file:///tmp/x.log"), Ok(OutputTo::File("/tmp/x.log".into())));
        assert!(OutputTo::parse("binary:///usr/bin/logger?x=y").is_err());
    }
}

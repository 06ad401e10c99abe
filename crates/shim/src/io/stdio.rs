// SPDX-License-Identifier: Apache-2.0
//! The standard streams of a process: which pipes there are before it is made,
//! and what runs on them afterwards.

use std::{
    fs::OpenOptions,
    io,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    rc::Rc,
};

use nix::{fcntl::OFlag, unistd::pipe2};
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    Stream,
    attach::{self, Attachable, Client, Left, Terminal},
    fifo::{self, KeepOpen},
    input::{self, Input},
    log::{Log, LogConfig},
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

/// The standard streams of a process: first they are only known, and clients
/// may attach; then opened; then, with the process there, connected.
#[derive(Debug)]
pub struct Stdio {
    clients: Attachable,
    stdin: InputFrom,
    outputs: [OutputTo; 2],
    /// What clients send before there is anything to write to.
    queue: Option<mpsc::Receiver<Input>>,
    /// Our ends of the pipes, until they are connected.
    ends: Ends,
    keep_open: Option<KeepOpen>,
}

#[derive(Debug, Default)]
struct Ends {
    stdin: Option<OwnedFd>,
    outputs: [Option<OwnedFd>; 2],
}

impl Stdio {
    /// Streams of a process that doesn't exist yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let Config { terminal, stdin, outputs, log } = config;
        let log = log.map(Log::new);
        // One message: a sender waits until the one before it was written.
        let (sender, receiver) = mpsc::channel(1);
        let (input, queue) = match stdin {
            InputFrom::Nothing => (None, None),
            InputFrom::Clients { .. } | InputFrom::Fifo(_) => (Some(sender), Some(receiver)),
        };
        let clients = Attachable {
            output: Output::new(terminal.is_some(), log),
            input,
            terminal: Rc::new(Terminal::new(terminal)),
            // A terminal stays open for whoever comes next: leaving it is detaching.
            stdin_once: terminal.is_none() && stdin == InputFrom::Clients { once: true },
        };
        Self { clients, stdin, outputs, queue, ends: Ends::default(), keep_open: None }
    }

    /// Opens the pipes; `None` for the process' ends with a terminal.
    ///
    /// # Errors
    /// EMFILE and the like.
    pub fn open(&mut self) -> io::Result<Option<ChildPipes>> {
        if self.size().is_some() {
            return Ok(None);
        }
        let (child_stdin, stdin) = if self.stdin == InputFrom::Nothing {
            (OpenOptions::new().read(true).open("/dev/null")?.into(), None)
        } else {
            let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
            (read, Some(write))
        };
        let (out, child_out) = pipe2(OFlag::O_CLOEXEC)?;
        let (err, child_err) = pipe2(OFlag::O_CLOEXEC)?;
        self.ends = Ends { stdin, outputs: [Some(out), Some(err)] };
        Ok(Some(ChildPipes { stdin: child_stdin, stdout: child_out, stderr: child_err }))
    }

    /// Starts to move bytes. `console` is the terminal's master.
    ///
    /// # Errors
    /// When a FIFO or file can't be opened, or a descriptor not be watched.
    pub fn connect(&mut self, console: Option<OwnedFd>, tasks: &mut JoinSet<()>) -> io::Result<()> {
        let console = console.map(shared).transpose()?;
        let ends = std::mem::take(&mut self.ends);
        let [out, err] = ends.outputs.map(|end| end.map(shared).transpose());
        let sources: [Option<Source>; 2] = [console.clone().map_or(out, |c| Ok(Some(c)))?, err?];
        let writer = match (&console, ends.stdin) {
            (Some(console), _) => Some(Rc::clone(console)),
            (None, stdin) => stdin.map(shared).transpose()?,
        };
        let output = &self.clients.output;
        output.begin(sources, [open_file(&self.outputs[0])?, open_file(&self.outputs[1])?]);
        for (stream, target) in Stream::ALL.into_iter().zip(&self.outputs) {
            if let OutputTo::Fifo(path) = target {
                write_fifo(path, stream, output, tasks)?;
            }
        }
        for stream in Stream::ALL {
            tasks.spawn_local(Rc::clone(output).pump(stream));
        }
        self.clients.terminal.set(console);
        self.start_input(writer, tasks)
    }

    fn start_input(&mut self, writer: Option<Source>, tasks: &mut JoinSet<()>) -> io::Result<()> {
        let (Some(writer), Some(queue)) = (writer, self.queue.take()) else { return Ok(()) };
        tasks.spawn_local(input::run(writer, queue));
        if let (InputFrom::Fifo(path), Some(sender)) = (&self.stdin, &self.clients.input) {
            let (fifo, keep) = fifo::open_stdin(path).map_err(|e| named(path, &e))?;
            tasks.spawn_local(fifo::read_stdin(fifo, sender.clone()));
            self.keep_open = Some(keep);
        }
        Ok(())
    }

    /// The size of the terminal; `None` where there is none.
    #[must_use]
    pub fn size(&self) -> Option<Size> {
        self.clients.terminal.size()
    }

    /// The output.
    #[must_use]
    pub fn output(&self) -> &Rc<Output> {
        &self.clients.output
    }

    /// Serves an attached client, which misses nothing from now on.
    pub fn attach(&self, client: Client) -> impl Future<Output = Left> + use<> {
        attach::serve(client, self.clients.clone())
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

    /// Changes the terminal's size, or the one that it will have.
    pub fn resize(&self, size: Size) {
        self.clients.terminal.resize(size);
    }

    /// The container has ended: nobody's input is wanted any more.
    pub fn end(&mut self) {
        self.clients.output.close();
        self.end_input();
    }

    /// A process has ended, and others may still have its output: they aren't
    /// listened to any more.
    pub fn release(&mut self) {
        self.clients.output.release();
        self.end_input();
    }

    fn end_input(&mut self) {
        self.clients.input = None;
        self.clients.terminal.set(None);
        self.keep_open = None;
        self.queue = None;
        self.ends = Ends::default();
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

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("open {}: {error}", path.display()))
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

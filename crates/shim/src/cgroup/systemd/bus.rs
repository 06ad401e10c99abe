// SPDX-License-Identifier: Apache-2.0
//! The connection to a systemd, over its private socket: no bus is between,
//! so that none has to run, and its signals come without asking.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    scope::Manager,
    wire::{Call, FIXED, Kind, Message, Reader, Writer, message_length},
};
use crate::{
    kernel::SysError,
    runtime::{Error, Kind as ErrorKind, Result},
};

const DESTINATION: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// How long systemd may take for an answer, or for a job.
const WITHIN: Duration = Duration::from_secs(30);
/// Lines of its greeting.
const LINE: usize = 512;

/// A connection to a systemd.
#[derive(Debug)]
pub(super) struct Bus {
    stream: UnixStream,
    path: PathBuf,
    serial: u32,
    /// Jobs that have ended, and how, that nobody has asked for yet.
    ended: Vec<(String, String)>,
}

/// An answer that is an error.
#[derive(Debug)]
pub(super) struct Refusal {
    /// `org.freedesktop.systemd1.NoSuchUnit`
    pub(super) name: String,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn is(&self, name: &str) -> bool {
        self.name.rsplit('.').next() == Some(name)
    }
}

impl Bus {
    /// Connects to the system's systemd or to a user's.
    ///
    /// # Errors
    /// When it doesn't run, or takes us for somebody else.
    pub(super) fn of(manager: &Manager) -> Result<Self> {
        match manager {
            Manager::System => Self::connect(Path::new("/run/systemd/private")),
            Manager::User { socket, .. } => Self::connect(socket),
        }
    }

    pub(super) fn connect(path: &Path) -> Result<Self> {
        let failed = |e: &io::Error| {
            let e = SysError::from_io(format!("connect({path:?})"), e);
            Error::new(ErrorKind::Unsupported, format!("the systemd cgroup driver needs systemd: {e}"))
        };
        let stream = UnixStream::connect(path).map_err(|e| failed(&e))?;
        let timeouts =
            stream.set_read_timeout(Some(WITHIN)).and_then(|()| stream.set_write_timeout(Some(WITHIN)));
        timeouts.map_err(|e| failed(&e))?;
        let mut bus = Self { stream, path: path.to_owned(), serial: 0, ended: Vec::new() };
        bus.authenticate().map_err(|e| bus.broken(&e))?;
        Ok(bus)
    }

    /// SASL with what the kernel says of us: the user's number in decimal, in
    /// hexadecimal digits. `BEGIN` goes along, before the answer is known:
    /// systemd reads it together with the line before. A message that it read
    /// together with `BEGIN` it would not look at until more comes.
    fn authenticate(&mut self) -> io::Result<()> {
        let user = nix::unistd::geteuid().to_string();
        let digits: String = user.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.stream.write_all(format!("\0AUTH EXTERNAL {digits}\r\nBEGIN\r\n").as_bytes())?;
        let answer = self.line()?;
        if !answer.starts_with("OK ") {
            return Err(io::Error::other(format!("it answers {answer:?} to our user")));
        }
        Ok(())
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            line.push(byte[0]);
            if line.len() > LINE {
                return Err(io::Error::other("its greeting has no end"));
            }
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    /// Calls a method of the manager.
    ///
    /// # Errors
    /// When the connection breaks; the answer may be a refusal.
    pub(super) fn call(
        &mut self,
        member: &str,
        signature: &str,
        arguments: Writer,
    ) -> Result<std::result::Result<Message, Refusal>> {
        self.call_interface(MANAGER, member, signature, arguments)
    }

    fn call_interface(
        &mut self,
        interface: &str,
        member: &str,
        signature: &str,
        arguments: Writer,
    ) -> Result<std::result::Result<Message, Refusal>> {
        self.serial += 1;
        let serial = self.serial;
        let call = Call { path: PATH, interface, member, signature, body: arguments.finish() };
        self.stream.write_all(&call.encode(DESTINATION, serial)).map_err(|e| self.broken(&e))?;
        let deadline = Instant::now() + WITHIN;
        loop {
            let message = self.receive(deadline)?;
            match message.kind {
                Kind::Return if message.reply_to == Some(serial) => return Ok(Ok(message)),
                Kind::Error if message.reply_to == Some(serial) => {
                    let text = message.body().text().unwrap_or_default().to_owned();
                    return Ok(Err(Refusal { name: message.error, message: text }));
                }
                _ => self.note(&message),
            }
        }
    }

    /// Waits until a job has ended: `done`, or why not.
    ///
    /// # Errors
    /// When it doesn't end in time.
    pub(super) fn wait_for_job(&mut self, job: &str) -> Result<String> {
        let deadline = Instant::now() + WITHIN;
        loop {
            if let Some(position) = self.ended.iter().position(|(known, _)| known == job) {
                return Ok(self.ended.swap_remove(position).1);
            }
            let message = self.receive(deadline)?;
            self.note(&message);
        }
    }

    /// A text property of the manager.
    ///
    /// # Errors
    /// When it has no such property.
    pub(super) fn manager_property(&mut self, name: &str) -> Result<String> {
        let mut arguments = Writer::default();
        arguments.text(MANAGER);
        arguments.text(name);
        let answer = self.call_interface("org.freedesktop.DBus.Properties", "Get", "ss", arguments)?;
        let text = answer.ok().and_then(|message| {
            let mut body = message.body();
            (body.signature()? == "s").then(|| body.text().map(ToOwned::to_owned))?
        });
        text.ok_or_else(|| self.error(&format!("it doesn't tell its {name}")))
    }

    fn note(&mut self, message: &Message) {
        if message.kind != Kind::Signal || message.member != "JobRemoved" {
            return;
        }
        // Number, path, unit, result.
        let read = |mut body: Reader<'_>| -> Option<(String, String)> {
            body.u32()?;
            let job = body.text()?.to_owned();
            body.text()?;
            Some((job, body.text()?.to_owned()))
        };
        self.ended.extend(read(message.body()));
    }

    fn receive(&mut self, deadline: Instant) -> Result<Message> {
        if Instant::now() >= deadline {
            return Err(self.error("it doesn't answer"));
        }
        let mut bytes = vec![0; FIXED];
        self.stream.read_exact(&mut bytes).map_err(|e| self.broken(&e))?;
        let length = message_length(&bytes).ok_or_else(|| self.error("it says what is no message"))?;
        bytes.resize(length, 0);
        self.stream.read_exact(&mut bytes[FIXED..]).map_err(|e| self.broken(&e))?;
        Message::decode(&bytes).ok_or_else(|| self.error("it says what is no message"))
    }

    fn broken(&self, e: &io::Error) -> Error {
        self.error(&e.to_string())
    }

    fn error(&self, why: &str) -> Error {
        Error::new(ErrorKind::Os, format!("talk to systemd at {}: {why}", self.path.display()))
    }
}

/// Where the caller's own manager listens.
pub(super) fn users_socket() -> PathBuf {
    let dir = std::env::var_os("XDG_RUNTIME_DIR")
        .filter(|dir| !dir.is_empty())
        .map_or_else(|| PathBuf::from(format!("/run/user/{}", nix::unistd::geteuid())), PathBuf::from);
    dir.join("systemd/private")
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Bytes of a message in little endian, from its fields and its body.
    fn message(kind: u8, fields: &[u8], body: &[u8]) -> Vec<u8> {
        let length = |n: usize| u32::try_from(n).expect("length").to_le_bytes();
        let mut bytes = vec![b'l', kind, 0, 1];
        bytes.extend(length(body.len()));
        bytes.extend(length(1));
        bytes.extend(length(fields.len()));
        bytes.extend(fields);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend(body);
        bytes
    }

    /// A systemd that says what it's told to, once it has been asked.
    fn systemd(answers: Vec<Vec<u8>>) -> (tempfile::TempDir, std::thread::JoinHandle<Vec<u8>>) {
        let dir = tempfile::tempdir().expect("tempdir");
        let listener = UnixListener::bind(dir.path().join("private")).expect("bind");
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accept");
            let mut heard = Vec::new();
            let mut hear = |until: &[u8], stream: &mut UnixStream| {
                let mut byte = [0];
                while !heard.ends_with(until) {
                    stream.read_exact(&mut byte).expect("read");
                    heard.push(byte[0]);
                }
            };
            hear(b"BEGIN\r\n", &mut stream);
            stream.write_all(b"OK 0123\r\n").expect("write");
            let mut fixed = [0; FIXED];
            stream.read_exact(&mut fixed).expect("read");
            let mut rest = vec![0; message_length(&fixed).expect("a call") - FIXED];
            stream.read_exact(&mut rest).expect("read");
            answers.into_iter().for_each(|answer| stream.write_all(&answer).expect("write"));
            [&heard[..], &fixed, &rest].concat()
        });
        (dir, thread)
    }

    const REPLY_TO_1: [u8; 8] = [5, 1, b'u', 0, 1, 0, 0, 0];

    #[test]
    fn a_job_is_waited_for_also_when_it_has_ended_before_the_answer() {
        let text = |text: &str| {
            let mut writer = Writer::default();
            writer.text(text);
            writer.finish()
        };
        let mut removed = Writer::default();
        removed.u32(1);
        ["/job/1", "x.scope", "done"].iter().for_each(|text| removed.text(text));
        let member = [&[3, 1, b's', 0, 10, 0, 0, 0][..], b"JobRemoved\0"].concat();
        let (dir, thread) =
            systemd(vec![message(4, &member, &removed.finish()), message(2, &REPLY_TO_1, &text("/job/1"))]);
        let mut bus = Bus::connect(&dir.path().join("private")).expect("connect");
        let answer = bus.call("StopUnit", "", Writer::default()).expect("call").expect("answer");
        let job = answer.body().text().expect("job").to_owned();
        assert_eq!(bus.wait_for_job(&job).expect("job"), "done");
        let heard = thread.join().expect("systemd");
        let digits: String =
            nix::unistd::geteuid().to_string().bytes().map(|byte| format!("{byte:02x}")).collect();
        assert!(heard.starts_with(format!("\0AUTH EXTERNAL {digits}\r\nBEGIN\r\n").as_bytes()));
    }

    #[test]
    fn a_refusal_has_a_name() {
        let error =
            [&[4, 1, b's', 0, 38, 0, 0, 0][..], b"org.freedesktop.systemd1.NoSuchUnit.xx\0\0", &REPLY_TO_1];
        // The name's length is what counts; what follows is aligned.
        let mut fields = error[..2].concat();
        fields.truncate(8 + 39);
        fields.resize(fields.len().next_multiple_of(8), 0);
        fields.extend(REPLY_TO_1);
        let (dir, thread) = systemd(vec![message(3, &fields, &[])]);
        let mut bus = Bus::connect(&dir.path().join("private")).expect("connect");
        let refusal = bus.call("StopUnit", "", Writer::default()).expect("call").expect_err("refused");
        assert!(refusal.is("xx") && !refusal.is("NoSuchUnit"), "{refusal:?}");
        thread.join().expect("systemd");
    }

    #[test]
    fn no_systemd_is_said_so() {
        let e = Bus::connect(Path::new("/nonexistent/private")).expect_err("nobody there");
        assert_eq!(e.kind(), ErrorKind::Unsupported);
    }
}

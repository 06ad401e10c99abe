// SPDX-License-Identifier: Apache-2.0
//! The API's sockets: made so that nobody reaches them before their
//! permissions are right, and accepted from without ever giving up.

use std::{
    fs,
    future::Future,
    io,
    net::TcpListener as StdTcpListener,
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::{Stream, stream};
use nix::unistd::{Gid, Group, chown};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::{
    config::Config,
    error::{Context as _, Error, Kind, Result},
};

/// Owner and group may connect.
const SOCKET_MODE: u32 = 0o660;

/// How long to wait when descriptors or memory have run out.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// The sockets that the API is served on.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) unix: UnixListener,
    pub(super) tcp: Option<(TcpListener, tonic::transport::ServerTlsConfig)>,
    /// Last: the file goes when nobody accepts any more.
    pub(super) file: SocketFile,
}

impl Listeners {
    /// Binds what `config` asks for. The caller holds the engine's locks.
    ///
    /// # Errors
    /// `FailedPrecondition` when somebody serves there; those of the host.
    pub(super) fn bind(config: &Config) -> Result<Self> {
        let path = config.address.path();
        let group = group(&config.socket_group)?;
        let (unix, file) = unix(path, group)?;
        let tcp = match &config.tcp {
            Some(tcp) => Some((bind_tcp(tcp.address)?, super::serve::tls(tcp)?)),
            None => None,
        };
        Ok(Self { unix, tcp, file })
    }
}

/// A group by name or number.
#[expect(clippy::disallowed_methods, reason = "the engine is linked to the host's C library")]
fn group(name: &str) -> Result<Gid> {
    if let Ok(number) = name.parse() {
        return Ok(Gid::from_raw(number));
    }
    let found = Group::from_name(name).with_context(|| format!("look up the group {name}"))?;
    let missing = || Error::new(Kind::InvalidArgument, format!("socket_group: there is no group {name}"));
    Ok(found.ok_or_else(missing)?.gid)
}

fn unix(path: &Path, group: Gid) -> Result<(UnixListener, SocketFile)> {
    remove_stale(path)?;
    // The umask leaves a new socket to its owner; only then is it opened up.
    let socket = StdUnixListener::bind(path).with_context(|| format!("listen on {}", path.display()))?;
    let file = SocketFile(path.to_owned());
    chown(path, None, Some(group)).with_context(|| format!("give {} to its group", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))
        .with_context(|| format!("set the permissions of {}", path.display()))?;
    socket.set_nonblocking(true).context("prepare the API's socket")?;
    Ok((UnixListener::from_std(socket).context("watch the API's socket")?, file))
}

/// Removes what an engine left that had no time to.
fn remove_stale(path: &Path) -> Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e).with_context(|| format!("look at {}", path.display())),
    };
    let refuse = |what: &str| Err(Error::new(Kind::FailedPrecondition, format!("{} {what}", path.display())));
    if !metadata.file_type().is_socket() {
        return refuse("exists and is not a socket: move it away, or choose another --address");
    }
    match StdUnixStream::connect(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).with_context(|| format!("remove the stale socket {}", path.display()))
        }
        Ok(_) => refuse("is served by another process: stop it, or choose another --address"),
        Err(e) => Err(e).with_context(|| format!("see whether anybody serves {}", path.display())),
    }
}

fn bind_tcp(address: std::net::SocketAddr) -> Result<TcpListener> {
    let listen = || {
        let socket = StdTcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        TcpListener::from_std(socket)
    };
    listen().with_context(|| format!("listen on {address}"))
}

/// Removes the socket's file when dropped.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_file(&self.0) {
            tracing::warn!("remove {}: {e}", self.0.display());
        }
    }
}

/// Connections to the unix socket, for ever.
pub(super) fn unix_connections(socket: UnixListener) -> impl Stream<Item = io::Result<UnixStream>> {
    stream::unfold(socket, |socket| async {
        let stream = accepted(|| async { Ok(socket.accept().await?.0) }).await;
        Some((Ok(stream), socket))
    })
}

/// Connections to the TCP socket, for ever.
pub(super) fn tcp_connections(socket: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> {
    stream::unfold(socket, |socket| async {
        let stream = accepted(|| async {
            let (stream, _) = socket.accept().await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        })
        .await;
        Some((Ok(stream), socket))
    })
}

/// The next connection. No error of accept(2) is the socket's end: most are of
/// one client that went away, the rest of a host that has run out.
async fn accepted<T, F: Future<Output = io::Result<T>>>(accept: impl Fn() -> F) -> T {
    loop {
        match accept().await {
            Ok(stream) => return stream,
            Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(e) => {
                tracing::warn!("accept a connection: {e}");
                tokio::time::sleep(EXHAUSTED).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn own_group() -> Gid {
        nix::unistd::getegid()
    }

    #[tokio::test]
    async fn the_socket_is_for_owner_and_group_and_goes_with_the_listener() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("berth.sock");
        let bound = unix(&path, own_group()).expect("bind");
        assert_eq!(fs::metadata(&path).expect("metadata").mode() & 0o7777, 0o660);
        drop(bound);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_that_nobody_serves_is_replaced_and_a_served_one_is_not() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("berth.sock");
        drop(StdUnixListener::bind(&path).expect("bind"));
        let bound = unix(&path, own_group()).expect("replaces a stale one");
        let error = unix(&path, own_group()).expect_err("served");
        assert!(error.to_string().contains("is served by another process"), "{error}");
        StdUnixStream::connect(&path).expect("still served");
        drop(bound);
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("berth.sock");
        fs::write(&path, "precious").expect("write");
        assert!(unix(&path, own_group()).is_err());
        assert_eq!(fs::read_to_string(&path).expect("read"), "precious");
    }

    #[test]
    fn a_group_has_a_name_or_a_number() {
        assert_eq!(group("root").expect("root"), Gid::from_raw(0));
        assert_eq!(group("1234").expect("number"), Gid::from_raw(1234));
        let error = group("no-such-group").expect_err("unknown");
        assert_eq!(error.to_string(), "socket_group: there is no group no-such-group");
    }

    #[tokio::test(start_paused = true)]
    async fn running_out_of_descriptors_is_waited_out() {
        let failures = std::cell::Cell::new(3);
        let accept = || {
            let left = failures.get();
            failures.set(left - 1);
            async move { if left > 0 { Err(io::Error::from_raw_os_error(libc::EMFILE)) } else { Ok(left) } }
        };
        assert_eq!(accepted(accept).await, 0);
    }
}

// SPDX-License-Identifier: Apache-2.0
//! The other side: a connection that is never waited for by who writes to it.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::errno::Errno;
use tokio::net::{TcpStream, UdpSocket, UnixDatagram, UnixStream};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// host:port
    Udp(String),
    /// host:port
    Tcp(String),
    /// A unix socket of a stream.
    Stream(PathBuf),
    /// A unix socket of datagrams.
    Datagrams(PathBuf),
    /// Whatever is at this path.
    Either(PathBuf),
}

#[derive(Debug)]
pub(super) struct Sink {
    connection: Connection,
    /// What is left of a message that a stream took a part of.
    rest: Vec<u8>,
}

#[derive(Debug)]
enum Connection {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Stream(UnixStream),
    Datagrams(UnixDatagram),
}

impl Sink {
    pub(super) async fn connect(address: &Address) -> io::Result<Self> {
        let connecting = connect(address);
        let connection = tokio::time::timeout(CONNECT, connecting)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        Ok(Self { connection, rest: Vec::new() })
    }

    /// Sends one message, as a whole. After `WouldBlock` the same one has to
    /// be sent again: what was taken of it is remembered.
    pub(super) fn send(&mut self, message: impl FnOnce() -> Vec<u8>) -> io::Result<()> {
        if self.rest.is_empty() {
            self.rest = message();
        }
        while !self.rest.is_empty() {
            let sent = match &self.connection {
                Connection::Udp(socket) => socket.try_send(&self.rest),
                Connection::Datagrams(socket) => socket.try_send(&self.rest),
                Connection::Tcp(stream) => stream.try_write(&self.rest),
                Connection::Stream(stream) => stream.try_write(&self.rest),
            };
            match sent {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => drop(self.rest.drain(..count)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(e),
                Err(e) => {
                    self.rest.clear();
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    /// Waits until it takes more, or has an error to tell.
    pub(super) async fn writable(&self) {
        let ready = async {
            match &self.connection {
                Connection::Udp(socket) => socket.writable().await,
                Connection::Tcp(stream) => stream.writable().await,
                Connection::Stream(stream) => stream.writable().await,
                Connection::Datagrams(socket) => socket.writable().await,
            }
        };
        // The next attempt finds out what an error means.
        drop(ready.await);
    }
}

async fn connect(address: &Address) -> io::Result<Connection> {
    Ok(match address {
        Address::Udp(address) => {
            let mut last = io::Error::from(io::ErrorKind::NotFound);
            for to in tokio::net::lookup_host(address).await? {
                let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any).await?;
                match socket.connect(to).await {
                    Ok(()) => return Ok(Connection::Udp(socket)),
                    Err(e) => last = e,
                }
            }
            return Err(last);
        }
        Address::Tcp(address) => Connection::Tcp(TcpStream::connect(address).await?),
        Address::Stream(path) => Connection::Stream(UnixStream::connect(path).await?),
        Address::Datagrams(path) => Connection::Datagrams(datagrams(path)?),
        Address::Either(path) => match datagrams(path) {
            Ok(socket) => Connection::Datagrams(socket),
            Err(e) if e.raw_os_error() == Some(Errno::EPROTOTYPE as i32) => {
                Connection::Stream(UnixStream::connect(path).await?)
            }
            Err(e) => return Err(e),
        },
    })
}

fn datagrams(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(socket)
}

/// Whether it is the message that is wrong, not the connection.
pub(super) fn is_too_large(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EMSGSIZE as i32)
}

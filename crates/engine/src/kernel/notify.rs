// SPDX-License-Identifier: Apache-2.0
//! Telling the service manager how we are: sd_notify(3), a datagram of
//! `KEY=value` lines to the socket that `NOTIFY_SOCKET` names.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

/// The service manager, if one is listening.
#[derive(Debug)]
pub struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
}

impl Notifier {
    /// The service manager that started us; quiet when there is none.
    ///
    /// # Errors
    /// When `NOTIFY_SOCKET` can't be an address, or no socket can be made.
    pub fn from_env() -> io::Result<Self> {
        env::var_os("NOTIFY_SOCKET").map_or(Ok(Self { socket: None }), |name| Self::to(&name))
    }

    fn to(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "NOTIFY_SOCKET is not an address")),
        };
        Ok(Self { socket: Some((UnixDatagram::unbound()?, address)) })
    }

    /// We serve.
    pub fn ready(&self) {
        self.send(&format!("READY=1\nMAINPID={}", std::process::id()));
    }

    /// We are about to stop.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// Starting or stopping takes up to `time` from now.
    pub fn extend(&self, time: Duration) {
        self.send(&format!("EXTEND_TIMEOUT_USEC={}", time.as_micros()));
    }

    fn send(&self, state: &str) {
        if let Some((socket, address)) = &self.socket
            && let Err(e) = socket.send_to_addr(state.as_bytes(), address)
        {
            tracing::warn!("tell the service manager {state:?}: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
        let length = socket.recv(&mut buffer).expect("a datagram");
        String::from_utf8(buffer[..length].to_vec()).expect("text")
    }

    #[test]
    fn a_manager_hears_of_it_by_path_and_by_abstract_name() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("notify");
        let by_path = UnixDatagram::bind(&path).expect("bind");
        Notifier::to(path.as_os_str()).expect("address").ready();
        assert_eq!(heard(&by_path), format!("READY=1\nMAINPID={}", std::process::id()));

        let name = format!("berth-notify-test-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&name).expect("address");
        let by_name = UnixDatagram::bind_addr(&abstract_address).expect("bind");
        let notifier = Notifier::to(OsStr::new(&format!("@{name}"))).expect("address");
        notifier.extend(Duration::from_secs(2));
        assert_eq!(heard(&by_name), "EXTEND_TIMEOUT_USEC=2000000");
        notifier.stopping();
        assert_eq!(heard(&by_name), "STOPPING=1");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        assert!(Notifier::to(OsStr::new("run/notify")).is_err());
    }
}

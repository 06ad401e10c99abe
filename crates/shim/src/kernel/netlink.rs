// SPDX-License-Identifier: Apache-2.0
//! The few requests of rtnetlink(7) that move a network device from one
//! namespace to another. One request at a time, each answered before the next.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::{
    errno::Errno,
    libc,
    sched::CloneFlags,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
};

use super::{Result, SysError, fd, sys};

/// Length of the kernel's `struct nlmsghdr`.
const HEADER: usize = 16;
/// Length of the kernel's `struct ifaddrmsg`.
const ADDRESS: usize = 8;
/// Length of the kernel's `struct ifinfomsg`.
const LINK: usize = 16;
/// Answers are at most this long (NLMSG_GOODSIZE, and what drivers add).
const BUFFER: usize = 64 * 1024;
/// Attributes of an address that make it what it is; its label would be the
/// device's old name.
const KEPT: [u16; 3] = [libc::IFA_ADDRESS, libc::IFA_LOCAL, libc::IFA_BROADCAST];
/// Flags of an address that a request may set (linux/if_addr.h).
const SETTABLE: u32 = libc::IFA_F_NODAD
    | libc::IFA_F_HOMEADDRESS
    | libc::IFA_F_MANAGETEMPADDR
    | libc::IFA_F_NOPREFIXROUTE
    | libc::IFA_F_MCAUTOJOIN;

/// An address of a network device, in the kernel's terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// `AF_*`.
    pub family: u8,
    /// Bits of the network.
    pub prefix: u8,
    /// `IFA_F_*`.
    pub flags: u32,
    /// `RT_SCOPE_*`.
    pub scope: u8,
    attributes: Vec<(u16, Vec<u8>)>,
}

/// A connection to the network stack of one namespace.
#[derive(Debug)]
pub struct Netlink(OwnedFd);

impl Netlink {
    /// To the namespace of this process.
    ///
    /// # Errors
    /// Those of socket(2).
    pub fn open() -> Result<Self> {
        let result =
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute);
        sys(result, || "socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)".to_owned()).map(Self)
    }

    /// To another namespace, which this process enters for a moment: `own` is
    /// the one that it comes back to.
    ///
    /// # Errors
    /// Those of setns(2); EPERM without CAP_SYS_ADMIN in both.
    pub fn open_in(namespace: &OwnedFd, own: &OwnedFd) -> Result<Self> {
        let enter = |namespace: &OwnedFd| {
            let result = nix::sched::setns(namespace, CloneFlags::CLONE_NEWNET);
            sys(result, || format!("setns({}, CLONE_NEWNET)", fd(namespace)))
        };
        enter(namespace)?;
        let opened = Self::open();
        enter(own)?;
        opened
    }

    /// The number of the device `name`.
    ///
    /// # Errors
    /// ENODEV.
    pub fn index(&self, name: &str) -> Result<u32> {
        let mut request = Request::new(libc::RTM_GETLINK, 0);
        request.bytes.extend([0; LINK]);
        request.attribute(libc::IFLA_IFNAME, &with_nul(name));
        let mut index = None;
        self.ask(request, &format!("RTM_GETLINK({name:?})"), |kind, body| {
            if kind == libc::RTM_NEWLINK {
                index = number(body, 4);
            }
        })?;
        index.ok_or_else(|| SysError::new(format!("RTM_GETLINK({name:?})"), Errno::ENODEV))
    }

    /// The addresses of a device.
    ///
    /// # Errors
    /// Those of the request.
    pub fn addresses(&self, index: u32) -> Result<Vec<Address>> {
        let mut request = Request::new(libc::RTM_GETADDR, libc::NLM_F_DUMP);
        request.bytes.extend([0; ADDRESS]);
        let mut all = Vec::new();
        self.ask(request, "RTM_GETADDR", |kind, body| {
            if kind == libc::RTM_NEWADDR && number(body, 4) == Some(index) {
                all.extend(Address::parse(body));
            }
        })?;
        Ok(all)
    }

    /// Moves a device into a namespace and calls it `name` there.
    ///
    /// # Errors
    /// EINVAL for one that can't be moved, EEXIST when the name is taken.
    pub fn move_link(&self, index: u32, name: &str, namespace: BorrowedFd<'_>) -> Result<()> {
        let mut request = Request::of_link(index, 0);
        request.attribute(libc::IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
        request.attribute(libc::IFLA_IFNAME, &with_nul(name));
        self.ask(request, &format!("RTM_SETLINK({index}, {name:?}, {})", fd(namespace)), |_, _| ())
    }

    /// Gives a device an address.
    ///
    /// # Errors
    /// EEXIST, EACCES where IPv6 is switched off.
    pub fn add_address(&self, index: u32, address: &Address) -> Result<()> {
        let mut request = Request::new(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_EXCL);
        request.bytes.extend([address.family, address.prefix, 0, address.scope]);
        request.bytes.extend(index.to_ne_bytes());
        for (kind, value) in &address.attributes {
            request.attribute(*kind, value);
        }
        request.attribute(libc::IFA_FLAGS, &(address.flags & SETTABLE).to_ne_bytes());
        self.ask(request, &format!("RTM_NEWADDR({index}, {address:?})"), |_, _| ())
    }

    /// Switches a device on.
    ///
    /// # Errors
    /// Those of its driver.
    pub fn set_up(&self, index: u32) -> Result<()> {
        let up = libc::IFF_UP.unsigned_abs();
        self.ask(Request::of_link(index, up), &format!("RTM_SETLINK({index}, IFF_UP)"), |_, _| ())
    }

    /// Sends a request and hands the messages of its answer on.
    fn ask(&self, request: Request, call: &str, mut each: impl FnMut(u16, &[u8])) -> Result<()> {
        let bytes = request.finish();
        sys(send(self.0.as_raw_fd(), &bytes, MsgFlags::empty()), || format!("send({call})"))?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let received = match recv(self.0.as_fd().as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                result => sys(result, || format!("recv({call})"))?,
            };
            for message in Messages(&buffer[..received]) {
                match i32::from(message.kind) {
                    libc::NLMSG_DONE => return Ok(()),
                    libc::NLMSG_ERROR => return acknowledged(message.body, call),
                    _ => each(message.kind, message.body),
                }
            }
        }
    }
}

/// An error message with the number 0 is an acknowledgement.
fn acknowledged(body: &[u8], call: &str) -> Result<()> {
    match number(body, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(errno) => Err(SysError::new(call, Errno::from_raw(-errno))),
        None => Err(SysError::new(call, Errno::EBADMSG)),
    }
}

impl Address {
    /// Of the body of an `RTM_NEWADDR`.
    fn parse(body: &[u8]) -> Option<Self> {
        let [family, prefix, flags, scope] = *body.first_chunk()?;
        let mut address = Self { family, prefix, flags: flags.into(), scope, attributes: Vec::new() };
        for (kind, value) in Attributes(body.get(ADDRESS..)?) {
            if kind == libc::IFA_FLAGS {
                address.flags = number(value, 0)?;
            } else if KEPT.contains(&kind) {
                address.attributes.push((kind, value.to_vec()));
            }
        }
        Some(address)
    }
}

/// A message that is being written.
struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// Answered with an acknowledgement at least.
    fn new(kind: u16, flags: i32) -> Self {
        let flags = flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK;
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "16 bits of flags")]
        bytes.extend((flags as u16).to_ne_bytes());
        bytes.resize(HEADER, 0);
        Self { bytes }
    }

    /// Changes a device: the `flags` of it are set.
    fn of_link(index: u32, flags: u32) -> Self {
        let mut request = Self::new(libc::RTM_SETLINK, 0);
        request.bytes.extend([0; 4]);
        request.bytes.extend(index.to_ne_bytes());
        request.bytes.extend(flags.to_ne_bytes());
        request.bytes.extend(flags.to_ne_bytes());
        request
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes
    }
}

struct Message<'a> {
    kind: u16,
    body: &'a [u8],
}

/// The messages of a packet; what makes no sense ends it.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let length = number(self.0, 0)? as usize;
        let kind = u16::from_ne_bytes(*self.0.get(4..)?.first_chunk()?);
        let body = self.0.get(HEADER..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind, body })
    }
}

/// The attributes that end a message.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16::from_ne_bytes(*self.0.first_chunk()?));
        let kind = u16::from_ne_bytes(*self.0.get(2..)?.first_chunk()?);
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn with_nul(name: &str) -> Vec<u8> {
    [name.as_bytes(), b"\0"].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_loopback_device_is_found() {
        let netlink = Netlink::open().expect("socket");
        let index = netlink.index("lo").expect("lo");
        assert_eq!(index, 1);
        let addresses = netlink.addresses(index).expect("addresses");
        let v4 =
            addresses.iter().find(|address| i32::from(address.family) == libc::AF_INET).expect("127.0.0.1");
        assert!(v4.attributes.contains(&(libc::IFA_LOCAL, vec![127, 0, 0, 1])), "{v4:?}");
        assert_eq!((v4.prefix, v4.flags & libc::IFA_F_PERMANENT), (8, libc::IFA_F_PERMANENT));
        assert_eq!(netlink.index("no-such-device").expect_err("none").errno(), Errno::ENODEV);
        // The answer to one request is not taken for that to the next.
        assert_eq!(netlink.index("lo").expect("lo"), 1);
    }

    proptest! {
        #[test]
        fn any_answer_is_survived(bytes: Vec<u8>) {
            for message in Messages(&bytes) {
                let _ = Address::parse(message.body);
            }
            prop_assert!(Attributes(&bytes).count() <= bytes.len());
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Moves network devices of the host into a container's network namespace.
//! They go with the namespace: the kernel gives physical ones back to the
//! host, and takes virtual ones away (runtime-spec, config-linux.md "Network
//! Devices").

use std::os::fd::{AsFd as _, OwnedFd};

use nix::{errno::Errno, fcntl::OFlag, libc, sched::CloneFlags};

use super::{
    error::{During as _, Error, Result},
    plan::{Namespaces, NetDevice},
};
use crate::kernel::{
    Procfs,
    netlink::{Address, Netlink},
    paths,
};

/// `%d` in a name is replaced by less than this (as the kernel does).
const MAX_NUMBER: u32 = 32_768;

/// Moves them all. The first process of the container is `pid`.
///
/// # Errors
/// Names the device; those before it have been moved.
pub(super) fn move_all(devices: &[NetDevice], namespaces: &Namespaces, pid: u32) -> Result<()> {
    if devices.is_empty() {
        return Ok(());
    }
    let proc = Procfs::of_host()?;
    let joined = namespaces.join.iter().find(|join| join.kind == CloneFlags::CLONE_NEWNET);
    let namespace = match joined {
        Some(join) => paths::open_host(&join.path, OFlag::O_RDONLY),
        None => proc.follow(format!("{pid}/ns/net"), OFlag::O_RDONLY),
    }?;
    let host = Netlink::open()?;
    let container = Netlink::open_in(&namespace, &proc.follow("self/ns/net", OFlag::O_RDONLY)?)?;
    let between = Between { host, container, namespace };
    devices.iter().try_for_each(|device| {
        between.move_one(device).during(|| format!("linux.netDevices: {}", device.name))
    })
}

/// Two namespaces.
struct Between {
    host: Netlink,
    container: Netlink,
    namespace: OwnedFd,
}

impl Between {
    /// Its addresses stay behind when a device leaves a namespace, and it is
    /// switched off.
    fn move_one(&self, device: &NetDevice) -> Result<()> {
        let index = self.host.index(&device.name)?;
        let addresses = self.host.addresses(index)?;
        let name = self.free_name(&device.inside)?;
        self.host.move_link(index, &name, self.namespace.as_fd())?;
        let index = self.container.index(&name)?;
        for address in addresses.iter().filter(|address| is_kept(address)) {
            self.container.add_address(index, address)?;
        }
        Ok(self.container.set_up(index)?)
    }

    fn free_name(&self, template: &str) -> Result<String> {
        let numbers = if template.contains("%d") { 0..MAX_NUMBER } else { 0..1 };
        for number in numbers {
            let name = template.replace("%d", &number.to_string());
            match self.container.index(&name) {
                Err(e) if e.errno() == Errno::ENODEV => return Ok(name),
                Err(e) => return Err(e.into()),
                Ok(_) => {}
            }
        }
        Err(Error::invalid(format!("{template}: the container has a network device of that name")))
    }
}

/// Permanent and global ones, as the specification has it.
fn is_kept(address: &Address) -> bool {
    address.flags & libc::IFA_F_PERMANENT != 0 && address.scope == libc::RT_SCOPE_UNIVERSE
}

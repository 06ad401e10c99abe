// SPDX-License-Identifier: Apache-2.0
//! Other containers whose namespaces one joins: found by name when it is made,
//! joined by the descriptors of their processes whenever it starts.

use std::{os::fd::AsFd as _, path::PathBuf};

use berth::ids::{ContainerId, Namespace as Tenant};

use super::{Containers, lookup};
use crate::{
    domain::{
        container::{Config, NetworkMode},
        namespaces::{self, IpcMode, Joined, PidMode},
        record::Record,
    },
    error::{Context as _, Error, Kind, Result},
    kernel::namespaces::Namespace,
    store::meta::containers as rows,
};

/// So many containers may have a network from the next one.
const MAX_CHAIN: usize = 32;

/// Namespaces that are joined, held until they have been.
#[derive(Debug, Default)]
pub(super) struct Held {
    namespaces: Vec<Namespace>,
    pub(super) paths: Joined,
}

impl Containers {
    /// Names of other containers become ids. The host name of whose network it
    /// joins, if it does. Blocks.
    pub(super) fn find_donors(&self, tenant: &Tenant, config: &mut Config) -> Result<Option<String>> {
        let host = &config.host;
        let joins_ipc = matches!(host.ipc, IpcMode::Container(_));
        let found = self.db.read(|c| {
            if let IpcMode::Container(name) = &config.host.ipc {
                let donor = lookup::resolve(c, tenant, name)?;
                let mode = rows::document(c, &donor.id)?.config.host.ipc;
                if joins_ipc && !matches!(mode, IpcMode::Shareable | IpcMode::Host) {
                    let what = format!(
                        "can't join IPC of container {}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)",
                        donor.id
                    );
                    return Err(Error::new(Kind::InvalidArgument, what));
                }
            }
            for name in namespaces::donors(config) {
                *name = lookup::resolve(c, tenant, name)?.id.to_string();
            }
            match &config.host.network {
                NetworkMode::Container(id) => {
                    let donor = lookup::resolve(c, tenant, id)?;
                    rows::document(c, &donor.id).map(|document| Some(document.effective.hostname))
                }
                NetworkMode::None | NetworkMode::Host => Ok(None),
            }
        });
        // It isn't the image that was not found.
        found.map_err(|e| match e.kind() {
            Kind::NotFound => Error::new(Kind::InvalidArgument, e.chain()),
            _ => e,
        })
    }

    /// Whose files of /etc a container has: those of whoever has made its
    /// network, as long as they are there. Blocks.
    pub(super) fn etc_owner(&self, record: &Record, config: &Config) -> Result<ContainerId> {
        let mut owner = record.id.clone();
        let mut network = config.host.network.clone();
        for _ in 0..MAX_CHAIN {
            let NetworkMode::Container(id) = network else { break };
            let Ok(id) = id.parse::<ContainerId>() else { break };
            let Some(donor) = self.db.read(|c| rows::any(c, &id))? else { return Ok(record.id.clone()) };
            network = self.read_document(&donor.id)?.config.host.network;
            owner = donor.id;
        }
        Ok(owner)
    }

    /// Takes hold of the namespaces that `config` joins. Blocks.
    pub(super) fn hold_namespaces(&self, record: &Record, config: &Config) -> Result<Held> {
        let mut held = Held::default();
        if let NetworkMode::Container(id) = &config.host.network {
            held.paths.network = Some(self.hold(record, id, "net", "network", &mut held.namespaces)?);
        }
        if let PidMode::Container(id) = &config.host.pid {
            held.paths.pid = Some(self.hold(record, id, "pid", "PID namespace", &mut held.namespaces)?);
        }
        if let IpcMode::Container(id) = &config.host.ipc {
            held.paths.ipc = Some(self.hold(record, id, "ipc", "IPC", &mut held.namespaces)?);
            held.paths.shm = Some(self.hold(record, id, "mnt", "IPC", &mut held.namespaces)?);
        }
        Ok(held)
    }

    fn hold(
        &self,
        record: &Record,
        id: &str,
        kind: &str,
        what: &str,
        held: &mut Vec<Namespace>,
    ) -> Result<PathBuf> {
        let gone = || {
            Error::new(Kind::FailedPrecondition, format!("cannot join {what} of container {id}: it is gone"))
        };
        let donor: ContainerId = id.parse().map_err(|_| gone())?;
        let donor = self.db.read(|c| rows::get(c, &record.namespace, donor.as_str()))?.ok_or_else(gone)?;
        let name = &donor.name;
        let rests = || {
            let what = format!("cannot join {what} of a non running container: {name}");
            Error::new(Kind::FailedPrecondition, what)
        };
        let live = self.entries().get(&donor.id).and_then(|entry| entry.running()).ok_or_else(rests)?;
        let init = live.init.get().ok_or_else(rests)?;
        let namespace = match Namespace::of(init.pidfd().as_fd(), init.identity().pid, kind) {
            // It has ended just now.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ESRCH | libc::ENOENT)) => return Err(rests()),
            result => result.with_context(|| format!("join {what} of container {name}"))?,
        };
        let path = namespace.path();
        held.push(namespace);
        Ok(path)
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Whose namespaces a container is in, against whose it should be in.

use std::{fs, path::PathBuf};

use berth::ids::ContainerId;

use super::{Report, world::World};
use crate::{
    domain::{
        container::{Document, NetworkMode},
        namespaces::{IpcMode, PidMode},
        record::Record,
        state::Status,
    },
    error::{Context as _, Result},
};

/// Whose a namespace should be.
#[derive(Debug, Clone, Copy)]
enum Whose<'a> {
    Own,
    Host,
    Other(&'a str),
}

/// `pid` is the container's first process.
pub(super) fn check(
    world: &World<'_>,
    row: &Record,
    document: &Document,
    pid: u32,
    report: &mut Report,
) -> Result<()> {
    let host = &document.config.host;
    let network = match &host.network {
        NetworkMode::None => Whose::Own,
        NetworkMode::Host => Whose::Host,
        NetworkMode::Container(id) => Whose::Other(id),
    };
    let processes = match &host.pid {
        PidMode::Private => Whose::Own,
        PidMode::Host => Whose::Host,
        PidMode::Container(id) => Whose::Other(id),
    };
    let ipc = match &host.ipc {
        IpcMode::Private | IpcMode::Shareable | IpcMode::None => Whose::Own,
        IpcMode::Host => Whose::Host,
        IpcMode::Container(id) => Whose::Other(id),
    };
    let names = if host.uts_host { Whose::Host } else { Whose::Own };
    for (kind, word, whose) in [
        ("mnt", "mount", Whose::Own),
        ("net", "network", network),
        ("pid", "pid", processes),
        ("ipc", "ipc", ipc),
        ("uts", "uts", names),
    ] {
        let ours = namespace("self", kind).with_context(|| format!("look at our own {word} namespace"))?;
        // One that ends just now has none.
        let Ok(its) = namespace(&pid.to_string(), kind) else { continue };
        let found = if its == ours {
            format!("it is in the host's {word} namespace")
        } else {
            format!("it is in {word} namespace {}", its.display())
        };
        match whose {
            Whose::Own if its == ours => report.wrong("process", pid, found, "one of its own"),
            Whose::Host if its != ours => report.wrong("process", pid, found, "the host's"),
            Whose::Other(id) => {
                let donor = donor(world, row, id).and_then(|donor| namespace(&donor.to_string(), kind).ok());
                if donor.is_some_and(|donor| donor != its) {
                    report.wrong("process", pid, found, format!("that of container {id}"));
                }
            }
            Whose::Own | Whose::Host => {}
        }
    }
    Ok(())
}

/// The first process of `id`, if it is the one that `row` has joined: who has
/// been started again since has other namespaces.
fn donor(world: &World<'_>, row: &Record, id: &str) -> Option<u32> {
    let donor = world.rows.get(&id.parse::<ContainerId>().ok()?)?;
    (donor.status == Status::Running && donor.pid != 0 && donor.started_at <= row.started_at)
        .then_some(donor.pid)
}

fn namespace(pid: &str, kind: &str) -> std::io::Result<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/{kind}"))
}

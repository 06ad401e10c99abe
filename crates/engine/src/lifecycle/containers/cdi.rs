// SPDX-License-Identifier: Apache-2.0
//! Devices by name: the files of the Container Device Interface, read at each
//! start, since drivers come and go. What they say is for `domain::cdi`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};
use tracing::warn;

use super::host;
use crate::{
    domain::{
        cdi::{self, Edits, File, Node},
        spec::MappedDevice,
    },
    error::{Error, Kind, Result},
};

/// Of a file; what a vendor's tool writes has some ten KiB.
const LARGEST: u64 = 4 << 20;

/// What the devices of these names need.
///
/// # Errors
/// `InvalidArgument`, in Docker's words, for a name that isn't there.
pub(super) fn look_up(directories: &[PathBuf], names: &[String]) -> Result<Edits> {
    if names.is_empty() {
        return Ok(Edits::default());
    }
    let mut files = Vec::new();
    for (n, directory) in directories.iter().enumerate() {
        files.extend(files_in(directory)?.into_iter().map(|file| (n, file)));
    }
    cdi::resolve(&files, names)
}

/// One that is wrong is as good as none: the others' devices are there.
fn files_in(directory: &Path) -> Result<Vec<File>> {
    let failed = |e: io::Error| Error::io(format!("read {}", directory.display()), e);
    let entries = match fs::read_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>().map_err(failed)?;
    paths.retain(|path| path.extension().is_some_and(|e| ["json", "yaml"].iter().any(|known| e == *known)));
    paths.sort();
    let read = |path: &PathBuf| {
        let size = fs::metadata(path).map_err(|e| e.to_string())?.len();
        if size > LARGEST {
            return Err(format!("it has {size} bytes, more than {LARGEST}"));
        }
        File::read(&fs::read_to_string(path).map_err(|e| e.to_string())?)
    };
    let files = paths.iter().filter_map(|path| match read(path) {
        Ok(file) => Some(file),
        Err(why) => {
            warn!(path = %path.display(), why, "left out a file of the Container Device Interface");
            None
        }
    });
    Ok(files.collect())
}

/// The node on this host.
///
/// # Errors
/// `InvalidArgument` for one that isn't there.
pub(super) fn node(node: &Node) -> Result<MappedDevice> {
    let on_host = node.host_path.as_ref().unwrap_or(&node.path);
    let access = node.permissions.clone().filter(|p| !p.is_empty()).unwrap_or_else(|| "rwm".to_owned());
    let kind = node.kind.as_deref().map(kind).transpose()?;
    let mut device = match (kind, node.major, node.minor) {
        (Some(kind), Some(major), Some(minor)) => {
            let mut device = LinuxDevice::default();
            device.set_typ(kind).set_major(major).set_minor(minor);
            device
        }
        _ => {
            let failed = |why: String| {
                Error::new(Kind::InvalidArgument, format!("CDI device injection failed: {on_host}"))
                    .with_source(why)
            };
            let metadata = fs::metadata(on_host).map_err(|e| failed(e.to_string()))?;
            host::device(PathBuf::from(on_host), &metadata)
                .ok_or_else(|| failed("not a device node".to_owned()))?
        }
    };
    device.set_path(PathBuf::from(&node.path));
    if node.file_mode.is_some() {
        device.set_file_mode(node.file_mode);
    }
    if node.uid.is_some() {
        device.set_uid(node.uid);
    }
    if node.gid.is_some() {
        device.set_gid(node.gid);
    }
    Ok(MappedDevice { device, access })
}

fn kind(text: &str) -> Result<LinuxDeviceType> {
    Ok(match text {
        "b" => LinuxDeviceType::B,
        "c" => LinuxDeviceType::C,
        "u" => LinuxDeviceType::U,
        "p" => LinuxDeviceType::P,
        other => {
            let why = format!("CDI device injection failed: type {other:?} of a device");
            return Err(Error::new(Kind::InvalidArgument, why));
        }
    })
}

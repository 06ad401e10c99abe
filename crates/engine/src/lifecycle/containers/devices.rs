// SPDX-License-Identifier: Apache-2.0
//! What the devices are that a container is given: looked up on the host at
//! each start, when they are there or not.

use std::{fs, os::unix::fs::FileTypeExt as _, os::unix::fs::MetadataExt as _, path::Path};

use nix::sys::stat::{major, minor};
use oci_spec::runtime::LinuxDevice;

use super::host;
use crate::{
    domain::{
        devices::{BlockRate, DeviceMapping, Devices},
        spec::{BlockDevice, Given, MappedDevice},
    },
    error::{Error, Kind, Result},
};

/// Looks all of them up.
///
/// # Errors
/// `InvalidArgument`, in Docker's words, for what is no device.
pub(super) fn look_up(devices: &Devices) -> Result<Given> {
    let mut given = Given::default();
    for mapping in &devices.mappings {
        given.mapped.extend(mapped(mapping)?);
    }
    let blocks = |all: &[BlockRate]| all.iter().map(block).collect::<Result<Vec<_>>>();
    given.weights = blocks(&devices.weights)?;
    given.read_bps = blocks(&devices.read_bps)?;
    given.write_bps = blocks(&devices.write_bps)?;
    given.read_iops = blocks(&devices.read_iops)?;
    given.write_iops = blocks(&devices.write_iops)?;
    Ok(given)
}

/// One device, or all in a directory.
fn mapped(mapping: &DeviceMapping) -> Result<Vec<MappedDevice>> {
    let path = Path::new(&mapping.host);
    let failed = |why: String| {
        let what =
            format!("error gathering device information while adding custom device {:?}", mapping.host);
        Error::new(Kind::InvalidArgument, what).with_source(why)
    };
    // Of the host, which nobody but its administrator fills: links are followed.
    let metadata = fs::metadata(path).map_err(|e| failed(e.to_string()))?;
    let found: Vec<LinuxDevice> = if metadata.is_dir() {
        let within = host::devices_in(path)?;
        if within.is_empty() {
            return Err(failed("no devices in it".to_owned()));
        }
        within
    } else {
        let device =
            host::device(path.to_owned(), &metadata).ok_or_else(|| failed("not a device node".to_owned()))?;
        vec![device]
    };
    let renamed = |mut device: LinuxDevice| {
        let inside = Path::new(mapping.inside());
        let target = match device.path().strip_prefix(path) {
            Ok(rest) if !rest.as_os_str().is_empty() => inside.join(rest),
            _ => inside.to_owned(),
        };
        device.set_path(target);
        MappedDevice { device, access: mapping.access().to_owned() }
    };
    Ok(found.into_iter().map(renamed).collect())
}

fn block(limit: &BlockRate) -> Result<BlockDevice> {
    let failed = |why: String| {
        Error::new(Kind::InvalidArgument, format!("limit block device {}", limit.path)).with_source(why)
    };
    let metadata = fs::metadata(&limit.path).map_err(|e| failed(e.to_string()))?;
    if !metadata.file_type().is_block_device() {
        return Err(failed("not a block device".to_owned()));
    }
    let number = |n: u64| i64::try_from(n).unwrap_or(-1);
    Ok(BlockDevice {
        major: number(major(metadata.rdev())),
        minor: number(minor(metadata.rdev())),
        rate: limit.rate,
    })
}

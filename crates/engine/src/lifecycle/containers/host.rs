// SPDX-License-Identifier: Apache-2.0
//! What containers need to know of the host; looked at once, but for devices.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use nix::sys::resource::{Resource, getrlimit};
use oci_spec::runtime::{Capability, LinuxDevice, LinuxDeviceType, PosixRlimit, PosixRlimitType};

use crate::{
    domain::{
        seccomp::{self, KernelVersion},
        spec::{capabilities, rlimits},
    },
    error::{Context as _, Result},
    kernel::host,
};

/// Soft limit of open files in a container: what programs expect. The engine
/// raises its own, which must not leak.
const NOFILE: u64 = 1024;

/// Directories of /dev that every container has of its own.
const OWN: [&str; 4] = ["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd"];

/// What was found.
#[derive(Debug)]
pub(super) struct Host {
    /// The host's name.
    pub name: String,
    /// What the engine may hand on.
    pub capabilities: Vec<Capability>,
    /// To be hidden: they tell when the CPU is busy elsewhere.
    pub thermal_throttle: Vec<String>,
    /// Limits where the user gives none.
    pub rlimits: Vec<PosixRlimit>,
    /// The version of the kernel.
    pub kernel: KernelVersion,
    /// It labels processes and files.
    pub selinux: bool,
}

impl Host {
    pub(super) fn probe() -> Result<Self> {
        let name = nix::unistd::gethostname().context("read the host's name")?;
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("read the limit of open files")?;
        Ok(Self {
            name: name.to_string_lossy().into_owned(),
            capabilities: capabilities::of_mask(bounding_set()?),
            thermal_throttle: thermal_throttle(),
            kernel: kernel_version()?,
            selinux: Path::new("/sys/fs/selinux/enforce").exists(),
            rlimits: vec![rlimits::limit(PosixRlimitType::RlimitNofile, NOFILE.min(hard), hard)?],
        })
    }
}

fn kernel_version() -> Result<KernelVersion> {
    let release = host::kernel().context("ask the kernel for its release")?.release;
    // It takes a kernel built by hand to have none; rules for a newer one are
    // not for it.
    Ok(seccomp::kernel_version(&release).unwrap_or_default())
}

/// The host's device nodes, for a privileged container.
///
/// # Errors
/// Those of the host.
pub(super) fn devices() -> Result<Vec<LinuxDevice>> {
    devices_in(Path::new("/dev"))
}

/// The device nodes below a directory.
///
/// # Errors
/// Those of the host.
pub(super) fn devices_in(directory: &Path) -> Result<Vec<LinuxDevice>> {
    let mut found = Vec::new();
    collect(directory, &mut found)?;
    Ok(found)
}

/// A device node, as a container would have it; `None` for what is none.
pub(super) fn device(path: PathBuf, metadata: &Metadata) -> Option<LinuxDevice> {
    let kind = metadata.file_type();
    let typ = match (kind.is_char_device(), kind.is_block_device()) {
        (true, _) => LinuxDeviceType::C,
        (_, true) => LinuxDeviceType::B,
        _ => return None,
    };
    let (major, minor) = (nix::sys::stat::major(metadata.rdev()), nix::sys::stat::minor(metadata.rdev()));
    let mut device = LinuxDevice::default();
    device
        .set_path(path)
        .set_typ(typ)
        .set_major(i64::try_from(major).unwrap_or(-1))
        .set_minor(i64::try_from(minor).unwrap_or(-1))
        .set_file_mode(Some(metadata.mode() & 0o7777))
        .set_uid(Some(metadata.uid()))
        .set_gid(Some(metadata.gid()));
    Some(device)
}

fn collect(dir: &Path, found: &mut Vec<LinuxDevice>) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        // A device was unplugged meanwhile.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("list {}", dir.display()))?,
    };
    for entry in entries {
        let path = entry.context("list devices")?.path();
        // A node may vanish meanwhile; a link is not followed.
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        let kind = metadata.file_type();
        if kind.is_dir() {
            if !OWN.iter().any(|own| path == Path::new(own)) {
                collect(&path, found)?;
            }
            continue;
        }
        if path == Path::new("/dev/console") || path == Path::new("/dev/ptmx") {
            continue;
        }
        found.extend(device(path, &metadata));
    }
    Ok(())
}

fn bounding_set() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("read the engine's capabilities")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    Ok(mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0))
}

fn thermal_throttle() -> Vec<String> {
    let cpus = fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
    cpus.map(|cpu| cpu.path().join("thermal_throttle"))
        .filter(|path| path.is_dir())
        .filter_map(|path| path.into_os_string().into_string().ok())
        .collect()
}

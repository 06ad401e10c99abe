// SPDX-License-Identifier: Apache-2.0
//! What the host is and what it takes away: probes, each a read of one file or
//! one system call. Nothing here decides what to do about it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    statfs::{CGROUP2_SUPER_MAGIC, statfs},
};
use nix::unistd::{SysconfVar, sysconf};

use crate::domain::usage::HostCpu;

/// Where cgroup hierarchies are mounted, on every distribution.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// How the kernel's cgroups are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupLayout {
    /// One hierarchy per controller.
    V1,
    /// As V1, and a second-generation hierarchy without controllers.
    Hybrid,
    /// One hierarchy for all.
    V2,
}

/// The kernel, as uname(2) tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kernel {
    /// The host's name.
    pub host_name: String,
    /// `6.1.0-18-amd64`
    pub release: String,
    /// `x86_64`
    pub machine: String,
}

/// A soft and a hard limit of setrlimit(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What counts.
    pub soft: u64,
    /// What it may be raised to.
    pub hard: u64,
}

/// Asks the kernel who it is.
///
/// # Errors
/// Those of uname(2): none on Linux.
pub fn kernel() -> io::Result<Kernel> {
    let name = nix::sys::utsname::uname()?;
    Ok(Kernel {
        host_name: name.nodename().to_string_lossy().into_owned(),
        release: name.release().to_string_lossy().into_owned(),
        machine: name.machine().to_string_lossy().into_owned(),
    })
}

/// The distribution's name for itself, by os-release(5).
#[must_use]
pub fn operating_system() -> String {
    ["/etc/os-release", "/usr/lib/os-release"]
        .iter()
        .find_map(|path| pretty_name(&fs::read_to_string(path).ok()?))
        .unwrap_or_else(|| "Linux".to_owned())
}

fn pretty_name(os_release: &str) -> Option<String> {
    let value = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?.trim();
    let bare = value.strip_prefix(['"', '\'']).and_then(|v| v.strip_suffix(['"', '\''])).unwrap_or(value);
    (!bare.is_empty()).then(|| bare.to_owned())
}

/// Bytes of memory.
///
/// # Errors
/// Those of sysinfo(2): none on Linux.
pub fn memory() -> io::Result<u64> {
    Ok(nix::sys::sysinfo::sysinfo()?.ram_total())
}

/// How the kernel's cgroups are mounted.
#[must_use]
pub fn cgroup_layout() -> CgroupLayout {
    let is_v2 = |path: &Path| statfs(path).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC);
    let root = Path::new(CGROUP_ROOT);
    if is_v2(root) {
        CgroupLayout::V2
    } else if is_v2(&root.join("unified")) {
        CgroupLayout::Hybrid
    } else {
        CgroupLayout::V1
    }
}

/// Controllers that limits may be set with.
#[must_use]
pub fn cgroup_controllers(layout: CgroupLayout) -> Vec<String> {
    match layout {
        CgroupLayout::V2 => {
            let file = Path::new(CGROUP_ROOT).join("cgroup.controllers");
            let names = fs::read_to_string(file).unwrap_or_default();
            names.split_whitespace().map(str::to_owned).collect()
        }
        CgroupLayout::V1 | CgroupLayout::Hybrid => {
            v1_controllers(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
        }
    }
}

/// The super options of every cgroup mount: `rw,cpu,cpuacct`.
fn v1_controllers(mountinfo: &str) -> Vec<String> {
    let options = mountinfo.lines().filter_map(|line| {
        let (_, tail) = line.split_once(" - ")?;
        let mut fields = tail.split(' ');
        (fields.next()? == "cgroup").then(|| fields.nth(1))?
    });
    let words = options.flat_map(|options| options.split(','));
    words.filter(|word| !matches!(*word, "rw" | "ro") && !word.contains('=')).map(str::to_owned).collect()
}

/// Whether the kernel can limit swap by cgroup.
#[must_use]
pub fn has_swap_limit(layout: CgroupLayout) -> bool {
    match layout {
        CgroupLayout::V1 | CgroupLayout::Hybrid => {
            Path::new(CGROUP_ROOT).join("memory/memory.memsw.limit_in_bytes").exists()
        }
        // The root has no such file; our own cgroup has, unless we are in it.
        CgroupLayout::V2 => {
            let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
            let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
            own.is_empty() || Path::new(CGROUP_ROOT).join(own).join("memory.swap.max").exists()
        }
    }
}

/// Whether this process has capability number `capability` in effect.
///
/// # Errors
/// When /proc is missing or says something else than proc(5) promises.
pub fn has_capability(capability: u8) -> io::Result<bool> {
    let status = fs::read_to_string("/proc/self/status")?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or_default();
    let effective = u64::from_str_radix(effective.trim(), 16)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    Ok(effective >> capability & 1 == 1)
}

/// Type of the file system that holds `path`: `ext4`, `xfs`, `btrfs`.
///
/// # Errors
/// Those of the host; `NotFound` when no mount holds it.
pub fn filesystem(path: &Path) -> io::Result<String> {
    let path = path.canonicalize()?;
    filesystem_in(&fs::read_to_string("/proc/self/mountinfo")?, &path)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no mount holds it"))
}

/// The last mount on the longest path that leads to `path`.
fn filesystem_in(mountinfo: &str, path: &Path) -> Option<String> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (head, tail) = line.split_once(" - ")?;
        let point = PathBuf::from(unescape(head.split(' ').nth(4)?));
        path.starts_with(&point).then(|| (point.components().count(), tail.split(' ').next()))
    });
    let (_, name) = mounts.max_by_key(|(depth, _)| *depth)?;
    name.map(str::to_owned)
}

/// Undoes the octal escapes of proc_pid_mountinfo(5): those that seq_path makes.
pub(super) fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// Raises our own limit of open files to what is allowed; returns what it was,
/// which is what containers get.
///
/// # Errors
/// Those of getrlimit(2) and setrlimit(2).
pub fn raise_open_files() -> io::Result<Limit> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(Limit { soft, hard })
}

/// What all CPUs together have had so far: proc_stat(5).
///
/// # Errors
/// Those of procfs.
pub fn cpu() -> io::Result<HostCpu> {
    let per_second = sysconf(SysconfVar::CLK_TCK)?.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0);
    let per_second = per_second.ok_or(io::ErrorKind::Unsupported)?;
    Ok(cpu_in(&fs::read_to_string("/proc/stat")?, 1_000_000_000 / per_second))
}

fn cpu_in(stat: &str, nanos_per_tick: u64) -> HostCpu {
    let lines = || stat.lines().filter_map(|line| line.strip_prefix("cpu"));
    let ticks = lines().find_map(|line| line.strip_prefix(' ')).map_or(0, |fields| {
        // Guests' time, which follows, is a part of the user's already.
        let own = fields.split_whitespace().take(8).filter_map(|field| field.parse::<u64>().ok());
        own.fold(0, u64::saturating_add)
    });
    let online = lines().filter(|line| !line.starts_with(' ')).count();
    HostCpu { total: ticks.saturating_mul(nanos_per_tick), online: u32::try_from(online).unwrap_or(u32::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755
24 23 0:22 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
25 23 0:23 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
26 23 0:24 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
27 22 0:25 / /var/lib/with\\040space rw - xfs /dev/vdb rw
28 22 0:26 / /var rw master:2 - tmpfs tmpfs rw
29 22 0:27 / /var rw - btrfs /dev/vdc rw
";

    #[test]
    fn cpus_are_counted_and_guests_not_twice() {
        let stat = "cpu  1 2 3 4 5 6 7 8 100 100\ncpu0 1 1 1 1 1 1 1 1 1 1\ncpu3 0 0\nintr 7\nctxt 9\n";
        assert_eq!(cpu_in(stat, 10), HostCpu { total: 360, online: 2 });
        let now = cpu().expect("the host's");
        assert!(now.total > 0 && now.online > 0);
    }

    #[test]
    fn a_path_is_on_the_deepest_and_last_mount() {
        for (path, name) in [
            ("/", "ext4"),
            ("/home", "ext4"),
            ("/var/lib", "btrfs"),
            ("/variable", "ext4"),
            ("/var/lib/with space/berth", "xfs"),
        ] {
            assert_eq!(filesystem_in(MOUNTINFO, Path::new(path)).as_deref(), Some(name), "{path}");
        }
    }

    #[test]
    fn controllers_are_those_of_first_generation_mounts() {
        assert_eq!(
            v1_controllers(MOUNTINFO).into_iter().filter(|c| c != "xattr").collect::<Vec<_>>(),
            ["cpu", "cpuacct"]
        );
    }

    #[test]
    fn a_name_may_be_quoted() {
        assert_eq!(
            pretty_name("ID=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n").as_deref(),
            Some("Debian GNU/Linux 12")
        );
        assert_eq!(pretty_name("PRETTY_NAME=Void\n").as_deref(), Some("Void"));
        assert_eq!(pretty_name("ID=x\n"), None);
    }

    #[test]
    fn this_host_answers() {
        assert!(!kernel().expect("uname").release.is_empty());
        assert!(memory().expect("sysinfo") > 1 << 20);
        assert!(!filesystem(Path::new("/proc")).expect("mountinfo").is_empty());
        // No kernel has 64 capabilities.
        assert!(!has_capability(63).expect("status"));
    }
}

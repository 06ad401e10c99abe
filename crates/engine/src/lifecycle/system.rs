// SPDX-License-Identifier: Apache-2.0
//! The engine itself: its version, its host, what it holds.

use std::{path::PathBuf, sync::Arc};

use berth::ids::Namespace;
use tokio::task::spawn_blocking;

use crate::{
    error::{Context as _, Error, Kind, Result},
    kernel::host,
    store::meta::{Db, engine},
};

pub use crate::kernel::host::CgroupLayout as Cgroups;

/// What protects every container unless it asks otherwise, in the words of
/// `docker info`.
const SECURITY_OPTIONS: [&str; 2] = ["name=seccomp,profile=builtin", "name=cgroupns"];

/// `CAP_SYS_RESOURCE` of capabilities(7).
const CAP_SYS_RESOURCE: u8 = 24;

/// Versions of the engine and of what it was built with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Semantic version.
    pub version: &'static str,
    /// Version of the API.
    pub api_version: &'static str,
    /// Commit that it was built from; empty when the build didn't say.
    pub git_commit: &'static str,
    /// The compiler's version.
    pub rust_version: &'static str,
    /// Operating system, in the words of OCI images.
    pub os: &'static str,
    /// Architecture, in the words of OCI images.
    pub arch: &'static str,
}

/// What this program is.
pub const VERSION: Version = Version {
    version: env!("CARGO_PKG_VERSION"),
    api_version: "v1",
    git_commit: env!("BERTH_GIT_COMMIT"),
    rust_version: env!("BERTH_RUST_VERSION"),
    os: "linux",
    arch: if cfg!(target_arch = "x86_64") {
        "amd64"
    } else if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        std::env::consts::ARCH
    },
};

/// What the engine found on its host, and what it holds.
#[derive(Debug, Clone)]
pub struct Info {
    /// Chosen once, kept with the data.
    pub id: String,
    /// What the namespace holds.
    pub counts: engine::Counts,
    /// Where data is.
    pub root: PathBuf,
    /// Where sockets and bundles are.
    pub state: PathBuf,
    /// The kernel.
    pub kernel: host::Kernel,
    /// The distribution.
    pub operating_system: String,
    /// Processors that we may use.
    pub cpus: usize,
    /// Bytes of memory.
    pub memory: u64,
    /// How cgroups are mounted.
    pub cgroups: Cgroups,
    /// What the file system below `root` is.
    pub backing_filesystem: String,
    /// What protects every container.
    pub security_options: &'static [&'static str],
    /// What the host takes away, one sentence each.
    pub warnings: Vec<String>,
    /// Where images are looked for before their own registry.
    pub mirrors: Vec<Mirrors>,
}

/// Where images of one registry are looked for first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirrors {
    /// The registry.
    pub host: String,
    /// Its mirrors, in order.
    pub mirrors: Vec<String>,
}

/// Answers for the engine itself.
#[derive(Debug)]
pub struct System {
    db: Arc<Db>,
    id: String,
    root: PathBuf,
    state: PathBuf,
    mirrors: Vec<Mirrors>,
}

impl System {
    /// The engine on `root`, which gets an id if it has none. Blocks.
    ///
    /// # Errors
    /// Those of the database, and of the kernel's random numbers.
    pub fn open(db: Arc<Db>, root: PathBuf, state: PathBuf, mirrors: Vec<Mirrors>) -> Result<Arc<Self>> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|e| {
            Error::new(Kind::Internal, "make an id for the engine").with_source(e.to_string())
        })?;
        let id = db.write(|tx| engine::id_or_insert(tx, &hex::encode(random)))?;
        Ok(Arc::new(Self { db, id, root, state, mirrors }))
    }

    /// What the engine found on its host, and what `namespace` holds.
    ///
    /// # Errors
    /// Those of the host and of the database.
    pub async fn info(self: &Arc<Self>, namespace: Namespace) -> Result<Info> {
        let this = Arc::clone(self);
        spawn_blocking(move || this.look(&namespace)).await.context("look at the host")?
    }

    pub(super) fn db(&self) -> &Db {
        &self.db
    }

    pub(super) fn root(&self) -> &std::path::Path {
        &self.root
    }

    /// The kernel's release.
    ///
    /// # Errors
    /// Those of the host.
    pub fn kernel_release(&self) -> Result<String> {
        Ok(host::kernel().context("ask the kernel for its release")?.release)
    }

    fn look(&self, namespace: &Namespace) -> Result<Info> {
        let cgroups = host::cgroup_layout();
        Ok(Info {
            id: self.id.clone(),
            counts: self.db.read(|db| engine::counts(db, namespace.as_str()))?,
            root: self.root.clone(),
            state: self.state.clone(),
            kernel: host::kernel().context("ask the kernel for its release")?,
            operating_system: host::operating_system(),
            cpus: std::thread::available_parallelism().context("count processors")?.get(),
            memory: host::memory().context("ask the kernel for the memory's size")?,
            cgroups,
            backing_filesystem: host::filesystem(&self.root)
                .with_context(|| format!("find the file system of {}", self.root.display()))?,
            security_options: &SECURITY_OPTIONS,
            warnings: warnings(cgroups)?,
            mirrors: self.mirrors.clone(),
        })
    }
}

/// What the host takes away.
fn warnings(cgroups: Cgroups) -> Result<Vec<String>> {
    let may_raise = host::has_capability(CAP_SYS_RESOURCE).context("read our own capabilities")?;
    Ok(complaints(may_raise, &host::cgroup_controllers(cgroups), host::has_swap_limit(cgroups)))
}

fn complaints(may_raise_limits: bool, controllers: &[String], limits_swap: bool) -> Vec<String> {
    let mut found = Vec::new();
    if !may_raise_limits {
        found.push(
            "No CAP_SYS_RESOURCE: hard resource limits can't be raised, and oom_score_adj can't be lowered"
                .to_owned(),
        );
    }
    let missing = |names: &[&str]| !controllers.iter().any(|have| names.contains(&have.as_str()));
    // io is what blkio became in the second generation.
    for names in [&["memory"][..], &["cpu"], &["cpuset"], &["pids"], &["blkio", "io"]] {
        if missing(names) {
            found.push(format!("No {} limit support: the cgroup controller is not available", names[0]));
        }
    }
    if !missing(&["memory"]) && !limits_swap {
        found.push("No swap limit support".to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_chosen_once() {
        let dir = tempfile::tempdir().expect("tempdir");
        let open = || {
            let db = Arc::new(Db::open(&dir.path().join("meta.db")).expect("open"));
            System::open(db, dir.path().into(), dir.path().into(), Vec::new()).expect("open").id.clone()
        };
        let id = open();
        assert_eq!(id.len(), 32);
        assert_eq!(open(), id);
    }

    #[tokio::test]
    async fn info_counts_what_is_there() {
        let dir = tempfile::tempdir().expect("tempdir");
        let db = Arc::new(Db::open(&dir.path().join("meta.db")).expect("open"));
        db.write(|tx| {
            tx.execute_batch(
                "INSERT INTO image_refs VALUES ('default', 'a:1', 'x', 't', 0), ('default', 'a:2', 'x', 't', 0),
                                               ('other', 'a:1', 'x', 't', 0);",
            )
            .context("insert")
        })
        .expect("insert");
        let system = System::open(db, dir.path().into(), dir.path().into(), Vec::new()).expect("open");
        let info = system.info(Namespace::default()).await.expect("info");
        assert_eq!(info.counts, engine::Counts { images: 1, ..Default::default() });
        assert!(info.cpus > 0 && info.memory > 0 && !info.backing_filesystem.is_empty());
    }

    #[test]
    fn warnings_say_what_is_missing() {
        let all: Vec<String> = ["memory", "cpu", "cpuset", "pids", "io"].map(str::to_owned).into();
        assert!(complaints(true, &all, true).is_empty());
        assert_eq!(complaints(true, &all, false), ["No swap limit support"]);
        assert_eq!(complaints(false, &[], false).len(), 6);
    }
}

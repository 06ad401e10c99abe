// SPDX-License-Identifier: Apache-2.0
//! A container as the database keeps it, without the document that only a
//! start and an inspect need.

use std::collections::BTreeMap;

use berth::{
    bundle::ProcessIdentity,
    ids::{ContainerId, Namespace},
};

use super::{
    container::Summary,
    health, id,
    restart::Restarts,
    state::{Exit, Shown, Status},
};

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The tenant it belongs to.
    pub namespace: Namespace,
    /// Its id.
    pub id: ContainerId,
    /// Its name.
    pub name: String,
    /// Nanoseconds since the Unix epoch.
    pub created_at: u64,
    /// As the user wrote it.
    pub image: String,
    /// `sha256:…`.
    pub image_id: String,
    /// What lists show.
    pub summary: Summary,
    /// Where it is in its life.
    pub status: Status,
    /// Its processes are frozen; never without [`Status::Running`].
    pub paused: bool,
    /// Of its first process, in the engine's pid namespace; 0 unless running.
    pub pid: u32,
    /// How it ended, when it has.
    pub exit: Exit,
    /// Nanoseconds since the Unix epoch; 0: never.
    pub started_at: u64,
    /// The shim, while one may live.
    pub shim: Option<ProcessIdentity>,
    /// What its user wants of it, and what its policy does about that.
    pub restarts: Restarts,
    /// What is known of its health; none without a check.
    pub health: Option<health::Status>,
}

/// `/name[/name…]`: never the root of a hierarchy itself, never outside (D16).
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse_cgroup_parent(text: &str) -> Result<String, String> {
    let names = text.strip_prefix('/').filter(|names| !names.is_empty());
    let plain = |name: &str| !name.is_empty() && name != "." && name != ".." && !name.contains('\0');
    match names {
        Some(names) if names.split('/').all(plain) => Ok(text.to_owned()),
        _ => Err(format!("{text:?} is not the path of a cgroup: expected /name[/name...]")),
    }
}

impl Record {
    /// The status that users see, where the shim's silence doesn't count.
    #[must_use]
    pub fn shown(&self) -> Shown {
        match self.status {
            Status::Creating | Status::Created => Shown::Created,
            Status::Running if self.paused => Shown::Paused,
            Status::Running => Shown::Running,
            Status::Exited if self.is_restarting() => Shown::Restarting,
            Status::Exited => Shown::Exited,
            Status::Removing => Shown::Removing,
            // As it was before.
            Status::Starting if self.exit.at == 0 => Shown::Created,
            Status::Starting if self.is_restarting() => Shown::Restarting,
            Status::Starting => Shown::Exited,
        }
    }

    /// The name of its cgroup.
    #[must_use]
    pub fn cgroup_name(&self) -> String {
        format!("{}-{}", self.namespace, self.id)
    }

    /// Whether a cgroup of this name can be a container's; others may have made
    /// theirs beside them, which are theirs.
    #[must_use]
    pub fn is_cgroup_name(name: &str) -> bool {
        let Some((namespace, id)) = name.rsplit_once('-') else { return false };
        namespace.parse::<Namespace>().is_ok() && id::is_fresh(id)
    }

    /// The cgroup that its own is made in, below each hierarchy; `engine` is
    /// where it has none of its own.
    #[must_use]
    pub fn cgroup_parent(&self, engine: &str) -> String {
        match self.summary.cgroup_parent.trim_matches('/') {
            "" => engine.to_owned(),
            own => format!("/{own}"),
        }
    }

    /// Its cgroup, below each hierarchy.
    #[must_use]
    pub fn cgroup(&self, engine: &str) -> String {
        format!("{}/{}", self.cgroup_parent(engine), self.cgroup_name())
    }

    /// The name directly below the cgroup `parent` that is its own, or leads to
    /// it.
    #[must_use]
    pub fn below_cgroup(&self, parent: &str) -> Option<String> {
        let own = self.cgroup(parent);
        let below = own.strip_prefix(parent)?.strip_prefix('/')?;
        below.split('/').next().map(str::to_owned)
    }

    /// Its policy is about to have it started.
    #[must_use]
    pub fn is_restarting(&self) -> bool {
        self.restarts.due != 0
    }

    /// What every event of this container says of it. Labels can't stand in
    /// for what the engine says.
    #[must_use]
    pub fn event_attributes(&self) -> BTreeMap<String, String> {
        let mut attributes = self.summary.labels.clone();
        attributes.insert("name".to_owned(), self.name.clone());
        attributes.insert("image".to_owned(), self.image.clone());
        attributes
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Remove: a name, and the image with its last one. Docker's rules and words.

use std::collections::BTreeSet;

use berth::{failpoint, ids::Namespace};
use rusqlite::Transaction;

use super::{
    Images,
    pull::event,
    resolve::{DANGLING, Found, find},
};
use crate::{
    domain::digest::Digest,
    error::{Error, Kind, Result},
    image::reference::familiar,
    store::meta::{
        events,
        images::{self as rows, RefRow, UserRow},
    },
};

/// What a removal took away.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Names.
    pub untagged: Vec<String>,
    /// Digests of the image and of layers that went with it.
    pub deleted: Vec<String>,
    /// Bytes of layers' files and of blobs.
    pub reclaimed: u64,
}

impl Images {
    /// Removes the name `image`, and the image when it was the last; or, by an
    /// id, all of it. Blocks.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` when it is in use or has names besides.
    pub fn remove(&self, namespace: &Namespace, image: &str, force: bool) -> Result<Removed> {
        let mut removed = self.db.write(|tx| {
            let found = find(tx, namespace.as_str(), image)?;
            Removal::new(tx, namespace.as_str(), image, found, force)?.run()
        })?;
        self.events.committed();
        if !removed.deleted.is_empty() {
            self.sweep(&mut removed)?;
        }
        Ok(removed)
    }

    /// Removes what nobody needs any more. Blocks.
    pub(super) fn sweep(&self, removed: &mut Removed) -> Result<()> {
        failpoint::hit("untag.row")?;
        for gone in self.snapshots.collect()? {
            removed.reclaimed = removed.reclaimed.saturating_add(gone.size);
            removed.deleted.push(gone.key);
        }
        failpoint::hit("layers.swept")?;
        removed.reclaimed = removed.reclaimed.saturating_add(self.content.collect()?);
        failpoint::hit("blobs.swept")?;
        Ok(())
    }
}

/// Takes all names of `namespace` from the image `id`, and the image when no
/// other has one, unless anybody uses it.
pub(super) fn remove_unused(tx: &Transaction<'_>, namespace: &str, id: &Digest) -> Result<Removed> {
    let Some(row) = rows::get(tx, id.as_str())? else { return Ok(Removed::default()) };
    if rows::is_used(tx, id.as_str())? {
        return Ok(Removed::default());
    }
    let found = Found { row, name: None };
    let mut removal = Removal::new(tx, namespace, id.as_str(), found, false)?;
    removal.untag_all()?;
    removal.delete()?;
    Ok(removal.removed)
}

struct Removal<'a> {
    tx: &'a Transaction<'a>,
    namespace: &'a str,
    /// As the user wrote it.
    asked: &'a str,
    force: bool,
    id: Digest,
    /// The name that was meant; none when the image itself was.
    name: Option<String>,
    refs: Vec<RefRow>,
    users: Vec<UserRow>,
    removed: Removed,
}

impl<'a> Removal<'a> {
    fn new(
        tx: &'a Transaction<'a>,
        namespace: &'a str,
        asked: &'a str,
        found: Found,
        force: bool,
    ) -> Result<Self> {
        let id: Digest = found.row.id.parse()?;
        Ok(Self {
            refs: rows::refs_of(tx, namespace, id.as_str())?,
            users: rows::users(tx, id.as_str())?,
            removed: Removed::default(),
            name: found.name,
            tx,
            namespace,
            asked,
            force,
            id,
        })
    }

    fn run(mut self) -> Result<Removed> {
        // Its last name goes with the image: rows that a mount needs.
        if (self.name.is_none() || self.refs.len() <= 1)
            && let Some(path) = rows::mounted_at(self.tx, self.id.as_str())?
        {
            let id = self.id.short();
            return Err(conflict(format!(
                "unable to delete {id} (cannot be forced) - image is mounted at {path}"
            )));
        }
        match self.name.clone() {
            Some(name) => self.by_name(&name)?,
            None => self.by_id()?,
        }
        Ok(self.removed)
    }

    fn by_name(&mut self, name: &str) -> Result<()> {
        // With the last tag of a repository go its names by digest.
        let own = |row: &&RefRow| repository(&row.name) == repository(name) && row.name != name;
        let (digests, tags): (Vec<_>, Vec<_>) =
            self.refs.iter().filter(own).map(|row| row.name.clone()).partition(|other| other.contains('@'));
        let digests = if tags.is_empty() && !name.contains('@') { digests } else { Vec::new() };
        let last = self.refs.len() <= 1 + digests.len();
        if let Some(user) = self.users.first().filter(|_| last && !self.force) {
            let (asked, container, id) = (self.asked, short(&user.id), self.id.short());
            return Err(conflict(format!(
                "unable to remove repository reference \"{asked}\" (must force) - \
                 container {container} is using its referenced image {id}"
            )));
        }
        let row = self.refs.iter().find(|row| row.name == name).cloned();
        self.untag(name)?;
        digests.iter().try_for_each(|digest| self.untag(digest))?;
        if !last {
            return Ok(());
        }
        if let Some(row) = row.filter(|_| self.running().is_some()) {
            // Its containers go on; the image stays without a name.
            let name = format!("{DANGLING}{}", self.id);
            return rows::set_ref(self.tx, self.namespace, &RefRow { name, ..row });
        }
        self.delete()
    }

    fn by_id(&mut self) -> Result<()> {
        let id = self.id.short().to_owned();
        if !self.is_single() && !self.force {
            return Err(conflict(format!(
                "unable to delete {id} (must be forced) - image is referenced in multiple repositories"
            )));
        }
        if let Some(user) = self.running() {
            let container = short(&user.id);
            return Err(conflict(format!(
                "unable to delete {id} (cannot be forced) - image is being used by running container {container}"
            )));
        }
        if let Some(user) = self.users.first().filter(|_| !self.force) {
            let container = short(&user.id);
            return Err(conflict(format!(
                "unable to delete {id} (must be forced) - image is being used by stopped container {container}"
            )));
        }
        self.untag_all()?;
        self.delete()
    }

    /// All names are of one repository, and at most one of them is a tag.
    fn is_single(&self) -> bool {
        let mut names = self.refs.iter().map(|row| &*row.name).filter(|name| !name.starts_with(DANGLING));
        let repositories: BTreeSet<&str> = names.clone().map(repository).collect();
        repositories.len() <= 1 && names.by_ref().filter(|name| !name.contains('@')).count() <= 1
    }

    fn untag_all(&mut self) -> Result<()> {
        std::mem::take(&mut self.refs).iter().try_for_each(|row| self.untag(&row.name))
    }

    fn running(&self) -> Option<&UserRow> {
        self.users.iter().find(|user| matches!(user.status.as_str(), "running" | "starting"))
    }

    fn untag(&mut self, name: &str) -> Result<()> {
        rows::delete_ref(self.tx, self.namespace, name)?;
        if !name.starts_with(DANGLING) {
            self.removed.untagged.push(familiar(name).to_owned());
            events::append(self.tx, &event(self.namespace, "untag", &self.id, familiar(name)))?;
        }
        Ok(())
    }

    /// Other namespaces may still have it.
    fn delete(&mut self) -> Result<()> {
        if rows::count_refs(self.tx, self.id.as_str())? > 0 {
            return Ok(());
        }
        rows::delete(self.tx, self.id.as_str())?;
        self.removed.deleted.push(self.id.to_string());
        events::append(self.tx, &event(self.namespace, "delete", &self.id, self.id.as_str()))
    }
}

fn conflict(words: String) -> Error {
    Error::new(Kind::FailedPrecondition, format!("conflict: {words}"))
}

fn short(container: &str) -> &str {
    container.get(..12).unwrap_or(container)
}

/// A stored name without its tag or digest.
fn repository(name: &str) -> &str {
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    }
}

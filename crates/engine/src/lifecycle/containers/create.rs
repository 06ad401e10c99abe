// SPDX-License-Identifier: Apache-2.0
//! Making a container: intent row, writable layer, directory, done. A create
//! that fails leaves nothing.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, lchown},
    path::Path,
    sync::Arc,
};

use berth::{
    bundle, failpoint,
    ids::{ContainerId, ContainerName, InvalidId, Namespace},
};

use super::{Containers, event};
use crate::{
    domain::{
        command,
        container::{Config, Document, MountKind},
        health::{HealthConfig, OnFailure},
        id, names,
        namespaces::IpcMode,
        record::Record,
        restart::Restarts,
        state::{Exit, Status},
        users::{self, IdMap, Users},
        validate,
    },
    error::{Context as _, Error, Kind, Result},
    lifecycle::images::ResolvedImage,
    store::meta::{containers as rows, events, images},
};

/// Names are drawn this often before the engine gives up.
const MAX_DRAWS: u32 = 20;

/// A container that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Its id.
    pub id: ContainerId,
    /// Its name, drawn if none was given.
    pub name: String,
    /// For the user: what was left out.
    pub warnings: Vec<String>,
}

impl Containers {
    /// Makes a container from a local image. An empty `name` has one drawn.
    ///
    /// # Errors
    /// `NotFound` (no such image), `AlreadyExists` (the name is in use),
    /// `InvalidArgument`, `ResourceExhausted`.
    pub async fn create(
        self: &Arc<Self>,
        namespace: Namespace,
        name: String,
        config: Config,
    ) -> Result<Created> {
        // Runs to its end, whatever becomes of the caller.
        self.blocking(move |this| this.create_now(namespace, &name, config)).await
    }

    fn create_now(&self, namespace: Namespace, name: &str, config: Config) -> Result<Created> {
        let name = check_name(name)?;
        validate::config(&config)?;
        let mut config = config;
        let donor = self.find_donors(&namespace, &mut config)?;
        bind_sources(&config)?;
        let image = self.images.resolve(&namespace, &config.image)?;
        let id = id::fresh()?;
        let resolved =
            command::resolve(&config, &image.config, &id, donor.as_deref().unwrap_or(&self.host.name))?;
        let joins_ipc = matches!(config.host.ipc, IpcMode::Container(_));
        let mut effective = resolved.effective;
        effective.health = health(&config, image.health.as_ref())?;
        let document = Document { config, effective };
        let (record, maps) = self.intend(namespace, id, name, &image, document)?;
        if let Err(error) = self.make(&record, &image, &maps) {
            if let Err(undo) = self.unmake(&record) {
                tracing::error!(id = %record.id, error = undo.chain(), "a failed create is undone at the next start");
            }
            return Err(error);
        }
        let mut warnings = resolved.warnings;
        warnings.extend(joins_ipc.then(|| {
            "/dev/shm is the container's own: with another's IPC come System V objects and message queues"
                .to_owned()
        }));
        Ok(Created { id: record.id, name: record.name, warnings })
    }

    /// Records the intent; from here on the name is taken.
    fn intend(
        &self,
        namespace: Namespace,
        id: ContainerId,
        name: Option<ContainerName>,
        image: &ResolvedImage,
        mut document: Document,
    ) -> Result<(Record, Vec<IdMap>)> {
        let mut record = Record {
            namespace,
            id,
            name: String::new(),
            created_at: bundle::now_nanos(),
            image: document.config.image.clone(),
            image_id: image.id.to_string(),
            summary: document.summary(),
            status: Status::Creating,
            paused: false,
            pid: 0,
            exit: Exit::default(),
            started_at: 0,
            shim: None,
            restarts: Restarts::default(),
            health: None,
        };
        self.db.write(|tx| {
            record.name = match &name {
                Some(name) => vacant(tx, &record.namespace, name.as_str())?,
                None => draw(tx, &record.namespace)?,
            };
            document.effective.id_maps = id_maps(tx, &document)?;
            images::touch(tx, &record.image_id)?;
            rows::insert(tx, &record, &document)
        })?;
        Ok((record, document.effective.id_maps))
    }

    fn make(&self, record: &Record, image: &ResolvedImage, maps: &[IdMap]) -> Result<()> {
        failpoint::hit("create.row")?;
        let parent = image.chain_id.as_ref().map(ToString::to_string);
        self.snapshots.prepare(record.id.as_str(), parent.as_deref())?;
        failpoint::hit("create.layer")?;
        give_root(&self.snapshots.rootfs(record.id.as_str())?.upper, maps)?;
        let dir = self.directory(&record.namespace, &record.id);
        let mut private = fs::DirBuilder::new();
        private.recursive(true).mode(0o700).create(&dir).context("make the container's directory")?;
        failpoint::hit("create.directory")?;
        self.db.write(|tx| {
            rows::transit(tx, &record.id, &[Status::Creating], Status::Created)?;
            events::append(tx, &event(record, "create", &[]))
        })?;
        failpoint::pass("create.done");
        self.events.committed();
        Ok(())
    }

    /// Removes what there is of a container that never came to be. Blocks.
    pub(super) fn unmake(&self, record: &Record) -> Result<()> {
        self.remove_files(record)?;
        self.db.write(|tx| rows::delete(tx, &record.id))
    }
}

pub(super) fn check_name(name: &str) -> Result<Option<ContainerName>> {
    if name.is_empty() {
        return Ok(None);
    }
    let bare = name.strip_prefix('/').unwrap_or(name);
    bare.parse().map(Some).map_err(|_: InvalidId| {
        let shown: String = name.chars().take(200).collect();
        let what = format!(
            "Invalid container name ({}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
            shown.escape_debug()
        );
        Error::new(Kind::InvalidArgument, what)
    })
}

pub(super) fn vacant(db: &rusqlite::Connection, namespace: &Namespace, name: &str) -> Result<String> {
    match rows::by_name(db, namespace, name)? {
        None => Ok(name.to_owned()),
        Some(other) => Err(Error::new(
            Kind::AlreadyExists,
            format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{}\". \
                 You have to remove (or rename) that container to be able to reuse that name.",
                other.id
            ),
        )),
    }
}

/// The ids on the host of the users that a container is to have; nobody else
/// has them when it was left to us.
fn id_maps(db: &rusqlite::Connection, document: &Document) -> Result<Vec<IdMap>> {
    match users::parse(&document.config.host.userns)? {
        Users::Host => Ok(Vec::new()),
        Users::Mapped(maps) => Ok(maps),
        Users::Auto => {
            let pool = users::pool(&delegated("/etc/subuid")?, &delegated("/etc/subgid")?);
            let found = users::free(&pool, &rows::id_maps(db)?);
            let none = "all ids for containers with users of their own are in use: add a line for berth to \
                        /etc/subuid and /etc/subgid, or remove a container";
            found.map(|map| vec![map]).ok_or_else(|| Error::new(Kind::ResourceExhausted, none))
        }
    }
}

fn delegated(path: &str) -> Result<String> {
    match fs::read_to_string(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        result => result.with_context(|| format!("read {path}")),
    }
}

/// Makes the container's root the owner of `path`, which it finds there.
pub(super) fn give_root(path: &Path, maps: &[IdMap]) -> Result<()> {
    match users::host_id(maps, 0) {
        None => Ok(()),
        Some(id) => lchown(path, Some(id), Some(id)).with_context(|| format!("chown {}", path.display())),
    }
}

fn draw(db: &rusqlite::Connection, namespace: &Namespace) -> Result<String> {
    for attempt in 0..MAX_DRAWS {
        let random = getrandom::u64()
            .map_err(|e| Error::new(Kind::Internal, "draw a container name").with_source(e.to_string()))?;
        let name = names::draw(random, attempt);
        if rows::by_name(db, namespace, &name)?.is_none() {
            return Ok(name);
        }
    }
    Err(Error::new(Kind::ResourceExhausted, "no free container name was found: give one"))
}

/// The check in force: the image's, where the user says nothing else.
fn health(config: &Config, image: Option<&HealthConfig>) -> Result<Option<HealthConfig>> {
    let own = config.health.clone().unwrap_or_default();
    let merged = image.map_or_else(|| own.clone(), |image| own.over(image));
    if merged.in_force()?.is_some() {
        return Ok(Some(merged));
    }
    if own.on_failure != OnFailure::None {
        let what =
            format!("cannot set on-failure action to {} without a health check", own.on_failure.as_str());
        return Err(Error::new(Kind::InvalidArgument, what));
    }
    Ok(None)
}

/// What is to be bound must be there, or is made where that was asked for.
fn bind_sources(config: &Config) -> Result<()> {
    for mount in config.host.mounts.iter().filter(|m| m.kind == MountKind::Bind) {
        let source = &mount.source;
        match fs::metadata(source) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound && mount.create_source => {
                fs::create_dir_all(source).with_context(|| format!("create bind source {source}"))?;
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(Error::new(
                    Kind::InvalidArgument,
                    format!(
                        "invalid mount config for type \"bind\": bind source path does not exist: {source}"
                    ),
                ));
            }
            Err(e) => return Err(Error::io(format!("look at bind source {source}"), e)),
        }
    }
    Ok(())
}

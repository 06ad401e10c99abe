// SPDX-License-Identifier: Apache-2.0
//! The one place that builds the engine and wires it together, and its life:
//! directories, locks, stores, services, sockets, until it is told to stop.
//!
//! Containers belong to their shims: nothing here ends one.

mod dirs;
mod listen;
mod lock;
pub mod logging;
mod serve;
mod signals;

use std::{path::PathBuf, sync::Arc, time::Duration};

use berth::api::v1::{
    containers_server::ContainersServer, events_server::EventsServer, execs_server::ExecsServer,
    images_server::ImagesServer, system_server::SystemServer,
};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    api::{
        berth::{
            containers::ContainersService, events::EventsService, execs::ExecsService, images::ImagesService,
            system::SystemService,
        },
        call::GRACE,
    },
    config::{Config, RegistryConfig},
    error::{Context as _, Error, Kind, Result},
    kernel::{
        host::{self, Limit},
        memory,
        notify::Notifier,
    },
    lifecycle::{
        containers::{Containers, Deps, Paths},
        events::Events,
        fsck,
        images::{Collection, Images},
        system::{Mirrors, System},
    },
    store::{Reserve, content::Content, meta::Db, snapshot::Snapshots},
};

pub use signals::Stopped;

/// Connections that are still open this long after the calls' own [`GRACE`]
/// are cut.
const CLOSING: Duration = Duration::from_secs(1);

/// Threads for work that blocks: the database, unpacking, mounts.
const BLOCKING_THREADS: usize = 64;

/// Runs the engine until it is told to stop.
///
/// # Errors
/// What keeps it from starting; what ends it without being asked.
pub fn run(config: &Config, logging: &logging::Handle) -> Result<Stopped> {
    // What we make is for the owner to write, whoever started us.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.workers)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("berthd")
        // One that has had nothing to do for ten seconds: what a pull needed
        // isn't needed any more.
        .on_thread_stop(memory::release)
        .enable_all()
        .build()
        .context("start the runtime")?;
    let stopped = runtime.block_on(live(config, logging));
    // A blocking task that hangs must not hold the exit up.
    runtime.shutdown_timeout(Duration::from_millis(100));
    stopped
}

/// Compares everything that belongs to the engine of `config`, and changes
/// nothing. Blocks.
///
/// # Errors
/// What keeps it from looking.
pub fn check(config: &Config, depth: fsck::Depth) -> Result<fsck::Report> {
    let engine = if lock::is_taken(&config.root)? { fsck::Engine::Running } else { fsck::Engine::Stopped };
    let places = fsck::Places {
        root: config.root.clone(),
        metadata: config.root.join(dirs::METADATA),
        state: config.state.clone(),
        cgroup_parent: config.containers.cgroup_parent.clone(),
    };
    fsck::check(&places, engine, depth)
}

async fn live(config: &Config, logging: &logging::Handle) -> Result<Stopped> {
    let mut signals = signals::Signals::listen()?;
    let notifier = Notifier::from_env().context("find the service manager")?;

    dirs::prepare(config)?;
    let _locks = lock::both(config)?;
    let listeners = listen::Listeners::bind(config)?;

    let engine = Engine::build(config).await?;
    let (stop, stopping) = watch::channel(false);
    let mut serving = std::pin::pin!(serve::serve(listeners, engine.services(), stopping));
    let mut tasks = engine.start(config);
    notifier.ready();
    tracing::info!(
        address = %config.address,
        root = %config.root.display(),
        state = %config.state.display(),
        version = crate::lifecycle::system::VERSION.version,
        "serving"
    );

    loop {
        tokio::select! {
            ended = &mut serving => return Err(early(ended)),
            signal = signals.next() => match signal {
                signals::Signal::Reload => logging.reload(config),
                signals::Signal::Stop(name) => {
                    tracing::info!(signal = name, "stopping; containers keep running");
                    break;
                }
            }
        }
    }

    notifier.stopping();
    notifier.extend(GRACE + CLOSING + Duration::from_secs(1));
    engine.containers.engine_stops();
    stop.send_replace(true);
    let closed = tokio::time::timeout(GRACE + CLOSING, serving);
    let stopped = tokio::select! {
        closed = closed => finish(closed)?,
        () = signals.insist() => Stopped::AtOnce,
    };
    tasks.shutdown().await;
    tracing::info!("stopped");
    Ok(stopped)
}

/// Serving ended though nobody asked it to.
fn early(ended: Result<()>) -> Error {
    ended.err().unwrap_or_else(|| Error::new(Kind::Internal, "the API's sockets closed by themselves"))
}

fn finish(closed: Result<Result<()>, tokio::time::error::Elapsed>) -> Result<Stopped> {
    match closed {
        Ok(ended) => ended?,
        Err(_) => tracing::warn!("connections are still open: closing them"),
    }
    Ok(Stopped::Gracefully)
}

/// What the engine is made of.
struct Engine {
    containers: Arc<Containers>,
    images: Arc<Images>,
    events: Arc<Events>,
    system: Arc<System>,
}

impl Engine {
    async fn build(config: &Config) -> Result<Self> {
        let open_files = host::raise_open_files().context("raise the limit of open files")?;
        let config = config.clone();
        let open = tokio::task::spawn_blocking(move || Self::open(&config, open_files));
        let engine = open.await.context("build the engine")??;
        // Bounded: what doesn't answer in time is taken over while we serve.
        engine.containers.reconcile().await?;
        Ok(engine)
    }

    /// Blocks: opens what is on disk.
    fn open(config: &Config, open_files: Limit) -> Result<Self> {
        tracing::debug!(soft = open_files.soft, hard = open_files.hard, "open files before they were raised");
        let reserve = Reserve::open(&config.root)?;
        let db = Arc::new(open_metadata(config)?.with_reserve(reserve));
        let events = Events::new(Arc::clone(&db), config.events.retain);
        let content = Content::open(&config.root, Arc::clone(&db))?;
        let snapshots = Snapshots::open(&config.root, Arc::clone(&db))?;
        // What an engine that died left half done, before anybody can add to it.
        snapshots.reconcile()?;
        content.reconcile()?;
        let images = Images::new(
            Arc::clone(&db),
            content,
            Arc::clone(&snapshots),
            config.registry.clone(),
            Arc::clone(&events),
        )?;
        images.reconcile_mounts()?;
        let containers = Containers::new(Deps {
            db: Arc::clone(&db),
            images: Arc::clone(&images),
            snapshots,
            events: Arc::clone(&events),
            paths: Paths {
                root: config.root.clone(),
                state: config.state.clone(),
                cgroup_parent: config.containers.cgroup_parent.clone(),
                shim_binary: shim(config)?,
            },
            defaults: config.containers.clone(),
        })?;
        let system = System::open(db, config.root.clone(), config.state.clone(), mirrors(&config.registry))?;
        Ok(Self { containers, images, events, system })
    }

    /// Starts what works in the background; it ends when it is dropped.
    fn start(&self, config: &Config) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&self.events).keep_trimmed());
        if let Some(directory) = &config.images.preload {
            tasks.spawn(Arc::clone(&self.images).preload(directory.path().to_owned()));
        }
        tasks.spawn(Arc::clone(&self.images).keep_tidy());
        if let Some((high, low)) = config.images.marks() {
            let collection = Collection {
                root: config.root.clone(),
                high,
                low,
                min_age: config.images.min_age(),
                interval: config.images.interval(),
                dry_run: config.images.gc_dry_run,
            };
            tasks.spawn(Arc::clone(&self.images).keep_collected(collection));
        }
        tasks
    }

    /// Puts every service behind the API's doors.
    fn services(&self) -> serve::Services {
        let mut services = serve::Services::default();
        services.add(ImagesServer::new(ImagesService(Arc::clone(&self.images))));
        services.add(SystemServer::new(SystemService(Arc::clone(&self.system))));
        services.add(ContainersServer::new(ContainersService::new(Arc::clone(&self.containers))));
        services.add(ExecsServer::new(ExecsService::new(Arc::clone(&self.containers))));
        services.add(EventsServer::new(EventsService(Arc::clone(&self.events))));
        services
    }
}

/// The shim's program: as configured, or beside ours.
fn shim(config: &Config) -> Result<PathBuf> {
    match &config.shim {
        Some(shim) => Ok(shim.clone()),
        None => {
            let ours = std::env::current_exe().context("find our own program")?;
            Ok(ours.with_file_name("berth-shim"))
        }
    }
}

fn mirrors(registry: &RegistryConfig) -> Vec<Mirrors> {
    let mirrored = registry.hosts.iter().filter(|(_, host)| !host.mirrors.is_empty());
    mirrored.map(|(name, host)| Mirrors { host: name.clone(), mirrors: host.mirrors.clone() }).collect()
}

/// The metadata, if it is sound. Damaged metadata is nobody's to repair or to
/// throw away: it is left as it is, and the user is told (D19).
fn open_metadata(config: &Config) -> Result<Db> {
    let path = config.root.join(dirs::METADATA);
    let db = Db::open(&path).and_then(|db| db.check().map(|()| db));
    db.map_err(|e| {
        if e.kind() != Kind::DataLoss {
            return e;
        }
        let text = format!(
            "the metadata {path} is damaged; nothing was changed. Restore it from a backup, or start without \
             it: mv {path} {path}.damaged (containers that run now are then unknown to berth)",
            path = path.display()
        );
        Error::new(Kind::DataLoss, text).with_source(e)
    })
}

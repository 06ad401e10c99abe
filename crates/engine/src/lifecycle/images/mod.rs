// SPDX-License-Identifier: Apache-2.0
//! Images: the use cases, and the order of their steps.

mod assemble;
pub(super) mod build;
mod collect;
mod feed;
mod import;
mod intact;
mod list;
mod load;
mod locks;
mod mount;
mod preload;
mod progress;
mod prune;
mod pull;
mod push;
mod remove;
mod resolve;
mod save;
mod telling;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, Weak},
};

use tokio::sync::Semaphore;

use self::{assemble::blocking, locks::Locks, progress::Job};
pub use self::{
    collect::Collection,
    import::ImportRequest,
    list::{ImageDetails, ImageFilter, ImageSummary},
    load::{Loading, Upload},
    mount::MountedImage,
    progress::{Event, Follower, LayerProgress, Loaded, Phase, Pulled},
    prune::PruneOptions,
    pull::PullRequest,
    push::{PushRequest, Pushed},
    remove::Removed,
    resolve::ResolvedImage,
    save::{Format, Packing, Saving, Shape},
};
use super::events::Events;
/// What a [`PullRequest`] is made of.
pub use crate::image::{platform::Platform, registry::auth::Credentials};
use crate::{
    error::Result,
    image::{
        reference::Reference,
        registry::{Registry, hosts::RegistryConfig},
    },
    store::{content::Content, meta::Db, snapshot::Snapshots},
};

/// Layers that are fetched and unpacked at the same time, over all pulls: each
/// keeps two processors busy, or waits for its registry.
fn parallel_layers() -> usize {
    std::thread::available_parallelism().map_or(4, |processors| processors.get().clamp(4, 16))
}

/// All that can be done with images.
pub struct Images {
    db: Arc<Db>,
    content: Arc<Content>,
    snapshots: Arc<Snapshots>,
    events: Arc<Events>,
    registry: Arc<Registry>,
    /// Pulls that run.
    pulls: Mutex<HashMap<PullRequest, Weak<Job>>>,
    layer_locks: Locks,
    blob_locks: Locks,
    slots: Arc<Semaphore>,
}

impl fmt::Debug for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Images").finish_non_exhaustive()
    }
}

impl Images {
    /// On top of the given stores. `config` says where registries answer.
    ///
    /// # Errors
    /// When the configuration is wrong.
    pub fn new(
        db: Arc<Db>,
        content: Arc<Content>,
        snapshots: Arc<Snapshots>,
        config: RegistryConfig,
        events: Arc<Events>,
    ) -> Result<Arc<Self>> {
        config.check()?;
        Ok(Arc::new(Self {
            db,
            content,
            snapshots,
            events,
            registry: Arc::new(Registry::new(config)),
            pulls: Mutex::default(),
            layer_locks: Locks::default(),
            blob_locks: Locks::default(),
            slots: Arc::new(Semaphore::new(parallel_layers())),
        }))
    }

    /// The tags that the repository of `reference` has at its registry.
    ///
    /// # Errors
    /// Those of a pull; `ResourceExhausted` for more than can be listed.
    pub async fn tags(&self, reference: &Reference, credentials: Option<Credentials>) -> Result<Vec<String>> {
        let (registry, reference) = (Arc::clone(&self.registry), reference.clone());
        blocking(move || registry.repository(&reference, credentials.as_ref())).await?.tags().await
    }

    /// Checks somebody's credentials with a registry. Returns what to keep
    /// instead of the password, where the registry gives such a thing.
    ///
    /// # Errors
    /// `Unauthenticated`, `InvalidArgument`, `Unavailable`.
    pub async fn login(&self, registry: &str, credentials: &Credentials) -> Result<Option<String>> {
        let (known, registry, credentials) =
            (Arc::clone(&self.registry), registry.to_owned(), credentials.clone());
        blocking(move || known.login(&registry, &credentials)).await?.ask().await
    }
}

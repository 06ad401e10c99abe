// SPDX-License-Identifier: Apache-2.0
//! Images: the use cases, and the order of their steps.

mod resolve;

use std::sync::Arc;

pub use self::resolve::ResolvedImage;
use super::events::Events;
use crate::{
    error::Result,
    image::registry::hosts::RegistryConfig,
    store::{content::Content, meta::Db, snapshot::Snapshots},
};

/// All that can be done with images.
#[derive(Debug)]
pub struct Images {
    db: Arc<Db>,
    content: Arc<Content>,
    snapshots: Arc<Snapshots>,
    config: RegistryConfig,
    events: Arc<Events>,
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
        Ok(Arc::new(Self { db, content, snapshots, config, events }))
    }
}

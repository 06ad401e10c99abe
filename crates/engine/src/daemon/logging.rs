// SPDX-License-Identifier: Apache-2.0
//! The engine's own log on standard error: text for people, coloured on a
//! terminal only, or JSON for programs.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{
    EnvFilter, Registry, fmt, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

use crate::{
    config::{Config, Log, LogFormat},
    error::{Error, Kind, Result},
};

/// Reads a level again, for a running engine.
type Reread = Box<dyn Fn() -> Result<Config> + Send + Sync>;

/// Changes the level of a running engine.
pub struct Handle {
    filter: reload::Handle<EnvFilter, Registry>,
    reread: Reread,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl Handle {
    /// Reads the configuration again and takes the log level from it; all
    /// else needs a restart, which containers don't notice.
    pub fn reload(&self, running: &Config) {
        match (self.reread)().and_then(|config| self.apply(&config.log).map(|()| config)) {
            Ok(config) if config == *running => tracing::info!("the configuration is unchanged"),
            Ok(config) => {
                tracing::info!(level = config.log.level, "took the log level; the rest needs a restart");
            }
            Err(e) => tracing::error!("the configuration was not reloaded: {}", e.chain()),
        }
    }

    fn apply(&self, log: &Log) -> Result<()> {
        let filter = filter(log)?;
        self.filter
            .reload(filter)
            .map_err(|e| Error::new(Kind::Internal, "change the log level").with_source(e))
    }
}

/// Starts to log; `reread` is how to get the configuration again.
///
/// # Errors
/// `InvalidArgument` for a level that is none; `Internal` when something else
/// in this process logs already.
pub fn start(log: &Log, reread: Reread) -> Result<Handle> {
    let (filter, handle) = reload::Layer::new(filter(log)?);
    let lines = fmt::layer().with_writer(io::stderr).with_target(true);
    let registry = tracing_subscriber::registry().with(filter);
    let started = match log.format {
        LogFormat::Text => registry.with(lines.with_ansi(io::stderr().is_terminal())).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    started.map_err(|e| Error::new(Kind::Internal, "start the log").with_source(e))?;
    Ok(Handle { filter: handle, reread })
}

fn filter(log: &Log) -> Result<EnvFilter> {
    EnvFilter::builder().parse(&log.level).map_err(|e| {
        Error::new(Kind::InvalidArgument, format!("invalid log level {:?}", log.level)).with_source(e)
    })
}

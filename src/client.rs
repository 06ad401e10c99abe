// SPDX-License-Identifier: Apache-2.0
//! One line to an engine: [`Client::connect`].

use std::{error::Error, fmt, io, path::PathBuf};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::api::v1::{
    containers_client::ContainersClient, events_client::EventsClient, execs_client::ExecsClient,
    images_client::ImagesClient, system_client::SystemClient,
};

/// Largest message either way. Lists of thousands of containers fit.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// A connection to an engine; cheap to clone, all clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum ConnectError {
    /// The address is not `unix:///absolute/path`, an absolute path, or
    /// `http://host:port`.
    InvalidAddress(String),
    /// Nothing listens there, or the socket's permissions forbid it.
    Unreachable {
        /// As it was asked for.
        address: String,
        /// What the kernel or the transport said.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidAddress(address) => {
                write!(f, "invalid address {address:?}: expected unix:///path or http://host:port")
            }
            Self::Unreachable { address, .. } => write!(f, "connect to the berth engine at {address}"),
        }
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::InvalidAddress(_) => None,
            Self::Unreachable { source, .. } => Some(source.as_ref()),
        }
    }
}

impl Client {
    /// Connects to the engine at `address`: `unix:///path`, a plain absolute
    /// path, or `http://host:port` through a tunnel of the caller's.
    ///
    /// # Errors
    /// When the address is malformed or nobody answers there. For a unix
    /// socket, the source of [`ConnectError::Unreachable`] is an
    /// [`io::Error`] with the kernel's kind.
    pub async fn connect(address: &str) -> Result<Self, ConnectError> {
        let path = address.strip_prefix("unix://").or_else(|| address.starts_with('/').then_some(address));
        match path {
            Some(path) if path.starts_with('/') => Self::connect_unix(address, PathBuf::from(path)).await,
            Some(_) => Err(ConnectError::InvalidAddress(address.to_owned())),
            None => Self::connect_tcp(address).await,
        }
    }

    /// Wraps a channel that was made elsewhere: TLS, balancing, middleware.
    #[must_use]
    pub fn from_channel(channel: Channel) -> Self {
        Self { channel }
    }

    async fn connect_unix(address: &str, path: PathBuf) -> Result<Self, ConnectError> {
        let unreachable = |source: Box<dyn Error + Send + Sync>| ConnectError::Unreachable {
            address: address.to_owned(),
            source,
        };
        // The first connection is made here, so that its error keeps its kind.
        let first = UnixStream::connect(&path).await.map_err(|e| unreachable(e.into()))?;
        let mut first = Some(first);
        let connector = tower::service_fn(move |_: Uri| {
            let ready = first.take();
            let path = path.clone();
            async move {
                let stream = match ready {
                    Some(stream) => stream,
                    None => UnixStream::connect(path).await?,
                };
                Ok::<_, io::Error>(TokioIo::new(stream))
            }
        });
        // The URI is only the :authority header; the connector ignores it.
        let channel = Endpoint::from_static("http://localhost")
            .connect_with_connector(connector)
            .await
            .map_err(|e| unreachable(e.into()))?;
        Ok(Self { channel })
    }

    async fn connect_tcp(address: &str) -> Result<Self, ConnectError> {
        let endpoint = Endpoint::from_shared(address.to_owned())
            .ok()
            .filter(|e| e.uri().scheme_str() == Some("http"))
            .ok_or_else(|| ConnectError::InvalidAddress(address.to_owned()))?;
        let channel = endpoint
            .connect()
            .await
            .map_err(|e| ConnectError::Unreachable { address: address.to_owned(), source: e.into() })?;
        Ok(Self { channel })
    }

    /// Containers: create, start, wait, attach, ….
    #[must_use]
    pub fn containers(&self) -> ContainersClient<Channel> {
        ContainersClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// Processes that join a container.
    #[must_use]
    pub fn execs(&self) -> ExecsClient<Channel> {
        ExecsClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// Images: pull, list, load, ….
    #[must_use]
    pub fn images(&self) -> ImagesClient<Channel> {
        ImagesClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// Events, resumable.
    #[must_use]
    pub fn events(&self) -> EventsClient<Channel> {
        EventsClient::new(self.channel.clone())
    }

    /// Version, info, ping.
    #[must_use]
    pub fn system(&self) -> SystemClient<Channel> {
        SystemClient::new(self.channel.clone())
    }
}

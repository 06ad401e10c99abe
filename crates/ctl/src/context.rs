// SPDX-License-Identifier: Apache-2.0
//! What every command needs: the connection and the namespace.

use berth::Client;

use crate::error::Result;

/// A connected engine, and whose containers are meant.
#[derive(Debug, Clone)]
pub struct Context {
    /// The connection.
    pub client: Client,
    /// The tenant, as every request names it.
    pub namespace: String,
    address: String,
}

impl Context {
    /// Connects to the engine.
    ///
    /// # Errors
    /// One line for the user: no engine there, or no permission.
    pub async fn connect(address: &str, namespace: &str) -> Result<Self> {
        let client = Client::connect(address).await?;
        Ok(Self { client, namespace: namespace.to_owned(), address: address.to_owned() })
    }

    /// Connects to the same engine again.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn reconnect(&self) -> Result<Self> {
        Self::connect(&self.address, &self.namespace).await
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Whether a registry knows somebody.

use reqwest::{Method, StatusCode, Url};

use super::{
    Registry,
    auth::Credentials,
    hosts,
    transport::{Access, At, Call, Failure, Session},
};
use crate::{
    error::{Error, Kind, Result},
    image::reference::Reference,
};

impl Registry {
    /// Where to show `registry` somebody's credentials. Blocks: files are read.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no registry, and those of the
    /// configuration.
    pub fn login(&self, registry: &str, credentials: &Credentials) -> Result<Login> {
        let named = format!("{registry}/a/a").parse::<Reference>();
        if !named.is_ok_and(|reference| reference.registry() == registry) {
            let words =
                format!("{registry:?} is no registry: give its host name, as in registry.example.com:5000");
            return Err(Error::new(Kind::InvalidArgument, words));
        }
        let own = hosts::endpoints(&self.config, registry, "")?.into_iter().find(|endpoint| !endpoint.mirror);
        let Some(endpoint) = own else {
            let words =
                format!("the configuration has only mirrors for {registry}: there is nowhere to log in to");
            return Err(Error::new(Kind::FailedPrecondition, words));
        };
        let clients = self.clients.pair(&endpoint.trust, false)?;
        let base = endpoint.url.clone();
        let session = Session::new(endpoint, clients, "", Access::Login, Some(credentials.clone()));
        Ok(Login { registry: registry.to_owned(), base, session })
    }
}

/// Credentials that are about to be shown to a registry.
#[derive(Debug)]
pub struct Login {
    registry: String,
    base: Url,
    session: Session,
}

impl Login {
    /// Shows them. Returns what to keep instead of the password, where the
    /// registry gives such a thing.
    ///
    /// # Errors
    /// `Unauthenticated` when the registry doesn't know them, `Unavailable`.
    pub async fn ask(&self) -> Result<Option<String>> {
        match self.session.call(&Call::new(Method::GET, At::Url(self.base.clone()))).await {
            Ok(_) => Ok(self.session.refresh_token()),
            Err(failure) => Err(explain(failure, &self.registry)),
        }
    }
}

fn explain(failure: Failure, registry: &str) -> Error {
    let refused = match &failure {
        Failure::Status { status, .. } => {
            *status == StatusCode::UNAUTHORIZED || *status == StatusCode::FORBIDDEN
        }
        Failure::Fatal(error) => error.kind() == Kind::Unauthenticated,
        Failure::Unreachable { .. } => false,
    };
    if refused {
        let words =
            format!("login attempt to {registry} failed: unauthorized: incorrect username or password");
        return Error::new(Kind::Unauthenticated, words);
    }
    failure.explain(&format!("login to {registry} refused"), registry, "its API (/v2/)")
}

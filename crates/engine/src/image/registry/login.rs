// SPDX-License-Identifier: Apache-2.0
//! Whether a registry knows somebody.

use reqwest::{Method, StatusCode};

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
    /// Shows `registry` somebody's credentials. Returns what to keep instead of
    /// the password, where the registry gives such a thing.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no registry, `Unauthenticated` when it
    /// doesn't know them, `Unavailable`, and those of the configuration.
    pub async fn login(&self, registry: &str, credentials: &Credentials) -> Result<Option<String>> {
        let named = format!("{registry}/a/a").parse::<Reference>();
        if !named.is_ok_and(|reference| reference.registry() == registry) {
            let words =
                format!("{registry:?} is no registry: give its host name, as in registry.example.com:5000");
            return Err(Error::new(Kind::InvalidArgument, words));
        }
        let own = hosts::endpoints(&self.config, registry)?.into_iter().find(|endpoint| !endpoint.mirror);
        let Some(endpoint) = own else {
            let words =
                format!("the configuration has only mirrors for {registry}: there is nowhere to log in to");
            return Err(Error::new(Kind::FailedPrecondition, words));
        };
        let client = self.client(&endpoint, false)?;
        let base = endpoint
            .url
            .join("v2/")
            .map_err(|e| Error::new(Kind::InvalidArgument, "registry URL").with_source(e))?;
        let session = Session::new(endpoint, client, "", Access::Login, Some(credentials.clone()));
        match session.call(&Call::new(Method::GET, At::Url(base))).await {
            Ok(_) => Ok(session.refresh_token()),
            Err(failure) => Err(explain(failure, registry)),
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

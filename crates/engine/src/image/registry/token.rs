// SPDX-License-Identifier: Apache-2.0
//! Tokens: what a registry's token server gives for credentials, or for none.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{
    Client, StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use serde::Deserialize;

use super::{
    auth::{Credentials, host_of},
    transport::{Failure, read_limited, retry_after, unreachable},
};
use crate::error::{Error, Kind};

/// Largest answer of a token server.
const MAX_BODY: usize = 1 << 20;

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    refresh_token: Option<String>,
}

/// What a token server gave.
pub(super) struct Token {
    /// `Bearer …`.
    pub authorization: HeaderValue,
    /// What gives tokens later, without the password.
    pub refresh: Option<String>,
}

/// What a token is asked for.
pub(super) struct Wanted<'a> {
    pub service: Option<&'a str>,
    pub scopes: Vec<String>,
    /// Also a token that outlives this session.
    pub offline: bool,
}

/// `Basic …`.
pub(super) fn basic(credentials: &Credentials) -> HeaderValue {
    let pair = format!("{}:{}", credentials.username, credentials.password);
    secret(&format!("Basic {}", STANDARD.encode(pair))).unwrap_or(HeaderValue::from_static("Basic"))
}

/// Asks the token server at `realm`.
pub(super) async fn fetch(
    client: &Client,
    mut realm: Url,
    wanted: &Wanted<'_>,
    credentials: Option<&Credentials>,
) -> Result<Token, Failure> {
    let host = host_of(&realm);
    let scopes = &wanted.scopes;
    let parameters = wanted.service.map(|service| ("service", service));
    let refresh = credentials.filter(|credentials| !credentials.identity_token.is_empty());
    let request = if let Some(credentials) = refresh {
        // A refresh takes its scopes in one, separated by spaces.
        let joined = scopes.join(" ");
        let form = form(parameters.into_iter().chain([
            ("scope", joined.as_str()),
            ("grant_type", "refresh_token"),
            ("client_id", "berth"),
            ("refresh_token", credentials.identity_token.as_str()),
        ]));
        client.post(realm).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form)
    } else {
        let scopes = scopes.iter().map(|scope| ("scope", scope.as_str()));
        realm.query_pairs_mut().extend_pairs(parameters.into_iter().chain(scopes));
        if let Some(credentials) = credentials.filter(|_| wanted.offline) {
            let more =
                [("offline_token", "true"), ("client_id", "berth"), ("account", &credentials.username)];
            realm.query_pairs_mut().extend_pairs(more);
        }
        let request = client.get(realm);
        match credentials {
            Some(credentials) => request.header(AUTHORIZATION, basic(credentials)),
            None => request,
        }
    };
    let response = request.send().await.map_err(|e| unreachable(&host, &e))?;
    let status = response.status();
    let patience = status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::REQUEST_TIMEOUT;
    if (status.is_client_error() && !patience) || status.is_redirection() {
        let words = format!("token server {host} gives no token: {status}");
        return Err(Failure::Fatal(Error::new(Kind::Unauthenticated, words)));
    }
    if !status.is_success() {
        let (code, message) = (String::new(), format!("token server {host}: {status}"));
        return Err(Failure::Status { status, code, message, after: retry_after(&response) });
    }
    let body = read_limited(response, MAX_BODY).await?;
    parse(&body).ok_or_else(|| {
        Failure::Fatal(Error::new(Kind::Unavailable, format!("token server {host} answers without a token")))
    })
}

fn parse(body: &[u8]) -> Option<Token> {
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty())?;
    let authorization = secret(&format!("Bearer {token}"))?;
    Some(Token { authorization, refresh: answer.refresh_token.filter(|token| !token.is_empty()) })
}

fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn form<'a>(parameters: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    // The encoding of a form is that of a query.
    let Ok(mut url) = Url::parse("http://form/") else { return String::new() };
    url.query_pairs_mut().extend_pairs(parameters);
    url.query().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_without_a_usable_token_are_none() {
        assert!(
            parse(br#"{"token":"a.b-c"}"#).is_some_and(
                |token| token.authorization == "Bearer a.b-c" && token.authorization.is_sensitive()
            )
        );
        assert!(parse(br#"{"access_token":"x","expires_in":0}"#).is_some());
        for none in [&b""[..], b"{}", b"[]", br#"{"token":""}"#, br#"{"token":"a\nb"}"#, br#"{"token":1}"#] {
            assert!(parse(none).is_none());
        }
    }

    #[test]
    fn forms_are_encoded() {
        assert_eq!(form([("a", "b c&d"), ("e", "ü")].into_iter()), "a=b+c%26d&e=%C3%BC");
    }
}

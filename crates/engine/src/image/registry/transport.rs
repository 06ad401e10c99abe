// SPDX-License-Identifier: Apache-2.0
//! Requests: redirects, authorization, retries, time-outs.
//!
//! Redirects are followed here and not by the HTTP library, because what may
//! go along is ours to decide: the Authorization header never leaves the
//! origin that asked for it.

use std::{
    error::Error as _,
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use reqwest::{
    Body, Method, Response, StatusCode, Url,
    header::{AUTHORIZATION, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE},
};
use tokio::sync::Semaphore;

use super::{
    auth::{self, Challenge, Credentials, host_of},
    client::Pair,
    hosts::Endpoint,
    token::{self, Wanted},
};
use crate::error::{Error, Kind, Result};

/// Redirects of one request.
const MAX_REDIRECTS: usize = 10;
/// Times that one request may be told to authenticate.
const MAX_CHALLENGES: usize = 3;
/// Tries of one request, the first included.
pub(super) const MAX_TRIES: u32 = 5;
/// The first pause between tries; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause, whatever a registry asks for.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// Largest body of an error that is read.
const MAX_ERROR_BODY: usize = 64 << 10;

/// What is asked for. A body is made anew each time the request is sent.
pub(super) struct Call<'a> {
    pub method: Method,
    pub at: At<'a>,
    pub headers: Vec<(HeaderName, String)>,
    pub body: Option<&'a (dyn Fn() -> Body + Send + Sync)>,
}

/// Where it is asked.
#[derive(Debug, Clone)]
pub(super) enum At<'a> {
    /// Below `/v2/<name>/`.
    Path(&'a str),
    /// Where the registry has sent us.
    Url(Url),
}

impl<'a> Call<'a> {
    pub(super) fn new(method: Method, at: At<'a>) -> Self {
        Self { method, at, headers: Vec::new(), body: None }
    }

    pub(super) fn get(path: &'a str) -> Self {
        Self::new(Method::GET, At::Path(path))
    }

    pub(super) fn header(mut self, name: HeaderName, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

/// What a session may be used for.
#[derive(Debug, Clone)]
pub(super) enum Access {
    Pull,
    /// Also to take layers from the named repositories of the registry.
    Push {
        from: Vec<String>,
    },
    /// No repository at all: whether the credentials are right.
    Login,
}

impl Access {
    /// What a token server is asked for.
    fn scopes(&self, repository: &str) -> Vec<String> {
        match self {
            Self::Login => Vec::new(),
            Self::Pull => vec![format!("repository:{repository}:pull")],
            Self::Push { from } => {
                let others = from.iter().map(|other| format!("repository:{other}:pull"));
                std::iter::once(format!("repository:{repository}:pull,push")).chain(others).collect()
            }
        }
    }
}

/// Why a request got nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// The registry can't be reached, or broke off.
    Unreachable { error: Error, refused: bool },
    /// It answered with an error.
    Status { status: StatusCode, code: String, message: String, after: Option<Duration> },
    /// Nothing that trying again or elsewhere would mend.
    Fatal(Error),
}

impl Failure {
    /// How long to wait before the same place is asked again; `None` when that
    /// is no use. `spare` is whether another can be asked instead, `met`
    /// whether this one has ever answered.
    pub(super) fn pause(&self, tried: u32, spare: bool, met: bool) -> Option<Duration> {
        let (asked, tries) = match self {
            // Who never answered is rather named wrongly than away for a moment.
            Self::Unreachable { refused, .. } if !refused || met => (None, 1),
            Self::Status { status: StatusCode::TOO_MANY_REQUESTS, after, .. } => (*after, 1),
            Self::Status { status, after, .. }
                if status.is_server_error() || *status == StatusCode::REQUEST_TIMEOUT =>
            {
                (*after, 2)
            }
            _ => return None,
        };
        let tries = if spare { tries } else { MAX_TRIES };
        (tried < tries).then(|| asked.unwrap_or_else(|| backoff(tried)).min(MAX_PAUSE))
    }
}

impl Failure {
    /// The error for the user: `denied` says what was refused by `host`, `what`
    /// names what was asked for.
    pub(super) fn explain(self, denied: &str, host: &str, what: &str) -> Error {
        let (status, code, message) = match self {
            Self::Unreachable { error, .. } | Self::Fatal(error) => return error,
            Self::Status { status, code, message, .. } => (status, code, message),
        };
        let unknown = format!("{denied}, repository does not exist or may require authorization");
        let because = if message.is_empty() { String::new() } else { format!(": {message}") };
        let refused = || format!("{unknown}: registry {host} denied access{because}");
        match status {
            StatusCode::UNAUTHORIZED => Error::new(Kind::Unauthenticated, refused()),
            StatusCode::FORBIDDEN => Error::new(Kind::PermissionDenied, refused()),
            StatusCode::NOT_FOUND if code == "NAME_UNKNOWN" => Error::new(Kind::NotFound, unknown),
            StatusCode::NOT_FOUND => {
                let nothing = if what.starts_with("manifest") { "manifest unknown" } else { "blob unknown" };
                let words = if message.is_empty() { nothing } else { message.as_str() };
                Error::new(Kind::NotFound, format!("{what} not found: {words}"))
            }
            StatusCode::TOO_MANY_REQUESTS => Error::new(
                Kind::ResourceExhausted,
                format!("toomanyrequests: registry {host} limits how often it may be asked: {message}"),
            ),
            _ => {
                let words = format!("registry {host} answers {status} for {what}");
                let words = if message.is_empty() { words } else { format!("{words}: {message}") };
                Error::new(Kind::Unavailable, words)
            }
        }
    }
}

/// Doubling, and up to as much again at random: clients that failed together
/// shan't come back together.
fn backoff(tried: u32) -> Duration {
    let base = FIRST_PAUSE.saturating_mul(1 << tried.min(8));
    let mut random = [0_u8; 1];
    // Without randomness the pause is merely less polite.
    let _less_polite = getrandom::fill(&mut random);
    base + base.mul_f64(f64::from(random[0]) / 256.0)
}

/// One place that answers for a registry, and what it let us in with.
#[derive(Debug)]
pub(super) struct Session {
    pub endpoint: Endpoint,
    clients: Pair,
    repository: String,
    access: Access,
    credentials: Option<Credentials>,
    /// It has answered.
    met: AtomicBool,
    authorization: Mutex<Option<HeaderValue>>,
    /// One request at a time asks for a token, the others take what it gets.
    asking: Semaphore,
    /// What a token server gave to be kept instead of a password.
    refresh: Mutex<Option<String>>,
}

impl Session {
    pub(super) fn new(
        endpoint: Endpoint,
        clients: Pair,
        repository: &str,
        access: Access,
        credentials: Option<Credentials>,
    ) -> Self {
        let repository = repository.to_owned();
        Self {
            endpoint,
            clients,
            repository,
            access,
            credentials,
            met: AtomicBool::new(false),
            authorization: Mutex::default(),
            asking: Semaphore::new(1),
            refresh: Mutex::default(),
        }
    }

    /// `host[:port]`, for messages.
    pub(super) fn host(&self) -> String {
        host_of(&self.endpoint.url)
    }

    /// Whether it has ever answered.
    pub(super) fn met(&self) -> bool {
        self.met.load(Ordering::Relaxed)
    }

    /// One request, followed through redirects and challenges.
    pub(super) async fn call(&self, call: &Call<'_>) -> Result<Response, Failure> {
        let mut challenges = 0;
        loop {
            let shown = self.authorization();
            let response = self.follow(call).await?;
            if response.status() != StatusCode::UNAUTHORIZED || challenges >= MAX_CHALLENGES {
                return check(response).await;
            }
            // Only the registry itself is listened to, not where it sent us.
            if !same_origin(response.url(), &self.endpoint.url) {
                return check(response).await;
            }
            challenges += 1;
            // Never closed: this is a permit.
            let _turn = self.asking.acquire().await;
            // Another request may have seen to it meanwhile.
            if self.authorization() == shown {
                self.authorize(response).await?;
            }
        }
    }

    async fn follow(&self, call: &Call<'_>) -> Result<Response, Failure> {
        let mut url = match &call.at {
            At::Path(path) => self.url(path)?,
            At::Url(url) => url.clone(),
        };
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(&url, call).await?;
            if !response.status().is_redirection() || response.status() == StatusCode::NOT_MODIFIED {
                return Ok(response);
            }
            url = redirect(&url, &response).map_err(Failure::Fatal)?;
        }
        Err(Failure::Fatal(Error::new(
            Kind::Unavailable,
            format!("registry {} redirects more than {MAX_REDIRECTS} times", self.host()),
        )))
    }

    async fn send(&self, url: &Url, call: &Call<'_>) -> Result<Response, Failure> {
        let home = same_origin(url, &self.endpoint.url);
        let client = if home { &self.clients.own } else { &self.clients.others };
        let mut request = client.request(call.method.clone(), url.clone());
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        if let Some(body) = call.body {
            request = request.body(body());
        }
        // What is a secret between us and the registry stays there.
        if home {
            request = request.headers(self.endpoint.headers.clone());
            if let Some(authorization) = self.authorization() {
                request = request.header(AUTHORIZATION, authorization);
            }
        }
        let response = request.send().await.map_err(|e| unreachable(&host_of(url), &e))?;
        self.met.fetch_or(home, Ordering::Relaxed);
        Ok(response)
    }

    fn url(&self, path: &str) -> Result<Url, Failure> {
        let name = &self.repository;
        let mut text = format!("{}{name}/{path}", self.endpoint.url);
        if let Some(upstream) = &self.endpoint.upstream {
            // What containerd tells its mirrors: for whom they stand.
            text.push_str(if text.contains('?') { "&ns=" } else { "?ns=" });
            text.push_str(upstream);
        }
        Url::parse(&text).map_err(|e| {
            Failure::Fatal(Error::new(Kind::InvalidArgument, format!("invalid registry URL {text:?}: {e}")))
        })
    }

    /// What to keep instead of the password.
    pub(super) fn refresh_token(&self) -> Option<String> {
        self.refresh.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn authorization(&self) -> Option<HeaderValue> {
        self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn authorize(&self, response: Response) -> Result<(), Failure> {
        let challenge = response
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok().and_then(auth::parse_challenge))
            .max_by_key(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        let value = match challenge {
            Some(Challenge::Basic) => match &self.credentials {
                Some(credentials) => token::basic(credentials),
                None => return Err(refused_with(response).await),
            },
            Some(Challenge::Bearer { realm, service, .. }) => {
                let url = auth::check_realm(&realm, &self.endpoint.url).map_err(Failure::Fatal)?;
                let share = auth::may_share(&self.endpoint.url, &url);
                let login = matches!(self.access, Access::Login);
                if login && !share {
                    let words = format!(
                        "registry {} has credentials checked at {}, which isn't under its own domain: refused",
                        self.host(),
                        host_of(&url)
                    );
                    return Err(Failure::Fatal(Error::new(Kind::PermissionDenied, words)));
                }
                let credentials = self.credentials.as_ref().filter(|_| share);
                let scopes = self.access.scopes(&self.repository);
                let wanted = Wanted { service: service.as_deref(), scopes, offline: login };
                let home = same_origin(&url, &self.endpoint.url);
                let client = if home { &self.clients.own } else { &self.clients.others };
                let token = token::fetch(client, url, &wanted, credentials).await?;
                *self.refresh.lock().unwrap_or_else(PoisonError::into_inner) = token.refresh;
                token.authorization
            }
            None => return Err(refused_with(response).await),
        };
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        Ok(())
    }
}

async fn refused_with(response: Response) -> Failure {
    match check(response).await {
        Err(failure) => failure,
        Ok(_) => Failure::Fatal(Error::new(Kind::Internal, "a refusal that is none")),
    }
}

pub(super) fn same_origin(a: &Url, b: &Url) -> bool {
    a.origin() == b.origin()
}

/// Where an answer's `Location` leads. Never from TLS to plain HTTP.
pub(super) fn redirect(from: &Url, response: &Response) -> Result<Url> {
    let bad =
        |why: &str| Error::new(Kind::Unavailable, format!("registry {} redirects {why}", host_of(from)));
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let to = from.join(location.ok_or_else(|| bad("to nowhere"))?).map_err(|_| bad("to no URL"))?;
    match (from.scheme(), to.scheme()) {
        (_, "https") | ("http", "http") => Ok(to),
        _ => Err(bad("away from https")),
    }
}

/// Success, or the registry's error, its body read in bounds.
async fn check(response: Response) -> Result<Response, Failure> {
    let status = response.status();
    let limit = rate_limit(&response);
    if let Some(limit) = &limit {
        tracing::debug!(registry = host_of(response.url()), limit, "the registry counts requests");
    }
    if status.is_success() {
        return Ok(response);
    }
    let after = retry_after(&response);
    let body = read_limited(response, MAX_ERROR_BODY).await.unwrap_or_default();
    let (code, mut message) = registry_error(&body);
    if let Some(limit) = limit.filter(|_| status == StatusCode::TOO_MANY_REQUESTS) {
        message = if message.is_empty() { limit } else { format!("{message} ({limit})") };
    }
    Err(Failure::Status { status, code, message, after })
}

/// How often the registry may be asked, and how often still: Docker Hub's
/// headers, `100;w=21600`.
fn rate_limit(response: &Response) -> Option<String> {
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    describe_limit(header("ratelimit-limit"), header("ratelimit-remaining"))
}

fn describe_limit(limit: Option<&str>, remaining: Option<&str>) -> Option<String> {
    let count = |text: &str| text.split(';').next().and_then(|count| count.trim().parse::<u64>().ok());
    let window = |text: &str| {
        let seconds = text.split(';').find_map(|part| part.trim().strip_prefix("w="))?;
        seconds.parse::<u64>().ok()
    };
    let remaining = remaining.and_then(count).map(|n| format!("{n} requests left"));
    let limit = limit.and_then(|text| {
        let count = count(text)?;
        Some(match window(text) {
            Some(seconds) => format!("{count} in {seconds} seconds allowed"),
            None => format!("{count} allowed"),
        })
    });
    match (remaining, limit) {
        (Some(remaining), Some(limit)) => Some(format!("{remaining}, {limit}")),
        (remaining, limit) => remaining.or(limit),
    }
}

/// How long a registry wants to be left alone.
pub(super) fn retry_after(response: &Response) -> Option<Duration> {
    response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(parse_pause)
}

/// Seconds, or a date.
fn parse_pause(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text.trim()).ok()?;
    Some(SystemTime::from(date.timestamp()).duration_since(SystemTime::now()).unwrap_or_default())
}

/// `{"errors": [{"code": …, "message": …}]}`, bounded and printable.
fn registry_error(body: &[u8]) -> (String, String) {
    let document: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let field = |name: &str| {
        let text = document["errors"][0][name].as_str().unwrap_or_default();
        text.chars().filter(|c| !c.is_control()).take(300).collect::<String>()
    };
    (field("code"), field("message"))
}

/// A body of at most `limit` bytes.
pub(super) async fn read_limited(mut response: Response, limit: usize) -> Result<Vec<u8>, Failure> {
    let host = host_of(response.url());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| unreachable(&host, &e))? {
        if body.len() + chunk.len() > limit {
            let words = format!("registry {host} answers with more than {limit} bytes");
            return Err(Failure::Fatal(Error::new(Kind::DataLoss, words)));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// What went wrong on the way to `host`, in the words of the system and
/// without the library's.
pub(super) fn unreachable(host: &str, e: &reqwest::Error) -> Failure {
    let mut cause = e.source();
    // The error's own text has the URL, which may have a signature in it.
    let mut last = "the connection broke".to_owned();
    let mut refused = false;
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            refused |= io.kind() == io::ErrorKind::ConnectionRefused;
        }
        last = inner.to_string();
        cause = inner.source();
    }
    let why = if refused {
        "connection refused".to_owned()
    } else if e.is_timeout() {
        "it doesn't answer in time".to_owned()
    } else {
        last
    };
    // Names that don't resolve don't on the next try either.
    let refused = refused || (e.is_connect() && !e.is_timeout());
    let error = Error::new(Kind::Unavailable, format!("failed to reach registry {host}: {why}"));
    Failure::Unreachable { error, refused }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_bounded() {
        assert_eq!(parse_pause("7"), Some(Duration::from_secs(7)));
        assert_eq!(parse_pause("Thu, 01 Jan 1970 00:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(parse_pause("soon"), None);
        let busy = |after| Failure::Status {
            status: StatusCode::TOO_MANY_REQUESTS,
            code: String::new(),
            message: String::new(),
            after,
        };
        assert_eq!(busy(Some(Duration::from_secs(1_000_000_000))).pause(1, false, true), Some(MAX_PAUSE));
        assert!(
            busy(None)
                .pause(1, false, true)
                .is_some_and(|pause| pause >= FIRST_PAUSE && pause <= FIRST_PAUSE * 8)
        );
        assert_eq!(busy(None).pause(MAX_TRIES, false, true), None);
    }

    #[test]
    fn a_limit_is_told_in_words() {
        for (limit, remaining, words) in [
            (Some("100;w=21600"), Some("0;w=21600"), Some("0 requests left, 100 in 21600 seconds allowed")),
            (Some("100"), None, Some("100 allowed")),
            (None, Some("7"), Some("7 requests left")),
            (Some("many;w=x"), Some("-1"), None),
            (None, None, None),
        ] {
            assert_eq!(describe_limit(limit, remaining).as_deref(), words, "{limit:?} {remaining:?}");
        }
    }

    #[test]
    fn errors_are_read_whatever_they_are() {
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest\u0007 unknown"}]}"#;
        assert_eq!(registry_error(body), ("MANIFEST_UNKNOWN".into(), "manifest unknown".into()));
        for body in [&b""[..], b"<html>", b"[]", b"{\"errors\":{}}"] {
            assert_eq!(registry_error(body), (String::new(), String::new()));
        }
    }
}

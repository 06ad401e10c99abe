// SPDX-License-Identifier: Apache-2.0
//! Credential helpers: `docker-credential-NAME get|store|erase`, which take
//! the question on stdin and answer in JSON.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use berth::api::v1::RegistryAuth;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The user name that says: the secret is an identity token.
const TOKEN: &str = "<token>";
/// How every helper says that it has nothing.
const NOT_FOUND: &str = "credentials not found";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Credentials {
    #[serde(rename = "ServerURL", default)]
    server_url: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

pub(super) fn get(name: &str, server: &str) -> Result<Option<RegistryAuth>> {
    let answer = match run(name, "get", server) {
        Ok(answer) => answer,
        Err(error) if error.to_string().contains(NOT_FOUND) => return Ok(None),
        Err(error) => return Err(error),
    };
    let found: Credentials = serde_json::from_str(&answer)
        .map_err(|e| Error::new(format!("docker-credential-{name} answers with no credentials: {e}")))?;
    Ok(Some(if found.username == TOKEN {
        RegistryAuth { identity_token: found.secret, ..RegistryAuth::default() }
    } else {
        RegistryAuth { username: found.username, password: found.secret, ..RegistryAuth::default() }
    }))
}

pub(super) fn store(name: &str, server: &str, auth: &RegistryAuth) -> Result<()> {
    let token = !auth.identity_token.is_empty();
    let credentials = Credentials {
        server_url: server.to_owned(),
        username: if token { TOKEN } else { &auth.username }.to_owned(),
        secret: if token { &auth.identity_token } else { &auth.password }.clone(),
    };
    let text = serde_json::to_string(&credentials).map_err(|e| Error::new(e.to_string()))?;
    run(name, "store", &text).map(drop)
}

pub(super) fn erase(name: &str, server: &str) -> Result<()> {
    match run(name, "erase", server) {
        Err(error) if error.to_string().contains(NOT_FOUND) => Ok(()),
        result => result.map(drop),
    }
}

/// Asks a helper; an error quotes what it says, never what it was asked.
fn run(name: &str, verb: &str, question: &str) -> Result<String> {
    let program = format!("docker-credential-{name}");
    if name.contains('/') {
        return Err(Error::new(format!("{program}: not the name of a credential helper")));
    }
    let failed = |e: &std::io::Error| Error::io(format_args!("run {program}"), e);
    let mut child = Command::new(&program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| failed(&e))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends without reading says why itself.
        let _ = stdin.write_all(question.as_bytes());
    }
    let output = child.wait_with_output().map_err(|e| failed(&e))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let said = [text(&output.stdout), text(&output.stderr)].join(" ");
    Err(Error::new(format!("{program} {verb}: {}", said.trim())))
}

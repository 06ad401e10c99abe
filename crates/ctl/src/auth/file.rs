// SPDX-License-Identifier: Apache-2.0
//! Docker's `config.json`, of which only what is about credentials is read and
//! changed; the rest stays as it is.

use std::{
    env, fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use berth::api::v1::RegistryAuth;
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// Largest configuration that is read.
const MAX_FILE: u64 = 4 << 20;

/// The file, read.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    content: Map<String, Value>,
}

impl File {
    /// The file, if there is one.
    pub(super) fn open() -> Result<Option<Self>> {
        let Some(path) = path() else { return Ok(None) };
        match fs::metadata(&path) {
            Ok(found) if found.len() > MAX_FILE => {
                Err(Error::new(format!("{}: larger than {MAX_FILE} bytes", path.display())))
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            _ => Self::read(path).map(Some),
        }
    }

    /// The file, or what is to become it.
    pub(super) fn open_or_new() -> Result<Self> {
        if let Some(file) = Self::open()? {
            return Ok(file);
        }
        let path = path().ok_or_else(|| {
            Error::new("no place for credentials: neither DOCKER_CONFIG nor HOME is set in the environment")
        })?;
        Ok(Self { path, content: Map::new() })
    }

    fn read(path: PathBuf) -> Result<Self> {
        let text = fs::read(&path).map_err(|e| Error::io(format_args!("read {}", path.display()), &e))?;
        let content = serde_json::from_slice(&text)
            .map_err(|e| Error::new(format!("{}: not a configuration of Docker's: {e}", path.display())))?;
        Ok(Self { path, content })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The helper in charge of a registry.
    pub(super) fn helper(&self, key: &str) -> Option<String> {
        let own = self.content.get("credHelpers").and_then(|helpers| helpers.get(key));
        let name = own.or(self.content.get("credsStore"))?.as_str()?;
        (!name.is_empty()).then(|| name.to_owned())
    }

    /// What the file says of a registry.
    pub(super) fn find(&self, key: &str) -> Result<Option<RegistryAuth>> {
        let Some(entry) = self.key(key).and_then(|key| self.content.get("auths")?.get(&key)) else {
            return Ok(None);
        };
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut auth = RegistryAuth {
            username: text("username"),
            password: text("password"),
            identity_token: text("identitytoken"),
        };
        let encoded = text("auth");
        if !encoded.is_empty() {
            let pair = STANDARD.decode(encoded.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let pair = pair.as_deref().and_then(|pair| pair.split_once(':'));
            let (user, password) = pair.ok_or_else(|| {
                Error::new(format!("{}: the auth of {key} can't be decoded", self.path.display()))
            })?;
            auth.username = user.to_owned();
            // Old files pad it with NUL.
            auth.password = password.trim_end_matches('\0').to_owned();
        }
        Ok((!auth.username.is_empty() || !auth.identity_token.is_empty()).then_some(auth))
    }

    /// The name under which a registry is in the file: some wrote URLs.
    fn key(&self, key: &str) -> Option<String> {
        let auths = self.content.get("auths")?.as_object()?;
        if auths.contains_key(key) {
            return Some(key.to_owned());
        }
        auths.keys().find(|other| super::Server::of(other).key == key).cloned()
    }

    pub(super) fn set(&mut self, key: &str, auth: &RegistryAuth) {
        let pair = format!("{}:{}", auth.username, auth.password);
        let mut entry = json!({ "auth": STANDARD.encode(pair) });
        if !auth.identity_token.is_empty() {
            entry["auth"] = STANDARD.encode(format!("{}:", auth.username)).into();
            entry["identitytoken"] = auth.identity_token.clone().into();
        }
        let key = self.key(key).unwrap_or_else(|| key.to_owned());
        let auths = self.content.entry("auths").or_insert_with(|| json!({}));
        if !auths.is_object() {
            *auths = json!({});
        }
        auths[key] = entry;
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, key: &str) -> bool {
        let Some(key) = self.key(key) else { return false };
        let auths = self.content.get_mut("auths").and_then(Value::as_object_mut);
        auths.is_some_and(|auths| auths.remove(&key).is_some())
    }

    /// Whole or not at all, for the user's eyes only. Through a link, as
    /// people keep their configuration elsewhere.
    pub(super) fn write(&self) -> Result<()> {
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let failed = |e: &io::Error| Error::io(format_args!("write {}", path.display()), e);
        let text = serde_json::to_string_pretty(&self.content).map_err(|e| Error::new(e.to_string()))?;
        if let Some(directory) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|e| failed(&e))?;
        }
        let partial = path.with_extension(format!("json.{}", std::process::id()));
        let written = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&partial)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&partial, &path));
        written.map_err(|e| {
            // Best effort: the error is the one to tell.
            let _ = fs::remove_file(&partial);
            failed(&e)
        })
    }
}

fn path() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let directory = set("DOCKER_CONFIG").or_else(|| set("HOME").map(|home| home.join(".docker")))?;
    Some(directory.join("config.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: Value) -> File {
        let Value::Object(content) = content else { panic!("an object") };
        File { path: "/config.json".into(), content }
    }

    fn auth(username: &str, password: &str, identity_token: &str) -> RegistryAuth {
        RegistryAuth {
            username: username.into(),
            password: password.into(),
            identity_token: identity_token.into(),
        }
    }

    #[test]
    fn what_docker_wrote_is_understood() {
        let file = file(json!({"auths": {
            "r.example": {"auth": "dTpwOnE="},
            "https://old.example/v1/": {"auth": "dTpwAAA="},
            "t.example": {"auth": "dTo=", "identitytoken": "tok"},
            "empty.example": {}, "bad.example": {"auth": "%"},
        }}));
        assert_eq!(file.find("r.example").expect("find"), Some(auth("u", "p:q", "")));
        assert_eq!(file.find("old.example").expect("find"), Some(auth("u", "p", "")));
        assert_eq!(file.find("t.example").expect("find"), Some(auth("u", "", "tok")));
        assert_eq!(file.find("empty.example").expect("find"), None);
        assert_eq!(file.find("none.example").expect("find"), None);
        assert!(file.find("bad.example").is_err());
    }

    #[test]
    fn the_rest_of_the_file_stays() {
        let mut file = file(json!({"psFormat": "x", "auths": {"a": {"auth": "dTpw"}}}));
        file.set("b", &auth("u", "p", ""));
        assert_eq!(file.find("b").expect("find"), Some(auth("u", "p", "")));
        assert!(file.remove("a") && !file.remove("a"));
        assert_eq!(file.content["psFormat"], "x");
    }

    #[test]
    fn helpers_are_per_registry_or_for_all() {
        let file = file(json!({"credsStore": "all", "credHelpers": {"r.example": "one", "f.example": ""}}));
        assert_eq!(file.helper("r.example").as_deref(), Some("one"));
        assert_eq!(file.helper("other.example").as_deref(), Some("all"));
        assert_eq!(file.helper("f.example"), None);
    }
}

// SPDX-License-Identifier: Apache-2.0
//! A real registry, Debian's docker-registry, with a directory of its own.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::{Image, Pki, http, until};

/// A registry on 127.0.0.1; stopped when dropped.
#[derive(Debug)]
pub(crate) struct Registry {
    child: Child,
    address: SocketAddr,
    _dir: TempDir,
}

impl Registry {
    /// Starts one on a free port and waits until it answers.
    pub(crate) fn start() -> Self {
        // Another process may take the port between our look and its bind:
        // then the registry ends, and we look again.
        (0..5).find_map(|_| Self::try_start("", "")).expect("a docker-registry (run scripts/test-deps.sh)")
    }

    /// One that lets in nobody but `me`, whose password is `secret`.
    pub(crate) fn start_private() -> Self {
        let users = "me:$2b$04$W65bNH1YCaJygzV.ezngtubr9JuILqDh8gilo5lZdQqefy8ABEjWu\n";
        let started = (0..5).find_map(|_| Self::try_start(users, ""));
        started.expect("a docker-registry (run scripts/test-deps.sh)")
    }

    /// One that speaks TLS, to those who have a certificate.
    pub(crate) fn start_tls(pki: &Pki) -> Self {
        let path = |name: &str| pki.path(name).display().to_string();
        let tls = format!(
            "  tls:\n    certificate: {}\n    key: {}\n    clientcas: [{}]\n",
            path("server.pem"),
            path("server.key"),
            path("ca.pem")
        );
        let started = (0..5).find_map(|_| Self::try_start("", &tls));
        started.expect("a docker-registry (run scripts/test-deps.sh)")
    }

    /// `users` in the format of htpasswd(1); empty lets everybody in.
    /// `tls` is a part of its configuration.
    fn try_start(users: &str, tls: &str) -> Option<Self> {
        let dir = tempfile::tempdir().expect("tempdir");
        let file = dir.path().join("htpasswd");
        fs::write(&file, users).expect("write htpasswd");
        let mut auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display());
        if users.is_empty() {
            auth.clear();
        }
        let address = free_address();
        let config = dir.path().join("config.yml");
        fs::write(
            &config,
            format!(
                "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: {address}\n{tls}{auth}",
                dir.path().join("data").display()
            ),
        )
        .expect("write config.yml");
        let log = File::create(dir.path().join("log")).expect("log");
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("dup"))
            .stderr(log)
            .spawn()
            .ok()?;
        let up = until("the registry to answer or to end", || {
            if child.try_wait().expect("wait").is_some() {
                return Some(false);
            }
            let answer = http::request(address, "GET", "/v2/", "text/plain", b"").ok()?;
            // 400: it wants TLS.
            matches!(answer.status, 200 | 400 | 401).then_some(true)
        });
        up.then_some(Self { child, address, _dir: dir })
    }

    /// Where it listens, `127.0.0.1:port`.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Uploads `image` as `repository:tag`; what the tag stands for then.
    pub(crate) fn push(&self, image: &Image, repository: &str, tag: &str) -> String {
        for (digest, bytes) in image.blobs() {
            self.upload(repository, digest, bytes);
        }
        for (digest, media_type, bytes) in image.manifests() {
            self.put_manifest(repository, &digest, media_type, bytes);
        }
        let (media_type, bytes) = image.top();
        self.put_manifest(repository, tag, media_type, bytes);
        image.digest()
    }

    fn upload(&self, repository: &str, digest: &str, bytes: &[u8]) {
        let path = format!("/v2/{repository}/blobs/uploads/");
        let begun =
            http::request(self.address, "POST", &path, "application/octet-stream", b"").expect("POST");
        assert_eq!(begun.status, 202, "{}", String::from_utf8_lossy(&begun.body));
        let location = &begun.headers["location"];
        let path = location.split_once("/v2/").map(|(_, rest)| format!("/v2/{rest}")).expect("a location");
        let done = http::request(
            self.address,
            "PUT",
            &format!("{path}&digest={digest}"),
            "application/octet-stream",
            bytes,
        )
        .expect("PUT");
        assert_eq!(done.status, 201, "{}", String::from_utf8_lossy(&done.body));
    }

    fn put_manifest(&self, repository: &str, reference: &str, media_type: &str, bytes: &[u8]) {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let done = http::request(self.address, "PUT", &path, media_type, bytes).expect("PUT");
        assert_eq!(done.status, 201, "{}", String::from_utf8_lossy(&done.body));
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address on which nobody listens.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port")
}

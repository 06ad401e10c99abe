// SPDX-License-Identifier: Apache-2.0
//! Certificates, by openssl(1): two authorities, a server's and two clients'.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use tempfile::TempDir;

/// Files: `ca`, `other-ca`, `server`, `client`, `other-client`, each `.pem` and
/// `.key`.
#[derive(Debug)]
pub(crate) struct Pki {
    dir: TempDir,
}

impl Pki {
    /// `None`, with the reason on standard error, without openssl.
    pub(crate) fn make() -> Option<Self> {
        if Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_err() {
            eprintln!("skipped: no openssl to make certificates with");
            return None;
        }
        let pki = Self { dir: tempfile::tempdir().expect("tempdir") };
        for authority in ["ca", "other-ca"] {
            pki.openssl(&format!(
                "req -x509 {KEY} -days 2 -subj /CN={authority} -keyout {authority}.key -out {authority}.pem"
            ));
        }
        for (name, extension, authority) in [
            ("server", "subjectAltName=IP:127.0.0.1", "ca"),
            ("client", "extendedKeyUsage=clientAuth", "ca"),
            ("other-client", "extendedKeyUsage=clientAuth", "other-ca"),
        ] {
            fs::write(pki.path("extension"), extension).expect("write");
            pki.openssl(&format!("req {KEY} -subj /CN=berth -keyout {name}.key -out {name}.csr"));
            pki.openssl(&format!(
                "x509 -req -days 2 -CAcreateserial -extfile extension -in {name}.csr -CA {authority}.pem -CAkey {authority}.key -out {name}.pem"
            ));
        }
        Some(pki)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(self.dir.path())
            .output()
            .expect("openssl");
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";

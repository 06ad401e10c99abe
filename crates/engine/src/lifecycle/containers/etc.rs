// SPDX-License-Identifier: Apache-2.0
//! A container's own /etc/hostname, /etc/hosts and /etc/resolv.conf: what is
//! in them. Every value was checked to be one word of one line (O03).

use std::{fmt::Write as _, fs, io, io::Read as _, os::unix::fs::OpenOptionsExt as _, path::Path};

use crate::{
    domain::{
        container::{Document, HostConfig, NetworkMode},
        spec::EtcFiles,
        validate,
    },
    error::{Context as _, Result},
};

/// Most bytes of a file of the host that is copied.
const MAX_FILE: u64 = 64 << 10;

/// Writes the three files. Blocks.
///
/// # Errors
/// Those of the host.
pub(super) fn write(files: &EtcFiles, document: &Document) -> Result<()> {
    let host = &document.config.host;
    put(&files.hostname, &format!("{}\n", document.effective.hostname))?;
    let base = match host.network {
        NetworkMode::Host => host_file("/etc/hosts")?,
        NetworkMode::None | NetworkMode::Container(_) => String::new(),
    };
    put(&files.hosts, &hosts(&base, &host.extra_hosts)?)?;
    put(&files.resolv_conf, &resolv_conf(&host_file("/etc/resolv.conf")?, host))
}

/// The file is the container's to change, so it is written anew in place:
/// what it did to it last time is gone.
fn put(path: &Path, text: &str) -> Result<()> {
    let mut options = fs::OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o644).custom_flags(libc::O_NOFOLLOW);
    options
        .open(path)
        .and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()))
        .with_context(|| format!("write {}", path.display()))
}

fn host_file(path: &str) -> Result<String> {
    let mut bytes = Vec::new();
    match fs::File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).with_context(|| format!("read {path}")),
        _ => Ok(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

fn hosts(base: &str, extra: &[String]) -> Result<String> {
    let mut text = base.to_owned();
    if text.is_empty() {
        text.push_str(
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
        );
    } else if !text.ends_with('\n') {
        text.push('\n');
    }
    for line in extra {
        let (name, address) = validate::extra_host(line)?;
        // Writing to a String can't fail.
        let _ = writeln!(text, "{address}\t{name}");
    }
    Ok(text)
}

/// The user's values, each in place of the host's.
fn resolv_conf(base: &str, host: &HostConfig) -> String {
    let mut text = String::new();
    let replaced = [
        ("nameserver", !host.dns.is_empty()),
        ("search", !host.dns_search.is_empty()),
        ("options", !host.dns_options.is_empty()),
    ];
    for line in base.lines() {
        let word = line.split_ascii_whitespace().next().unwrap_or_default();
        if !replaced.iter().any(|(name, by_user)| *by_user && *name == word) {
            text.push_str(line);
            text.push('\n');
        }
    }
    for server in &host.dns {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !host.dns_search.is_empty() && host.dns_search != ["."] {
        let _ = writeln!(text, "search {}", host.dns_search.join(" "));
    }
    if !host.dns_options.is_empty() {
        let _ = writeln!(text, "options {}", host.dns_options.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_values_replace_the_hosts() {
        let base = "# host\nnameserver 1.1.1.1\nsearch a.b\noptions ndots:1\n";
        assert_eq!(resolv_conf(base, &HostConfig::default()), base);
        let host = HostConfig {
            dns: vec!["9.9.9.9".to_owned()],
            dns_search: vec![".".to_owned()],
            ..HostConfig::default()
        };
        assert_eq!(resolv_conf(base, &host), "# host\noptions ndots:1\nnameserver 9.9.9.9\n");
    }

    #[test]
    fn extra_hosts_come_last_and_localhost_is_always_there() {
        let text = hosts("", &["db:10.0.0.5".to_owned(), "six:[::5]".to_owned()]).expect("hosts");
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"));
        assert!(text.ends_with("10.0.0.5\tdb\n::5\tsix\n"), "{text}");
        assert_eq!(hosts("1.2.3.4 h", &[]).expect("hosts"), "1.2.3.4 h\n");
    }

    #[test]
    fn what_the_container_wrote_is_gone_with_the_next_start() {
        let dir = tempfile::tempdir().expect("tempdir");
        let files = EtcFiles::within(dir.path());
        let mut document = Document::default();
        document.effective.hostname = "name".to_owned();
        write(&files, &document).expect("write");
        fs::write(&files.hostname, "much longer than before\n").expect("tamper");
        write(&files, &document).expect("write");
        assert_eq!(fs::read_to_string(&files.hostname).expect("read"), "name\n");
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Pulls: interrupted and taken up again, from registries with certificates,
//! proxies and logins.

use std::{fs, os::unix::fs::PermissionsExt as _};

use crate::support::{Engine, FakeRegistry, Image, Pki, Registry, command, until};

#[test]
fn after_a_crash_in_any_phase_of_a_pull_only_what_is_missing_is_fetched() {
    let image = Image::noisy();
    let registry = FakeRegistry::serving(&image, "library/noisy", "latest");
    let mut layers = image.blobs().filter(|(_, bytes)| bytes.len() > 100_000);
    let (first, bytes) = layers.next().expect("a layer");
    let (second, _) = layers.next().expect("another");
    let whole: u64 = image.blobs().map(|(_, bytes)| bytes.len() as u64).sum();
    let size = bytes.len();
    for (path, held) in [
        ("/manifests/latest", 0),
        (image.config_digest(), 0),
        (first.as_str(), 0),
        (first.as_str(), size / 2),
        (first.as_str(), size - 1),
        (second.as_str(), size / 10),
    ] {
        let Some(mut engine) = Engine::start_mirrored(registry.address()) else { return };
        registry.take_sent();
        registry.hold(path, held);
        let mut pull = engine.background(&["pull", "noisy"]);
        // Whatever can come has come, and is in the store.
        until("the pull to hang", || {
            let sent = registry.asked_for(path).then(|| registry.sent())?;
            (sent >= expected(path, &image, held) && engine.stored_bytes() + 10_000 >= sent).then_some(())
        });
        engine.kill9();
        pull.wait();
        registry.free();
        let (kept, sent) = (engine.stored_bytes(), registry.take_sent());
        engine.restart();
        assert!(engine.stored_bytes() >= kept, "{path} {held}: the start keeps what was there");
        engine.berth(&["pull", "noisy"]).ok();
        let again = registry.take_sent();
        // The configuration is fetched with every attempt.
        let documents = image.blobs().find(|(digest, _)| *digest == image.config_digest());
        let missing = whole.saturating_sub(kept) + documents.map_or(0, |(_, bytes)| bytes.len() as u64);
        assert!(
            again <= missing + missing / 100,
            "{path} {held}: {again} bytes, {missing} were missing of {whole}, {sent} were sent before"
        );
        engine.fsck(&[]).ok();
    }
}

/// Bytes of blobs that come while `path` is held after `held`.
fn expected(path: &str, image: &Image, held: usize) -> u64 {
    let config = image.config_digest();
    if path.ends_with("latest") || path == config {
        return 0;
    }
    let others = image.blobs().filter(|(digest, _)| *digest != path);
    others.map(|(_, bytes)| bytes.len() as u64).sum::<u64>() + held as u64
}

#[test]
fn a_registry_with_certificates_of_its_own_is_spoken_to_as_hosts_toml_says() {
    let Some(pki) = Pki::make() else { return };
    let registry = Registry::start_tls(&pki);
    let name = format!("127.0.0.1_{}_", registry.address().port());
    let config = format!("[registry]\nconfig_dirs = [{:?}]\n", pki.path("certs.d"));
    let Some(engine) = Engine::start_with(&config) else { return };
    engine.load(&Image::noisy(), "here");
    let image = format!("{}/team/app:1", registry.address());
    engine.berth(&["tag", "here", &image]).ok();
    let place = pki.path("certs.d").join(name);
    fs::create_dir_all(&place).expect("mkdir");
    // Read at each use: the engine isn't told.
    let host = format!("[host.\"https://{}\"]\n", registry.address());
    for (hosts, words) in [
        (host.clone(), "certificate"),
        (format!("{host}ca = \"../../ca.pem\"\n"), "failed to reach registry"),
        (
            format!(
                "{host}ca = \"../../other-ca.pem\"\nclient = [[\"../../client.pem\", \"../../client.key\"]]\n"
            ),
            "certificate",
        ),
        (format!("{host}ca = \"../../none.pem\"\n"), "none.pem"),
        (
            format!(
                "{host}ca = \"../../ca.pem\"\nclient = [[\"../../other-client.pem\", \"../../other-client.key\"]]\n"
            ),
            "failed to reach registry",
        ),
    ] {
        fs::write(place.join("hosts.toml"), hosts).expect("write");
        let said = engine.berth(&["push", &image]);
        assert!(said.code != 0 && said.stderr.contains(words), "{said:?}");
    }
    let good =
        format!("{host}ca = \"../../ca.pem\"\nclient = [[\"../../client.pem\", \"../../client.key\"]]\n");
    fs::write(place.join("hosts.toml"), good).expect("write");
    let pushed = engine.berth(&["push", &image]).ok().stdout;
    // Of several the registry is shown the one that it says it takes.
    let several = "client = [[\"../../other-client.pem\", \"../../other-client.key\"], [\"../../client.pem\", \"../../client.key\"]]";
    for trust in ["ca = \"../../ca.pem\"", "skip_verify = true"] {
        fs::write(place.join("hosts.toml"), format!("{host}{trust}\n{several}\n")).expect("write");
        engine.berth(&["pull", "-q", &image]).ok();
    }
    fs::write(place.join("hosts.toml"), format!("{host}ca = \"../../other-ca.pem\"\n{several}\n"))
        .expect("write");
    let said = engine.berth(&["pull", "-q", &image]);
    assert!(said.code != 0 && said.stderr.contains("certificate"), "{said:?}");
    engine.berth(&["rmi", &image, "here"]).ok();
    // Docker's way to say the same.
    fs::remove_file(place.join("hosts.toml")).expect("remove");
    for (from, to) in [("ca.pem", "ca.crt"), ("client.pem", "own.cert"), ("client.key", "own.key")] {
        fs::copy(pki.path(from), place.join(to)).expect("copy");
    }
    let pulled = engine.berth(&["pull", &image]).ok().stdout;
    let digest = pulled.lines().find_map(|line| line.strip_prefix("Digest: ")).expect("a digest");
    assert!(pushed.contains(digest), "{pushed} {pulled}");
}

#[test]
fn registries_are_reached_through_the_proxies_of_the_environment() {
    let image = Image::noisy();
    let proxy = FakeRegistry::serving(&image, "team/noisy", "latest");
    let config = "[registry.hosts.\"r.example\"]\nplain_http = true\n\
                  [registry.hosts.\"direct.example\"]\nplain_http = true\n";
    let Some(mut engine) = Engine::prepare(config) else { return };
    engine.set("HTTP_PROXY", &format!("http://{}", proxy.address()));
    engine.set("NO_PROXY", "direct.example,10.0.0.0/8");
    engine.restart();
    engine.berth(&["pull", "r.example/team/noisy"]).ok();
    assert!(proxy.take_sent() > 0);
    let direct = engine.berth(&["pull", "direct.example/team/noisy"]);
    assert!(direct.stderr.contains("failed to reach registry direct.example"), "{direct:?}");
    // This machine never is behind one.
    let own = engine.berth(&["pull", "127.0.0.1:1/team/noisy"]);
    assert!(own.stderr.contains("127.0.0.1:1: connection refused"), "{own:?}");
    assert_eq!(proxy.take_sent(), 0);
}

#[test]
fn no_password_is_in_the_log_however_much_is_logged() {
    let Some(engine) = Engine::start_with("[log]\nlevel = \"trace\"\n") else { return };
    // What HTTP/2 calls a good end.
    engine.expect_error("NO_ERROR");
    let registry = Registry::start_private();
    let (host, image) = (registry.address().to_string(), format!("{}/team/app:1", registry.address()));
    engine.load(&Image::noisy(), "here");
    engine.berth(&["tag", "here", &image]).ok();
    engine.berth_with_input(&["login", "-u", "me", "--password-stdin", &host], b"secret").ok();
    engine.berth(&["push", &image]).ok();
    engine.berth(&["rmi", &image]).ok();
    engine.berth(&["pull", &image]).ok();
    engine.berth_with_input(&["login", "-u", "me", "--password-stdin", &host], b"secret2").exits(1);
    let log = engine.log();
    assert!(log.contains("TRACE"), "it is logged at all");
    for secret in ["secret", "bWU6c2VjcmV0"] {
        let line = log.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{line:?}");
    }
}

#[test]
fn credentials_are_kept_by_helpers_where_the_configuration_names_one() {
    let Some(engine) = Engine::start() else { return };
    let registry = Registry::start_private();
    let host = registry.address().to_string();
    let image = format!("{host}/team/app:1");
    engine.load(&Image::noisy(), "here");
    engine.berth(&["tag", "here", &image]).ok();
    let home = engine.dir().join("helped");
    fs::create_dir(&home).expect("mkdir");
    // As every helper: the question on stdin, one file per server.
    let script = r#"#!/bin/sh
cd "$HELPED" && echo "$(basename "$0") $1" >>calls
read -r question
case $1 in
store) server=${question#*\"ServerURL\":\"}; echo "$question" >"$(echo "${server%%\"*}" | tr -c 'A-Za-z0-9\n' _)";;
get) cat "$(echo "$question" | tr -c 'A-Za-z0-9\n' _)" 2>/dev/null || { echo "credentials not found in native keychain"; exit 1; };;
erase) rm -f "$(echo "$question" | tr -c 'A-Za-z0-9\n' _)";;
esac
"#;
    for helper in ["all", "one"] {
        let program = home.join(format!("docker-credential-{helper}"));
        fs::write(&program, script).expect("write");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    let berth = |args: &[&str], input: &[u8]| {
        let mut command = engine.berth_command(args);
        command.env("DOCKER_CONFIG", &home).env("HELPED", &home);
        command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", home.display()));
        command::run(command, input)
    };
    let calls = || {
        let text = fs::read_to_string(home.join("calls")).unwrap_or_default();
        fs::write(home.join("calls"), "").expect("write");
        text
    };
    for (config, helper) in [
        (r#"{"credsStore":"all"}"#.to_owned(), "docker-credential-all"),
        (format!(r#"{{"credsStore":"all","credHelpers":{{"{host}":"one"}}}}"#), "docker-credential-one"),
    ] {
        fs::write(home.join("config.json"), &config).expect("write");
        let refused = berth(&["push", &image], b"");
        assert!(refused.stderr.contains("denied access"), "{refused:?}");
        assert_eq!(calls(), format!("{helper} get\n"));
        let said = berth(&["login", "-u", "me", "--password-stdin", &host], b"secret").ok();
        assert_eq!(
            (said.line(), said.stderr.as_str()),
            ("Login Succeeded", ""),
            "a helper's store is no file"
        );
        assert_eq!(calls(), format!("{helper} store\n"));
        assert_eq!(
            fs::read_to_string(home.join("config.json")).expect("read"),
            config,
            "nothing is in the file"
        );
        berth(&["push", &image], b"").ok();
        assert_eq!(calls(), format!("{helper} get\n"));
        berth(&["logout", &host], b"").ok();
        assert!(calls().ends_with(&format!("{helper} erase\n")));
        assert!(berth(&["pull", &image], b"").stderr.contains("denied access"));
        calls();
    }
    fs::write(home.join("config.json"), r#"{"credsStore":"missing"}"#).expect("write");
    let missing = berth(&["pull", &image], b"");
    assert!(missing.code != 0 && missing.stderr.contains("docker-credential-missing"), "{missing:?}");
}

// SPDX-License-Identifier: Apache-2.0
//! The engine as a process: the real `berthd` in a temporary root.

#[path = "daemon/support.rs"]
mod support;

use std::{
    fs,
    os::unix::{fs::MetadataExt as _, net::UnixStream},
    time::{Duration, Instant},
};

use berth::{
    Client,
    api::v1::{
        InfoRequest, PingRequest, SubscribeRequest, SubscribeResponse, VersionRequest,
        system_client::SystemClient,
    },
};
use support::{Engine, run};
use tonic::{
    Code,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

/// What a stop may take at most, whatever clients do.
const STOP_LIMIT: Duration = Duration::from_secs(5);

async fn client(engine: &Engine) -> Client {
    Client::connect(&engine.address()).await.expect("connect")
}

async fn channel(engine: &Engine) -> Channel {
    Endpoint::from_shared(engine.address()).expect("address").connect().await.expect("connect")
}

async fn engine_id(engine: &Engine) -> String {
    let info = client(engine).await.system().info(InfoRequest::default()).await.expect("info").into_inner();
    info.id
}

#[tokio::test]
async fn it_answers_for_itself() {
    let engine = Engine::start("");
    let mut system = client(&engine).await.system();
    system.ping(PingRequest {}).await.expect("ping");

    let version = system.version(VersionRequest {}).await.expect("version").into_inner();
    assert_eq!((version.version.as_str(), version.api_version.as_str()), (env!("CARGO_PKG_VERSION"), "v1"));
    assert!(version.rust_version.starts_with("1."), "{}", version.rust_version);

    let info = system.info(InfoRequest::default()).await.expect("info").into_inner();
    assert_eq!(info.root_dir, engine.root().display().to_string());
    assert_eq!(info.state_dir, engine.state().display().to_string());
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("osrelease");
    assert_eq!(info.kernel_version, release.trim());
    assert!(["1", "2", "hybrid"].contains(&info.cgroup_version.as_str()), "{}", info.cgroup_version);

    let bad = InfoRequest { namespace: "a/b".into() };
    assert_eq!(system.info(bad).await.expect_err("refused").code(), Code::InvalidArgument);
}

#[tokio::test]
async fn health_and_reflection_know_every_service() {
    let engine = Engine::start("");
    let channel = channel(&engine).await;

    let list = MessageRequest::ListServices(String::new());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let mut answers = ServerReflectionClient::new(channel.clone())
        .server_reflection_info(tokio_stream::once(request))
        .await
        .expect("reflection")
        .into_inner();
    let answer = answers.message().await.expect("an answer").expect("an answer").message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
    let names: Vec<String> = list.service.into_iter().map(|s| s.name).collect();
    for name in ["berth.v1.System", "berth.v1.Events", "grpc.health.v1.Health"] {
        assert!(names.iter().any(|n| n == name), "{name} in {names:?}");
    }
    assert!(!names.iter().any(|n| n.contains("containerd.task")), "not served, not listed: {names:?}");

    let mut health = HealthClient::new(channel);
    for service in names.into_iter().filter(|n| n.starts_with("berth.")).chain([String::new()]) {
        let status = health.check(HealthCheckRequest { service }).await.expect("check").into_inner().status;
        assert_eq!(status, i32::from(ServingStatus::Serving));
    }
    let unknown = HealthCheckRequest { service: "berth.v1.Unknown".into() };
    assert_eq!(health.check(unknown).await.expect_err("unknown").code(), Code::NotFound);
}

#[tokio::test]
async fn the_socket_and_directories_are_closed_to_others() {
    let engine = Engine::start("");
    let mode = |path: &std::path::Path| fs::metadata(path).expect("metadata").mode() & 0o7777;
    assert_eq!(mode(&engine.socket()), 0o660);
    assert_eq!(mode(&engine.root()), 0o700);
    assert_eq!(mode(&engine.state()), 0o711);
    for entry in fs::read_dir(engine.state()).expect("list") {
        let path = entry.expect("entry").path();
        assert!(path == engine.socket() || mode(&path) & 0o077 == 0, "{}", path.display());
    }
}

#[tokio::test]
async fn a_second_engine_is_refused() {
    let first = Engine::start("");
    let pid = first.pid();
    let (code, _, stderr) = run(&first.arguments());
    assert_eq!(code, Some(1));
    let expected = format!(
        "berthd: another berthd (pid {pid}) is running on {}: stop it, or give this one its own --root and --state",
        first.root().display()
    );
    assert_eq!(stderr.lines().last(), Some(expected.as_str()));
    client(&first).await.system().ping(PingRequest {}).await.expect("the first goes on");
}

#[tokio::test]
async fn sigterm_ends_streams_and_exits_with_0() {
    let mut engine = Engine::start("");
    let mut stream = client(&engine)
        .await
        .events()
        .subscribe(SubscribeRequest::default())
        .await
        .expect("subscribe")
        .into_inner();
    let first: Option<SubscribeResponse> = stream.message().await.expect("first message");
    assert!(first.is_some());

    let started = Instant::now();
    engine.signal(nix::sys::signal::Signal::SIGTERM);
    let status = stream.message().await.expect_err("the stream ends");
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(engine.wait(), Some(0));
    assert!(started.elapsed() < STOP_LIMIT, "{:?}", started.elapsed());
    assert!(!engine.socket().exists());
    assert!(engine.told("STOPPING=1"));
}

#[tokio::test]
async fn a_client_that_says_nothing_holds_no_stop_up() {
    let mut engine = Engine::start("");
    let silent = UnixStream::connect(engine.socket()).expect("connect");
    let started = Instant::now();
    engine.signal(nix::sys::signal::Signal::SIGINT);
    assert_eq!(engine.wait(), Some(0));
    assert!(started.elapsed() < STOP_LIMIT, "{:?}", started.elapsed());
    drop(silent);
}

#[tokio::test]
async fn it_comes_back_after_kill_9_as_the_same_engine() {
    let mut engine = Engine::start("");
    let id = engine_id(&engine).await;
    engine.signal(nix::sys::signal::Signal::SIGKILL);
    assert_eq!(engine.wait(), None);
    assert!(engine.socket().exists(), "nobody was left to remove it");
    engine.restart();
    assert_eq!(engine_id(&engine).await, id);
}

#[tokio::test]
async fn sighup_changes_the_log_level_and_nothing_ends() {
    let mut engine = Engine::start("[log]\nlevel = \"error\"\nformat = \"json\"\n");
    engine.configure("[log]\nlevel = \"debug\"\nformat = \"json\"\n");
    engine.signal(nix::sys::signal::Signal::SIGHUP);
    engine.expect_log("took the log level");
    client(&engine).await.system().ping(PingRequest {}).await.expect("ping");
    let line = engine.expect_log("/berth.v1.System/Ping");
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!((line["level"].as_str(), line["code"].as_str()), (Some("DEBUG"), Some("Ok")));
}

#[test]
fn damaged_metadata_is_named_and_left_alone() {
    let mut engine = Engine::start("");
    engine.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(engine.wait(), Some(0));
    let file = engine.root().join("meta.db");
    let mut bytes = fs::read(&file).expect("read");
    assert!(bytes.len() > 4 * 4096, "a stopped engine leaves its metadata in one file");
    // Past the header and the first page, which holds the schema's root.
    for byte in bytes.iter_mut().skip(4096) {
        *byte = 0xa5;
    }
    fs::write(&file, &bytes).expect("damage");
    let (code, _, stderr) = run(&engine.arguments());
    assert_eq!(code, Some(1));
    let last = stderr.lines().last().unwrap_or_default();
    assert!(last.contains("is damaged; nothing was changed"), "{stderr}");
    assert_eq!(fs::read(&file).expect("read"), bytes);
}

#[test]
fn the_configuration_is_printed_and_checked() {
    let (code, text, _) = run(&["config", "default"]);
    assert_eq!((code, text.as_str()), (Some(0), berth_engine::config::DEFAULT_TEXT));

    let dir = tempfile::tempdir().expect("tempdir");
    let file = dir.path().join("config.toml");
    let path = file.to_str().expect("UTF-8");
    fs::write(&file, text).expect("write");
    assert_eq!(run(&["config", "check", path]), (Some(0), format!("{path}: ok\n"), String::new()));

    fs::write(&file, "[log]\nlevels = \"info\"\n").expect("write");
    let (code, _, stderr) = run(&["config", "check", path]);
    assert_eq!(code, Some(1));
    assert_eq!(stderr, format!("berthd: {path}:2: unknown field `levels`, expected `level` or `format`\n"));
    let (code, _, stderr) = run(&["--config", "/nowhere/config.toml"]);
    assert_eq!(code, Some(1));
    assert!(
        stderr.starts_with("berthd: read the configuration /nowhere/config.toml: No such file"),
        "{stderr}"
    );
}

#[tokio::test]
async fn tcp_wants_a_certificate_from_both() {
    let Some(pki) = support::Pki::make() else {
        eprintln!("skipped: no openssl to make certificates with");
        return;
    };
    let port = support::free_port();
    let engine = Engine::start(&pki.config(port));
    let address = format!("https://127.0.0.1:{port}");
    let trust = || {
        ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(pki.read("ca.pem")))
            .domain_name("localhost")
    };
    let ping = async |tls: ClientTlsConfig| {
        let endpoint = Endpoint::from_shared(address.clone()).expect("address").tls_config(tls).expect("TLS");
        let channel = endpoint.connect().await.map_err(|e| e.to_string())?;
        let answer = SystemClient::new(channel).ping(PingRequest {}).await;
        answer.map(|_| ()).map_err(|e| e.to_string())
    };
    let identity =
        |name: &str| Identity::from_pem(pki.read(&format!("{name}.pem")), pki.read(&format!("{name}.key")));

    ping(trust().identity(identity("client"))).await.expect("a client of ours");
    ping(trust()).await.expect_err("a client without a certificate");
    ping(trust().identity(identity("stranger"))).await.expect_err("a certificate of another authority");
    let plain = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).expect("address").connect().await;
    if let Ok(channel) = plain {
        SystemClient::new(channel).ping(PingRequest {}).await.expect_err("a client without TLS");
    }
    client(&engine).await.system().ping(PingRequest {}).await.expect("the unix socket is as it was");
}

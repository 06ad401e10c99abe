// SPDX-License-Identifier: Apache-2.0
//! What goes wrong is said in one clear line, with the right exit code, and
//! leaves nothing half done.

use std::{fs, process::Command};

use crate::support::{
    Engine, FakeRegistry, Image,
    command::{run, sh},
    engine::{self, with_busybox},
    image::{Builder, Layer, busybox_layer},
    leaks, peers,
    registry::free_address,
    until,
};

/// No container, no image, no blob, no snapshot.
fn assert_untouched(engine: &Engine) {
    assert_eq!(engine.berth(&["ps", "-aq"]).ok().line(), "");
    assert_eq!(engine.berth(&["images", "-aq"]).ok().line(), "");
    let root = engine.dir().join("root");
    let snapshots = fs::read_dir(root.join("snapshots")).into_iter().flatten().flatten();
    let numbered = snapshots.filter(|e| e.file_name().to_string_lossy().parse::<u64>().is_ok());
    assert_eq!(numbered.count(), 0, "snapshots");
}

#[test]
fn an_unknown_image() {
    let Some((engine, _registry)) = engine::with_registry() else { return };
    let said = engine.berth(&["run", "no-such-image"]).exits(125);
    let error = said.error().lines().last().expect("an error");
    assert!(error.contains("no-such-image") && error.contains("not found"), "{error}");
    engine.berth(&["pull", "no-such-image:v1"]).exits(1).complains(&["no-such-image:v1", "not found"]);
    engine.berth(&["create", "--pull", "never", "nothing"]).exits(125).complains(&["No such image: nothing"]);
    engine.berth(&["pull", "team/UPPER"]).exits(1).complains(&["invalid reference format"]);
    assert_untouched(&engine);
}

#[test]
fn a_registry_that_is_down() {
    let address = free_address();
    let Some(engine) = Engine::start_mirrored(address) else { return };
    let said =
        engine.berth(&["pull", &format!("{address}/team/app")]).exits(1).complains(&[&address.to_string()]);
    assert!(said.stderr.contains("refused"), "{}", said.stderr);
    assert_untouched(&engine);
}

#[test]
fn a_registry_that_wants_a_login() {
    let registry = FakeRegistry::wanting_login();
    let Some(engine) = Engine::start() else { return };
    let image = format!("{}/team/app", registry.address());
    let said = engine.berth(&["pull", &image]).exits(1);
    let error = said.error().to_lowercase();
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.contains("authorization") || error.contains("authentication required"), "{error}");
    assert_untouched(&engine);
}

#[test]
fn an_image_for_another_machine() {
    let Some((engine, registry)) = engine::with_registry() else { return };
    let image = Builder::new().layer(busybox_layer()).for_architecture("s390x").build();
    registry.push(&image, "library/foreign", "latest");
    engine.berth(&["pull", "foreign"]).exits(1).complains(&["linux/"]);
    assert_untouched(&engine);
}

#[test]
fn content_that_is_not_what_its_digest_says() {
    let image = Image::busybox();
    let registry = FakeRegistry::corrupting(&image, "team/app", "latest");
    let Some(engine) = Engine::start() else { return };
    let name = format!("{}/team/app", registry.address());
    engine.berth(&["pull", "-q", &name]).exits(1).complains(&["digest", &image.layers()[0]]);
    assert_untouched(&engine);
}

#[test]
fn an_archive_that_is_none_or_damaged() {
    let Some(engine) = Engine::start() else { return };
    let whole = Image::busybox().oci_archive("docker.io/library/busybox:latest");
    let mut changed = whole.clone();
    // In the middle of the layer, by far the biggest part.
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    let mut empty = Layer::new();
    empty.file("README", 0o644, b"nothing of use");
    let cases: [(&str, &[u8]); 4] = [
        ("text", b"this is no archive at all, and it is longer than a tar block would have to be for a look"),
        ("cut", &whole[..whole.len() / 2]),
        ("changed", &changed),
        ("another tar", &empty.finish()),
    ];
    for (what, archive) in cases {
        let said = engine.berth_with_input(&["load", "-q"], archive).exits(1);
        assert_eq!(said.error().lines().count(), 1, "{what}: {}", said.stderr);
        assert_untouched(&engine);
    }
    engine.berth(&["load", "-i", "/no/such/file"]).exits(1).complains(&["/no/such/file", "no such file"]);
    engine.berth_with_input(&["load", "-q"], &whole).ok();
    engine.berth(&["run", "--rm", "busybox", "true"]).ok();
}

#[test]
fn an_archive_that_climbs_out() {
    let Some(engine) = Engine::start() else { return };
    let target = engine.dir().join("outside");
    fs::create_dir(&target).expect("mkdir");
    let mut layer = Layer::new();
    layer.symlink("way", target.to_str().expect("UTF-8"));
    layer.file("way/planted", 0o644, b"x");
    let image = Builder::new().layer(busybox_layer()).layer(layer).build();
    // Refused or kept inside: either is fine, a file outside is not.
    let archive = image.oci_archive("docker.io/library/climber:latest");
    let said = engine.berth_with_input(&["load", "-q"], &archive);
    assert!([0, 1].contains(&said.code), "{said:?}");
    assert_eq!(fs::read_dir(&target).expect("list").count(), 0, "planted on the host");
}

#[test]
fn a_command_that_is_not_there_or_no_program() {
    let Some(engine) = with_busybox() else { return };
    engine
        .berth(&["run", "--rm", "busybox", "no-such"])
        .exits(127)
        .complains(&["exec: \"no-such\": executable file not found in $PATH"]);
    engine.berth(&["run", "--rm", "busybox", "/no/such"]).exits(127).complains(&["/no/such"]);
    engine
        .berth(&["run", "--rm", "busybox", "/etc/readable"])
        .exits(126)
        .complains(&["exec: \"/etc/readable\": permission denied"]);
    engine.berth(&["run", "--rm", "busybox", "/etc"]).exits(126).complains(&["/etc"]);
    assert_eq!(engine.berth(&["ps", "-aq"]).ok().line(), "", "--rm holds for them, too");

    engine.berth(&["run", "--name", "kept", "busybox", "no-such"]).exits(127);
    let state = &engine.inspect("kept")["State"];
    assert_eq!(state["ExitCode"], 127);
    assert!(state["Error"].as_str().is_some_and(|e| e.contains("no-such")), "{state}");
    until("its processes to be gone", || engine.processes().is_empty().then_some(()));
}

#[test]
fn a_name_in_use_or_malformed() {
    let Some(engine) = with_busybox() else { return };
    let id = engine.berth(&["create", "--name", "taken", "busybox"]).ok().line().to_owned();
    let said = engine.berth(&["run", "--name", "taken", "busybox", "true"]).exits(125);
    assert!(said.stderr.contains("name \"/taken\"") || said.stderr.contains("taken"), "{}", said.stderr);
    assert!(said.stderr.contains("already in use") && said.stderr.contains(&id[..12]), "{}", said.stderr);
    engine.berth(&["create", "--name", "../up", "busybox"]).exits(125).complains(&["../up"]);
    assert_eq!(engine.berth(&["ps", "-aq"]).ok().stdout.lines().count(), 1);
}

#[test]
fn a_prefix_that_two_ids_have() {
    let Some(engine) = with_busybox() else { return };
    // Seventeen ids can't all start with different digits.
    let ids: Vec<String> =
        (0..17).map(|_| engine.berth(&["create", "busybox"]).ok().line().to_owned()).collect();
    let shared = ids
        .iter()
        .map(|id| &id[..1])
        .find(|digit| ids.iter().filter(|id| id.starts_with(digit)).count() > 1)
        .expect("two of a kind");
    let said = engine.berth(&["rm", shared]).exits(1).complains(&[shared]);
    assert!(said.stderr.contains("ambiguous") || said.stderr.contains("multiple"), "{}", said.stderr);
    assert_eq!(engine.berth(&["ps", "-aq"]).ok().stdout.lines().count(), 17);
}

#[test]
fn a_full_disk() {
    let Some(mut engine) = Engine::prepare("") else { return };
    let root = engine.dir().join("root");
    fs::create_dir(&root).expect("mkdir");
    let path = root.to_str().expect("UTF-8");
    // Busybox needs two megabytes, compressed and unpacked; there is one, next
    // to what the metadata takes.
    sh("mount", &["-t", "tmpfs", "-o", "size=1536k,mode=0700", "none", path]);
    engine.restart();
    let archive = Image::busybox().oci_archive("docker.io/library/busybox:latest");
    let said = engine.berth_with_input(&["load", "-q"], &archive).exits(1).complains(&[]);
    assert!(said.stderr.to_lowercase().contains("no space left on device"), "{}", said.stderr);
    assert_eq!(engine.berth(&["images", "-q"]).ok().line(), "");

    // With room it works, with what was left of the first attempt.
    sh("mount", &["-o", "remount,size=64m", path]);
    engine.berth_with_input(&["load", "-q"], &archive).ok();
    engine.berth(&["rmi", "busybox"]).ok();
    assert_eq!(engine.stop(), 0);
    sh("umount", &[path]);
}

#[test]
fn a_socket_that_one_may_not_use() {
    let Some(engine) = Engine::start() else { return };
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(engine.socket()).expect("stat").permissions().mode();
    assert_eq!(mode & 0o7777, 0o660);
    // The way there is free; only the socket itself is not.
    fs::set_permissions(engine.dir(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let berth = engine.dir().join("berth");
    fs::copy(engine::program("berth"), &berth).expect("copy");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&berth).arg("ps");
    command.env("BERTH_ADDRESS", engine.address());
    run(command, b"").exits(1).complains(&["permission denied", &engine.socket().display().to_string()]);
}

#[test]
fn no_engine() {
    let Some(engine) = Engine::prepare("") else { return };
    let socket = engine.socket().display().to_string();
    engine.berth(&["ps"]).exits(1).complains(&[&socket, "berthd"]);
    engine.berth(&["run", "busybox"]).exits(125).complains(&[&socket, "berthd"]);
}

#[test]
fn a_second_engine_on_the_same_root() {
    let Some(engine) = Engine::start() else { return };
    let other = format!("unix://{}", engine.dir().join("other.sock").display());
    let said = run(engine.command(&other), b"").exits(1);
    let root = engine.dir().join("root").display().to_string();
    let error = said.stderr.lines().last().expect("an error");
    assert!(error.contains(&root) && error.contains(&engine.pid().to_string()), "{error}");
    engine.berth(&["ps"]).ok();
}

#[test]
fn a_configuration_with_a_mistake() {
    let Some(engine) = Engine::prepare("root = \"/somewhere\"\nworkers = \"many\"\n") else { return };
    let said = run(engine.command(&engine.address()), b"").exits(1);
    assert!(said.stderr.contains("config.toml:2: workers"), "{}", said.stderr);
    let file = engine.dir().join("config.toml").display().to_string();
    let mut check = Command::new(engine::program("berthd"));
    check.args(["config", "check", &file]);
    run(check, b"").exits(1).complains(&["workers"]);

    let mut default = Command::new(engine::program("berthd"));
    default.args(["config", "default"]);
    let text = run(default, b"").ok().stdout;
    fs::write(engine.dir().join("config.toml"), text).expect("write");
    let mut check = Command::new(engine::program("berthd"));
    check.args(["config", "check", &file]);
    run(check, b"").ok();
}

#[test]
fn values_that_make_no_sense() {
    let Some(engine) = with_busybox() else { return };
    let cases: [(&[&str], &str); 8] = [
        (&["--memory", "lots"], "lots"),
        (&["--cpus", "-1"], "-1"),
        (&["-v", "relative:/data"], "relative"),
        (&["-v", "/tmp:relative"], "relative"),
        (&["--network", "moon"], "moon"),
        (&["-w", "relative"], "relative"),
        (&["--ulimit", "nosuch=1"], "nosuch"),
        (&["--stop-signal", "SIGNOSUCH"], "SIGNOSUCH"),
    ];
    for (flags, word) in cases {
        let said = engine.berth(&[&["create"], flags, &["busybox"]].concat()).exits(125);
        assert!(said.stderr.contains(word), "{flags:?}: {}", said.stderr);
    }
    assert_eq!(engine.berth(&["ps", "-aq"]).ok().line(), "");
}

/// The system says no in the middle of a pull, to one call after the other.
#[test]
fn a_call_that_fails_during_a_pull_stops_that_pull_alone() {
    if !peers::has("strace") {
        return;
    }
    let image = Image::noisy();
    let registry = FakeRegistry::serving(&image, "library/noisy", "latest");
    let Some(engine) = Engine::start_mirrored(registry.address()) else { return };
    let tracer = || {
        let status = fs::read_to_string(format!("/proc/{}/status", engine.pid())).expect("status");
        status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
    };
    for (call, error, words) in [
        ("fchown", "EIO", "/o"),
        ("fchmod", "EIO", "/o"),
        ("utimensat", "EIO", "/o"),
        ("syncfs", "EIO", "/o"),
        ("fchown", "EDQUOT", "quota"),
        ("mkdirat", "ENOSPC", "no space left on device"),
        ("openat2", "EMFILE", "too many open files"),
        ("openat2", "EIO", "/o"),
    ] {
        let mut strace = Command::new("strace");
        let inject = format!("inject={call}:error={error}:when=1");
        strace.args(["-f", "-qqq", "-o", "/dev/null", "-p", &engine.pid().to_string(), "-e", &inject]);
        let mut strace = strace.spawn().expect("strace");
        until("strace to be there", || tracer().then_some(()));
        let pulled = engine.berth(&["pull", "-q", "noisy"]);
        leaks::send(i32::try_from(strace.id()).expect("a pid"), nix::sys::signal::Signal::SIGINT);
        strace.wait().expect("wait");
        until("strace to be gone", || (!tracer()).then_some(()));
        let said = pulled.exits(1).error().to_lowercase();
        assert!(said.contains(words) && said.lines().count() == 1, "{call}, {error}: {said}");
        until("nothing to be left", || {
            let left = fs::read_dir(engine.dir().join("root/snapshots")).expect("list").count();
            (left == 1).then_some(())
        });
        assert_untouched(&engine);
        engine.fsck(&[]).ok();
        engine.berth(&["pull", "-q", "noisy"]).ok();
        engine.fsck(&["--digests"]).ok();
        engine.berth(&["rmi", "noisy"]).ok();
    }
}

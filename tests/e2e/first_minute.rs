// SPDX-License-Identifier: Apache-2.0
//! The first minute of every newcomer, word for word.

use crate::support::{Image, engine};

#[test]
fn hello_world_is_pulled_once_and_then_runs_from_the_store() {
    let Some((engine, registry)) = engine::with_registry() else { return };
    let (image, greeting) = Image::hello_world();
    let digest = registry.push(&image, "library/hello-world", "latest");
    let layer = &image.layers()[0]["sha256:".len()..][..12];

    let first = engine.berth(&["run", "hello-world"]).ok();
    assert_eq!(
        first.stderr,
        format!(
            "Unable to find image 'hello-world:latest' locally\n\
             latest: Pulling from library/hello-world\n\
             {layer}: Pull complete\n\
             Digest: {digest}\n\
             Status: Downloaded newer image for hello-world:latest\n"
        )
    );
    assert_eq!(first.stdout, greeting);
    assert!(greeting.starts_with("\nHello from berth!\n"), "a blank line, then the greeting");

    drop(registry);
    let second = engine.berth(&["run", "hello-world"]).ok();
    assert_eq!((second.stdout, second.stderr), (greeting, String::new()));
}

#[test]
fn ps_shows_the_table_that_docker_users_know() {
    let Some(engine) = engine::with_busybox() else { return };
    engine.berth(&["run", "--name", "one", "busybox", "true"]).ok();
    engine.berth(&["run", "busybox", "sh", "-c", "exit 3"]).exits(3);
    engine.berth(&["create", "--name", "two", "busybox", "true"]).ok();

    assert_eq!(engine.berth(&["ps"]).ok().stdout.lines().count(), 1, "only what runs");
    let table = engine.berth(&["ps", "-a"]).ok().stdout;
    let rows: Vec<Vec<&str>> = table.lines().map(columns).collect();
    assert_eq!(rows[0], ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]);
    assert_eq!(rows.len(), 4, "{table}");

    // Newest first.
    let (two, three, one) = (&rows[1], &rows[2], &rows[3]);
    assert_eq!((two[1], two[2], two[4], two[5]), ("busybox", "\"true\"", "Created", "two"));
    assert_eq!((three[1], three[2]), ("busybox", "\"sh -c 'exit 3'\""));
    assert!(three[4].starts_with("Exited (3) ") && three[4].ends_with(" ago"), "{table}");
    let (left, right) = three[5].split_once('_').expect("a made-up name");
    assert!(
        left.chars().chain(right.chars()).all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    );
    assert_eq!((one[4].starts_with("Exited (0) "), one[5]), (true, "one"));
    assert!(one[3].ends_with(" ago") && one[0].len() == 12, "{table}");
}

#[test]
fn a_container_has_the_hosts_kernel_and_its_own_host_name() {
    let Some(engine) = engine::with_busybox() else { return };
    let said = engine.berth(&["run", "--name", "uname", "busybox", "uname", "-a"]).ok().stdout;
    let words: Vec<_> = said.split(' ').collect();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("osrelease");
    assert_eq!((words[0], words[2]), ("Linux", kernel.trim()));
    let id = engine.berth(&["ps", "-aq", "--filter", "name=uname"]).ok();
    assert_eq!(words[1], id.line(), "the host name is the short id");
}

#[test]
fn the_exit_code_is_the_commands() {
    let Some(engine) = engine::with_busybox() else { return };
    for code in [0, 1, 42, 255] {
        engine.berth(&["run", "--rm", "busybox", "sh", "-c", &format!("exit {code}")]).exits(code);
    }
    engine.berth(&["run", "--rm", "busybox", "sh", "-c", "sh -c 'kill -TERM $$'; exit $?"]).exits(143);
}

#[test]
fn version_and_info_know_their_engine() {
    let Some(engine) = engine::with_busybox() else { return };
    let version = engine.berth(&["version"]).ok().stdout;
    assert!(version.contains("Client:") && version.contains("Server:"), "{version}");
    assert_eq!(version.matches(env!("CARGO_PKG_VERSION")).count(), 2, "{version}");

    engine.berth(&["create", "busybox"]).ok();
    let info = engine.berth(&["info"]).ok().stdout;
    for line in ["Containers: 1", "Running: 0", "Images: 1"] {
        assert!(info.lines().any(|l| l.trim() == line), "{line:?} in: {info}");
    }
    assert!(info.contains(engine.dir().join("root").to_str().expect("UTF-8")), "{info}");
}

#[test]
fn without_a_command_there_is_help_that_lists_them() {
    let Some(engine) = crate::support::Engine::prepare("") else { return };
    let help = engine.berth(&["--help"]).ok().stdout;
    for command in ["run", "create", "start", "stop", "kill", "wait", "rm", "ps", "logs", "attach", "inspect"]
    {
        assert!(help.lines().any(|l| l.trim_start().starts_with(command)), "{command} in: {help}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(engine.berth(&["completion", shell]).ok().stdout.contains("berth"), "{shell}");
    }
    engine.berth(&["run", "--no-such-flag", "busybox"]).exits(125);
}

/// Splits a line of a table, whose columns are three spaces apart.
fn columns(line: &str) -> Vec<&str> {
    line.split("   ").map(str::trim).filter(|c| !c.is_empty()).collect()
}

// SPDX-License-Identifier: Apache-2.0
//! Health checks: how a container is found to be well or not, what is
//! remembered of it, and what comes of it.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use crate::support::{Engine, Image, engine::with_busybox, until};

const OFTEN: [&str; 4] = ["--health-interval", "100ms", "--health-timeout", "20s"];

fn health(engine: &Engine, container: &str) -> Value {
    engine.inspect(container)["State"]["Health"].clone()
}

fn until_health(engine: &Engine, container: &str, wanted: &str) {
    until(&format!("{container} to be {wanted}"), || {
        (health(engine, container)["Status"] == wanted).then_some(())
    });
}

fn events(engine: &Engine, container: &str) -> Vec<String> {
    let filter = format!("container={container}");
    let flags = ["events", "--since", "1h", "--until", "0s", "--filter", &filter, "--format", "{{.Action}}"];
    engine.berth(&flags).ok().stdout.lines().map(str::to_owned).collect()
}

/// A directory that is /flag in a container with this volume.
fn flag(engine: &Engine, name: &str) -> (PathBuf, String) {
    let dir = engine.dir().join(format!("flag-{name}"));
    fs::create_dir(&dir).expect("mkdir");
    (dir.join("well"), format!("{}:/flag", dir.display()))
}

/// Runs a container that is well as long as its flag is there.
fn flagged(engine: &Engine, name: &str, more: &[&str]) -> PathBuf {
    let (well, volume) = flag(engine, name);
    fs::write(&well, "").expect("write");
    let check = ["--health-cmd", "echo looked; test -e /flag/well", "--health-retries", "2", "-v", &volume];
    let command = ["busybox", "sleep", "1000"];
    engine.berth(&[&["run", "-d", "--name", name][..], &OFTEN, &check, more, &command].concat()).ok();
    well
}

#[test]
fn a_command_decides_and_everybody_is_told() {
    let Some(engine) = with_busybox() else { return };
    let well = flagged(&engine, "web", &[]);
    until_health(&engine, "web", "healthy");
    let status = || engine.berth(&["ps", "--format", "{{.Status}}"]).ok().line().to_owned();
    assert!(status().ends_with(" (healthy)"), "{}", status());
    let found = |state: &str| {
        let filter = format!("health={state}");
        !engine.berth(&["ps", "-q", "--filter", &filter]).ok().line().is_empty()
    };
    assert!(found("healthy") && !found("unhealthy") && !found("none"));

    fs::remove_file(&well).expect("remove");
    until_health(&engine, "web", "unhealthy");
    assert!(status().ends_with(" (unhealthy)"), "{}", status());
    let ill = health(&engine, "web");
    assert!(ill["FailingStreak"].as_u64().expect("a number") >= 2, "{ill}");
    let last = ill["Log"].as_array().expect("a list").last().expect("a probe").clone();
    assert_eq!((&last["ExitCode"], &last["Output"]), (&1.into(), &"looked\n".into()));
    let config = &engine.inspect("web")["Config"]["Healthcheck"];
    assert_eq!(config["Test"], json!(["CMD-SHELL", "echo looked; test -e /flag/well"]));
    assert_eq!(config["Interval"], 100_000_000);

    fs::write(&well, "").expect("write");
    until_health(&engine, "web", "healthy");
    until("five probes", || (health(&engine, "web")["Log"].as_array()?.len() == 5).then_some(()));
    assert_eq!(
        events(&engine, "web"),
        ["create", "start", "health_status: healthy", "health_status: unhealthy", "health_status: healthy"],
        "and none of the probes'"
    );
    // A container that is started again is as good as new.
    engine.berth(&["stop", "-t", "0", "web"]).ok();
    fs::remove_file(&well).expect("remove");
    engine.berth(&["start", "web"]).ok();
    until_health(&engine, "web", "unhealthy");
}

#[test]
fn what_is_known_survives_the_engine() {
    let Some(mut engine) = with_busybox() else { return };
    let well = flagged(&engine, "web", &[]);
    until_health(&engine, "web", "healthy");
    engine.kill9();
    engine.restart();
    assert_eq!(health(&engine, "web")["Status"], "healthy");
    let seen = health(&engine, "web")["Log"].as_array().expect("a list").len();
    assert!(seen > 0);
    engine.kill9();
    fs::remove_file(&well).expect("remove");
    engine.restart();
    until_health(&engine, "web", "unhealthy");
    let left = engine.berth(&["exec", "ls", "-q"]).ok();
    assert!(left.line().lines().count() <= 1, "no probe of an earlier engine: {}", left.stdout);
}

#[test]
fn a_probe_that_takes_too_long_is_ended_and_what_it_says_is_cut_off() {
    let Some(engine) = with_busybox() else { return };
    let run = |name: &str, more: &[&str]| {
        let command = ["busybox", "sleep", "1000"];
        engine.berth(&[&["run", "-d", "--name", name][..], more, &command].concat()).ok();
    };
    let slow =
        ["--health-cmd", "sleep 999 & sleep 998", "--health-interval", "50ms", "--health-retries", "1"];
    run("slow", &[&slow[..], &["--health-timeout", "1s"]].concat());
    until_health(&engine, "slow", "unhealthy");
    let log = health(&engine, "slow")["Log"][0].clone();
    assert_eq!(log["ExitCode"], -1);
    assert_eq!(log["Output"], "Health check exceeded timeout (1s)");
    // On cgroup v1 the shell alone is killed: what it has started is the
    // container's.
    let talks = "i=0; while [ $i -lt 2000 ]; do echo 0123456789; i=$((i+1)); done";
    run("talks", &["--health-cmd", talks, "--health-interval", "50ms", "--health-timeout", "25s"]);
    until_health(&engine, "talks", "healthy");
    let said = health(&engine, "talks")["Log"][0]["Output"].as_str().expect("text").to_owned();
    assert_eq!((said.len(), said.ends_with("...")), (4096 + 3, true));
}

#[test]
fn servers_are_probed_without_a_process_in_the_container() {
    let Some(engine) = with_busybox() else { return };
    let (well, volume) = flag(&engine, "www");
    fs::write(&well, "all is well\n").expect("write");
    let serve = ["-v", &volume, "busybox", "httpd", "-f", "-p", "8080", "-h", "/flag"];
    let run = |name: &str, check: &[&str]| {
        let retries =
            ["--health-retries", "1", "--health-start-period", "25s", "--health-start-interval", "50ms"];
        engine.berth(&[&["run", "-d", "--name", name][..], &OFTEN, &retries, check, &serve].concat()).ok();
    };
    run("http", &["--health-http", "http://localhost:8080/well"]);
    run("tcp", &["--health-tcp", "8080"]);
    for name in ["http", "tcp"] {
        until_health(&engine, name, "healthy");
    }
    let output = |name: &str| {
        let log = health(&engine, name)["Log"].clone();
        log.as_array().expect("a list").last().expect("a probe")["Output"].as_str().expect("text").to_owned()
    };
    assert!(
        output("http").contains(" 200 OK") && output("http").contains("all is well"),
        "{}",
        output("http")
    );
    assert!(output("tcp").starts_with("connected to 127.0.0.1:8080"), "{}", output("tcp"));
    fs::remove_file(&well).expect("remove");
    until_health(&engine, "http", "unhealthy");
    assert!(output("http").contains(" 404 "), "{}", output("http"));
    assert_eq!(health(&engine, "tcp")["Status"], "healthy");
    engine.berth(&["healthcheck", "run", "http"]).exits(1).complains(&["unhealthy", "404"]);
    engine.berth(&["healthcheck", "run", "tcp"]).ok();
    // It is the container's network that they are made from.
    let probes = engine.berth(&["exec", "ls", "-qa"]).ok();
    assert_eq!(probes.line(), "");
    let nobody = ["--health-tcp", "8081", "--health-retries", "1"];
    engine.berth(&[&["run", "-d", "--name", "deaf"][..], &OFTEN, &nobody, &serve].concat()).ok();
    until_health(&engine, "deaf", "unhealthy");
    assert!(output("deaf").contains("connect to 127.0.0.1:8081"), "{}", output("deaf"));
}

#[test]
fn an_unhealthy_container_is_dealt_with_as_was_asked() {
    let Some(engine) = with_busybox() else { return };
    for (action, more) in
        [("kill", &["--restart", "on-failure:1"][..]), ("stop", &["--restart", "always"]), ("restart", &[])]
    {
        let flags = [&["--health-on-failure", action, "--stop-timeout", "0"][..], more].concat();
        let well = flagged(&engine, action, &flags);
        until_health(&engine, action, "healthy");
        fs::remove_file(&well).expect("remove");
    }
    // Killed, and started by its policy; then again, and that was all.
    until("the killed one to have had its restart", || {
        let inspect = engine.inspect("kill");
        (inspect["RestartCount"] == 1 && inspect["State"]["Status"] == "exited").then_some(())
    });
    assert_eq!(engine.inspect("kill")["State"]["ExitCode"], 137);
    until("the stopped one to rest", || (engine.status("stop") == "exited").then_some(()));
    assert!(events(&engine, "stop").contains(&"stop".to_owned()));
    until("the restarted one to start twice", || {
        (events(&engine, "restart").iter().filter(|action| *action == "restart").count() >= 2).then_some(())
    });
}

#[test]
fn an_image_has_its_own_and_the_user_has_the_last_word() {
    let Some(engine) = Engine::start() else { return };
    let check = json!({"Test": ["CMD", "test", "-e", "/etc/passwd"], "Interval": 100_000_000, "Retries": 9});
    engine.load(&Image::busybox_with(json!({"Cmd": ["sleep", "1000"], "Healthcheck": check})), "checked");
    engine.berth(&["run", "-d", "--name", "plain", "checked"]).ok();
    until_health(&engine, "plain", "healthy");
    assert_eq!(engine.inspect("plain")["Config"]["Healthcheck"]["Retries"], 9);

    engine.berth(&["run", "-d", "--name", "none", "--no-healthcheck", "checked"]).ok();
    assert_eq!(health(&engine, "none"), Value::Null);
    assert_eq!(engine.inspect("none")["Config"]["Healthcheck"]["Test"], json!(["NONE"]));
    let own = ["--health-cmd", "false", "--health-retries", "1"];
    engine.berth(&[&["run", "-d", "--name", "own"][..], &own, &["checked"]].concat()).ok();
    until_health(&engine, "own", "unhealthy");

    for (flags, words) in [
        (&["--no-healthcheck", "--health-retries", "1"][..], "--no-healthcheck conflicts with --health-*"),
        (&["--health-interval", "1us"], "Interval in Healthcheck cannot be less than 1ms"),
        (&["--health-interval", "often"], "invalid duration"),
        (&["--health-retries", "-1"], "Retries in Healthcheck cannot be negative"),
        (&["--health-http", "https://localhost/"], "https isn't supported"),
        (&["--health-http", "http://example.org/"], "names aren't looked up"),
        (&["--health-tcp", "0"], "expected PORT"),
        (&["--health-cmd", "true", "--health-tcp", "1"], "cannot specify more than one"),
        (&["--health-on-failure", "panic"], "invalid health-on-failure action 'panic'"),
        (&["--no-healthcheck", "--health-on-failure", "kill"], "conflicts"),
    ] {
        let refused = engine.berth(&[&["create"][..], flags, &["checked"]].concat());
        assert!(refused.code != 0 && refused.stderr.contains(words), "{words}: {}", refused.stderr);
    }
    engine.berth(&["healthcheck", "run", "none"]).exits(1).complains(&["has no defined healthcheck"]);
}

#[test]
fn a_paused_container_is_not_called_ill() {
    let Some(engine) = with_busybox() else { return };
    flagged(&engine, "web", &[]);
    until_health(&engine, "web", "healthy");
    engine.berth(&["pause", "web"]).ok();
    let probes = || health(&engine, "web")["Log"].as_array().expect("a list").last().cloned();
    // Long enough for two that were due, seen by another container's.
    flagged(&engine, "clock", &[]);
    until("a clock to have ticked", || {
        (health(&engine, "clock")["Log"].as_array()?.len() >= 4).then_some(())
    });
    let now = health(&engine, "web");
    assert_eq!((&now["Status"], &now["FailingStreak"]), (&"healthy".into(), &0.into()));
    let before = probes();
    engine.berth(&["unpause", "web"]).ok();
    until("probes to go on", || (probes() != before).then_some(()));
}

#[test]
fn a_check_changes_while_the_container_runs() {
    let Some(mut engine) = with_busybox() else { return };
    let well = flagged(&engine, "web", &[]);
    until_health(&engine, "web", "healthy");
    let pid = engine.inspect("web")["State"]["Pid"].clone();
    engine.berth(&["update", "--health-retries", "3", "--health-interval", "200ms", "web"]).ok();
    // Only its times have changed: what is known stays known.
    assert_eq!(health(&engine, "web")["Status"], "healthy");
    let check = engine.inspect("web")["Config"]["Healthcheck"].clone();
    assert_eq!((&check["Retries"], &check["Interval"]), (&json!(3), &json!(200_000_000)), "{check}");
    assert_eq!(check["Test"], json!(["CMD-SHELL", "echo looked; test -e /flag/well"]));

    // Another test is another truth, at once.
    engine.berth(&["update", "--health-cmd", "echo other; exit 1", "web"]).ok();
    until_health(&engine, "web", "unhealthy");
    let log = health(&engine, "web")["Log"].clone();
    assert!(log.as_array().expect("a log").iter().all(|probe| probe["Output"] == "other\n"), "{log}");
    engine.berth(&["update", "--no-healthcheck", "web"]).ok();
    assert_eq!(health(&engine, "web"), Value::Null);
    let status = engine.berth(&["ps", "--format", "{{.Status}}"]).ok().line().to_owned();
    assert!(!status.contains("health"), "{status}");
    engine.berth(&["healthcheck", "run", "web"]).exits(1).complains(&["has no defined healthcheck"]);
    let words = "has no health check: --health-cmd";
    engine.berth(&["update", "--health-retries", "2", "web"]).exits(1).complains(&[words]);

    // One that had none gets one, and what becomes of an unhealthy one; the
    // next engine knows.
    let test = ["--health-cmd", "test -e /flag/well", "--health-retries", "1"];
    engine.berth(&[&["update", "--health-on-failure", "kill"], &test[..], &OFTEN, &["web"]].concat()).ok();
    until_health(&engine, "web", "healthy");
    assert_eq!(engine.inspect("web")["State"]["Pid"], pid);
    engine.kill9();
    engine.restart();
    until_health(&engine, "web", "healthy");
    fs::remove_file(&well).expect("remove");
    assert_eq!(engine.wait("web"), 137);

    // One that doesn't run has the check at its next start.
    fs::write(&well, "").expect("write");
    engine.berth(&["update", "--health-on-failure", "none", "web"]).ok();
    engine.berth(&["start", "web"]).ok();
    until_health(&engine, "web", "healthy");
    let bad = ["--health-interval", "100us"];
    engine.berth(&[&["update"], &bad[..], &["web"]].concat()).exits(1).complains(&["less than 1ms"]);
    let both = ["update", "--no-healthcheck", "--health-retries", "1", "web"];
    engine.berth(&both).exits(1).complains(&["--no-healthcheck conflicts"]);
}

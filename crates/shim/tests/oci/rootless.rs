// SPDX-License-Identifier: Apache-2.0
//! The program run by somebody who isn't root: a user namespace gives what
//! the host doesn't.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::harness::{AS_USER, PROGRAM, Ran, finish, is_by_user, own};

/// Nobody's on any host that the tests run on; shown as a number.
const USER: u32 = 4711;

/// A bundle, a root directory and a copy of the program, all of the user.
struct Home {
    dir: tempfile::TempDir,
    spec: Value,
}

impl Home {
    fn new(args: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("rootless").tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            fs::create_dir_all(path("bundle/rootfs").join(name)).unwrap();
        }
        fs::copy("/bin/busybox", path("bundle/rootfs/bin/busybox")).unwrap();
        for applet in ["cat", "id", "ls", "sh", "sleep", "touch"] {
            std::os::unix::fs::symlink("busybox", path("bundle/rootfs/bin").join(applet)).unwrap();
        }
        // Where it was built others may not get.
        fs::copy(PROGRAM, path("program")).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        own(dir.path(), USER);
        let mut home = Self { dir, spec: Value::Null };
        home.run(&["spec", "--rootless", "--bundle", "BUNDLE"]).ok();
        let text = fs::read(home.path("bundle/config.json")).unwrap();
        home.spec = serde_json::from_slice(&text).unwrap();
        home.spec["process"]["terminal"] = json!(false);
        home.spec["process"]["args"] = json!(args);
        home.spec["root"]["readonly"] = json!(false);
        home
    }

    fn shell(script: &str) -> Self {
        Self::new(&["sh", "-c", script])
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs the program as the user; its default root is in XDG_RUNTIME_DIR.
    fn run(&self, words: &[&str]) -> Ran {
        let mut command = Command::new(self.path("program"));
        command.uid(USER).gid(USER);
        self.finish(command, words)
    }

    fn finish(&self, mut command: Command, words: &[&str]) -> Ran {
        if !self.spec.is_null() {
            fs::write(self.path("bundle/config.json"), self.spec.to_string()).unwrap();
        }
        let bundle = self.path("bundle");
        command.args(words.iter().map(|word| word.replace("BUNDLE", bundle.to_str().unwrap())));
        command.env("XDG_RUNTIME_DIR", self.dir.path()).env("HOME", self.dir.path()).stdin(Stdio::null());
        finish(command, &self.path("out"), &self.path("err"))
    }
}

/// What a user who has mapped himself alone can't do, or root has to do for
/// the test.
const ONLY_BY_ROOT: [(&str, &str); 7] = [
    ("exec::flags_change_the_process", "more groups need a range of them"),
    ("verbs::kill_reaches_all_processes_when_asked", "no procfs of the host's processes"),
    ("verbs::sigkill_ends_all_where_the_pid_namespace_is_not_the_containers", "the same"),
    ("life::a_root_in_the_hosts_mount_namespace_goes_with_the_container", "no mount on the host"),
    ("bad_input::what_a_cut_off_creation_left_is_removed", "root makes the directory"),
    ("drop_in::an_exec_goes_into_a_cgroup_below_the_containers", "root makes the cgroups"),
    ("drop_in::debug_lines_go_where_the_log_goes", "a user's log has a warning, too"),
];

/// The whole of this program once more, by a user to whom cgroups have been
/// delegated, as systemd does it.
#[test]
fn all_other_tests_as_a_user() {
    assert!(!is_by_user());
    let mut command = Command::new(std::env::current_exe().unwrap());
    // One at a time: a thread that forks while another copies a program keeps it
    // from being executed (ETXTBSY).
    command.args(["--test-threads", "1", "--skip", "rootless::"]).env(AS_USER, USER.to_string());
    for (name, _why) in ONLY_BY_ROOT {
        command.args(["--skip", name]);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let passed = said.lines().filter(|line| line.starts_with("test ") && line.ends_with(" ok")).count();
    assert!(passed > 50, "{said}");
}

#[test]
fn a_container_of_a_user_alone() {
    let home = Home::shell(
        "id -u; cat /proc/self/uid_map /proc/self/setgroups; ls /proc/1/comm; touch /tmp/x && ls -ln /tmp",
    );
    let said = home.run(&["run", "--bundle", "BUNDLE", "c"]).ok();
    let words: Vec<_> = said.split_whitespace().collect();
    assert_eq!(words[..6], ["0", "0", "4711", "1", "deny", "/proc/1/comm"], "{said}");
    assert!(said.contains(" 0        0 "), "{said}");
    let made = fs::metadata(home.path("bundle/rootfs/tmp/x")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), USER);
    assert_eq!(home.run(&["list", "-q"]).ok(), "");
}

#[test]
fn its_whole_life() {
    let home = Home::shell("trap 'exit 7' TERM; while :; do sleep 0.05; done");
    home.run(&["create", "--bundle", "BUNDLE", "c"]).ok();
    let state = || -> Value { serde_json::from_str(&home.run(&["state", "c"]).ok()).unwrap() };
    assert_eq!(state()["status"], "created");
    home.run(&["start", "c"]).ok();
    assert_eq!(state()["status"], "running");
    let said = home.run(&["exec", "c", "sh", "-c", "id -u; cat /proc/1/comm; cat /proc/self/uid_map"]).ok();
    let words: Vec<_> = said.split_whitespace().collect();
    assert_eq!(words, ["0", "sh", "0", "4711", "1"], "{said}");
    assert_eq!(home.run(&["exec", "c", "sh", "-c", "exit 5"]).status, 5);
    assert!(home.run(&["delete", "c"]).error().contains("is not stopped"));
    home.run(&["kill", "c", "KILL"]).ok();
    home.run(&["delete", "--force", "c"]).ok();
    assert!(home.run(&["state", "c"]).error().contains("does not exist"));
}

#[test]
fn what_a_user_alone_cannot_have_is_said() {
    let mut home = Home::new(&["id"]);
    home.spec["process"]["user"] = json!({"uid": 0, "gid": 0, "additionalGids": [5]});
    let error = home.run(&["run", "--bundle", "BUNDLE", "c"]).error();
    assert!(error.contains("process.user.additionalGids"), "{error}");
    home.spec["process"]["user"] = json!({"uid": 1000, "gid": 0});
    let error = home.run(&["run", "--bundle", "BUNDLE", "c"]).error();
    assert!(error.contains("setresuid(1000)"), "{error}");
    home.spec["process"]["user"] = json!({"uid": 0, "gid": 0});
    home.spec["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
    let error = home.run(&["run", "--bundle", "BUNDLE", "c"]).error();
    assert!(error.contains("uid_map") || error.contains("newuidmap"), "{error}");
    assert_eq!(home.run(&["list", "-q"]).ok(), "");
}

/// newuidmap(1) knows users by their names, and reads /etc/subuid: this host's
/// are left alone, in a mount namespace that has others.
#[test]
fn a_range_of_users_by_newuidmap() {
    let mut home = Home::shell("id; cat /proc/self/uid_map /proc/self/setgroups");
    let map = json!([
        {"containerID": 0, "hostID": USER, "size": 1},
        {"containerID": 1, "hostID": 700_000, "size": 65_536},
    ]);
    home.spec["linux"]["uidMappings"] = map.clone();
    home.spec["linux"]["gidMappings"] = map;
    home.spec["process"]["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [5]});
    let put = |name: &str, text: String| fs::write(home.path(name), text).unwrap();
    put("passwd", format!("root:x:0:0::/:/bin/sh\nrootless:x:{USER}:{USER}::/:/bin/sh\n"));
    put("subuid", "rootless:700000:65536\n".to_owned());
    let script = format!(
        "cd '{}' && mount --bind passwd /etc/passwd && mount --bind subuid /etc/subuid && \
         mount --bind subuid /etc/subgid && exec setpriv --reuid {USER} --regid {USER} --clear-groups -- \"$@\"",
        home.dir.path().display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--", "sh", "-c", &script, "sh"]).arg(home.path("program"));
    let said = home.finish(command, &["run", "--bundle", "BUNDLE", "c"]).ok();
    let words: Vec<_> = said.split_whitespace().collect();
    assert_eq!(
        words,
        ["uid=1000", "gid=1000", "groups=5", "0", "4711", "1", "1", "700000", "65536", "allow"]
    );
}

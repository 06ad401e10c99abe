// SPDX-License-Identifier: Apache-2.0
//! The gate against escapes by path, which needs no luck: of all calls that
//! the runtime makes, which reach below a root, seen by strace.

use std::{
    collections::HashSet,
    fs,
    os::unix::{fs::symlink, net::UnixListener},
    path::{Path, PathBuf},
    process::{Child, Command},
};

use serde_json::json;

use crate::harness::{Bundle, wait_until};

/// Name and body of each.
pub(crate) const ALL: &[(&str, fn())] = &[
    ("no_path_below_the_root_is_trusted", no_path_below_the_root_is_trusted),
    ("no_path_is_trusted_with_a_terminal_nor_in_exec_nor_delete", a_whole_life),
    ("r14_c06_what_is_written_to_proc_arrives_there", r14_c06_what_is_written_to_proc_arrives_there),
];

/// Where the binary is: elsewhere on a machine that it wasn't built on.
fn program() -> String {
    std::env::var("BERTH_OCI").unwrap_or_else(|_| env!("CARGO_BIN_EXE_berth-oci").to_owned())
}

/// A bundle that is driven by the command line.
struct Traced {
    bundle: Bundle,
    traces: usize,
    straces: Vec<Child>,
}

impl Drop for Traced {
    fn drop(&mut self) {
        let words = self.command(&["delete", "--force", "ID"]);
        Command::new(&words[0]).args(&words[1..]).output().unwrap();
        // Each ends with the processes that it looks at.
        self.straces.iter_mut().for_each(|strace| drop(strace.wait()));
    }
}

impl Traced {
    fn new(bundle: Bundle) -> Self {
        fs::write(bundle.dir.path().join("config.json"), bundle.spec.to_string()).unwrap();
        Self { bundle, traces: 0, straces: Vec::new() }
    }

    fn command(&self, words: &[&str]) -> Vec<String> {
        let dir = self.bundle.dir.path();
        let mut all = vec![program(), "--root".to_owned(), dir.join("state").display().to_string()];
        for word in words {
            let word = match *word {
                "BUNDLE" => dir.to_str().unwrap(),
                "ID" => self.bundle.id(),
                word => word,
            };
            all.push(word.to_owned());
        }
        all
    }

    /// Runs it under strace, which goes on as long as one of its processes:
    /// where it writes.
    fn begin(&mut self, calls: &str, words: &[&str]) -> PathBuf {
        self.traces += 1;
        let log = self.bundle.dir.path().join(format!("trace-{}", self.traces));
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-s", "4096", "-e", calls, "-o"]).arg(&log).args(self.command(words));
        self.straces.push(strace.spawn().expect("strace: scripts/test-deps.sh installs it"));
        log
    }

    fn run(&mut self, words: &[&str]) -> String {
        let log = self.begin(PATHS, words);
        self.wait(&log)
    }

    /// What the last one has seen, once all has gone well.
    fn wait(&mut self, log: &Path) -> String {
        let status = self.straces.pop().unwrap().wait().unwrap();
        let trace = fs::read_to_string(log).unwrap();
        assert!(status.success(), "{trace}");
        trace
    }

    fn status(&self) -> String {
        let words = self.command(&["state", "ID"]);
        let output = Command::new(&words[0]).args(&words[1..]).output().unwrap();
        let state: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        state["status"].as_str().unwrap_or_default().to_owned()
    }
}

const PATHS: &str = "trace=%file,mount,move_mount,open_tree,openat2,mount_setattr,setns,pivot_root,execve";

/// An image that leads wherever it can.
fn tricky(bundle: Bundle) -> Bundle {
    let bundle = bundle
        .mount(json!({"destination": "/var/run/deep", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}))
        .mount(json!({"destination": "/etc/file", "type": "bind", "source": "/proc/version", "options": ["bind", "ro"]}))
        .set("/process/cwd", json!("/made/here"))
        .set("/linux/devices", json!([{"path": "/srv/null", "type": "c", "major": 1, "minor": 3}]));
    fs::create_dir(bundle.rootfs().join("var")).unwrap();
    symlink("/run", bundle.rootfs().join("var/run")).unwrap();
    bundle
}

fn no_path_below_the_root_is_trusted() {
    let mut traced = Traced::new(tricky(Bundle::new(&["true"])));
    let trace = traced.run(&["run", "--bundle", "BUNDLE", "ID"]);
    assert_safe(&trace, &traced.bundle.rootfs(), 20);
}

fn a_whole_life() {
    let bundle = tricky(Bundle::new(&["sleep", "1000"])).set("/process/terminal", json!(true));
    let mut traced = Traced::new(bundle);
    let root = traced.bundle.rootfs();
    let sockets = ["one", "two"].map(|name| traced.bundle.dir.path().join(name));
    // Nobody takes what arrives: it is not about that.
    let _listeners = sockets.each_ref().map(|path| UnixListener::bind(path).unwrap());
    let [one, two] = sockets.each_ref().map(|path| path.to_str().unwrap());
    let words = ["create", "--console-socket", one, "--bundle", "BUNDLE", "ID"];
    let log = traced.begin(PATHS, &words);
    wait_until("the creation", || traced.status() == "created");
    let start = traced.run(&["start", "ID"]);
    assert_safe(&start, &root, 0);
    wait_until("the start", || traced.status() == "running");
    let exec = traced.run(&["exec", "--user", "1000", "ID", "true"]);
    assert_safe(&exec, &root, 2);
    let exec = traced.run(&["exec", "--tty", "--detach", "--console-socket", two, "ID", "true"]);
    assert!(exec.contains("/dev/pts/ptmx"), "{exec}");
    assert_safe(&exec, &root, 3);
    let delete = traced.run(&["delete", "--force", "ID"]);
    assert_safe(&delete, &root, 0);
    let create = traced.wait(&log);
    assert!(create.contains("/console"), "{create}");
    assert_safe(&create, &root, 20);
}

/// Every call of every process until its program: those that have entered the
/// container go by descriptors, all others stay out of its root.
#[track_caller]
fn assert_safe(trace: &str, root: &Path, at_least: usize) {
    let (mut setting_up, mut inside, mut executing) = (HashSet::new(), HashSet::new(), HashSet::new());
    // Whoever makes or joins a mount namespace is on its way into the
    // container from its first call on.
    for line in trace.lines().filter(|line| line.contains("pivot_root(") || line.contains("setns(")) {
        setting_up.insert(line.split(' ').next());
    }
    let (mut resolved, mut trusting, mut main) = (0, Vec::new(), None);
    for line in trace.lines() {
        let pid = line.split(' ').next();
        main = main.or(pid);
        if pid != main && !setting_up.contains(&pid) && !inside.is_empty() {
            // Born of one that is inside.
            setting_up.insert(pid);
            inside.insert(pid);
        }
        if executing.contains(&pid) {
            continue;
        }
        if !setting_up.contains(&pid) {
            if reaches(line, root) {
                trusting.push(line);
            }
            continue;
        }
        if line.contains(" execve(") {
            executing.insert(pid);
            continue;
        }
        resolved += usize::from(line.contains("RESOLVE_IN_ROOT"));
        if !is_safe(line, root, inside.contains(&pid)) {
            trusting.push(line);
        }
        if line.contains(" pivot_root(") || line.contains(" setns(") {
            inside.insert(pid);
        }
    }
    assert!(trusting.is_empty(), "{trusting:#?}");
    assert!(resolved >= at_least, "{resolved} paths were resolved: {trace}");
}

fn paths(arguments: &str) -> Vec<&str> {
    arguments.split('"').skip(1).step_by(2).collect()
}

/// Whether a call of the runtime outside goes below the root.
fn reaches(line: &str, root: &Path) -> bool {
    let below = format!("{}/", root.display());
    // Its arguments are names of the container's.
    !line.contains(" execve(")
        && paths(line).iter().any(|path| path.starts_with(&below) || path.starts_with("rootfs/"))
}

/// Whether a traced call can't be led out of the root by what is in it.
fn is_safe(line: &str, root: &Path, inside: bool) -> bool {
    let call = line.split_once(' ').map_or("", |(_, call)| call.trim_start());
    let (name, arguments) = call.split_once('(').unwrap_or_default();
    let below = format!("{}/", root.display());
    let paths = paths(arguments);
    match name {
        "openat2" => arguments.contains("RESOLVE_IN_ROOT") || arguments.contains("RESOLVE_BENEATH"),
        // The first is the content of a link, and the kernel leaves it alone.
        "symlinkat" => paths.last().is_some_and(|name| !name.contains('/')),
        "pivot_root" | "umount2" => paths.iter().all(|path| *path == "."),
        "chdir" => paths == ["/"],
        // The second is what the link says.
        "readlinkat" => !paths[0].contains('/'),
        // The program is looked for as the container's user, from its root.
        "newfstatat" | "faccessat2" if inside => true,
        // These answer or take nothing of a path.
        "fsconfig" | "getcwd" | "" | "+++" | "---" => true,
        _ if paths.iter().all(|path| path.is_empty()) => true,
        // The host's own files, which no image has a say in.
        _ if !inside && paths.iter().all(|path| path.starts_with('/') && !path.starts_with(&below)) => true,
        _ if arguments.starts_with("AT_FDCWD") => false,
        // A link of the host's procfs, which has been looked at.
        "openat" if !inside && OF_PROC.contains(&paths[0]) => true,
        "openat" => !paths[0].contains('/') && (arguments.contains("O_NOFOLLOW") || paths[0] == ".."),
        _ => paths.iter().all(|path| !path.contains('/')),
    }
}

/// Links of procfs that the runtime follows.
const OF_PROC: [&str; 2] = ["root", "time_for_children"];

/// CVE-2025-52881, youki CVE-2025-62596: what is written to procfs goes to one
/// that is the host's, whole and not covered, not to what an image or a mount
/// has in its place.
fn r14_c06_what_is_written_to_proc_arrives_there() {
    let bundle = Bundle::new(&["true"])
        .set("/process/oomScoreAdj", json!(123))
        .set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1"}));
    let fake = bundle.rootfs().join("proc/sys/net/ipv4");
    fs::create_dir_all(&fake).unwrap();
    fs::write(fake.join("ip_forward"), "fake").unwrap();
    let patterns = || fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let before = patterns();
    let mut traced = Traced::new(bundle);
    let log = traced.begin("trace=openat2", &["run", "--bundle", "BUNDLE", "ID"]);
    let trace = traced.wait(&log);
    assert_eq!((fs::read_to_string(fake.join("ip_forward")).unwrap().as_str(), patterns()), ("fake", before));
    // Each is opened for writing below a descriptor, and not across mounts.
    for name in ["sys/net/ipv4/ip_forward", "sys/kernel/shm_rmid_forced", "oom_score_adj"] {
        let opened: Vec<_> = trace.lines().filter(|l| l.contains("openat2(") && l.contains(name)).collect();
        assert!(!opened.is_empty(), "{name}: {trace}");
        let safe = |line: &&&str| {
            ["RESOLVE_NO_XDEV", "RESOLVE_BENEATH", "RESOLVE_NO_MAGICLINKS"]
                .iter()
                .all(|flag| line.contains(flag))
        };
        assert_eq!(opened.iter().filter(safe).count(), opened.len(), "{opened:#?}");
    }
}

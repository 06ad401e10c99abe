// SPDX-License-Identifier: Apache-2.0
//! What those in a container can see and seize of a process that joins it.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::MetadataExt as _,
    },
    path::Path,
};

use berth_shim::kernel::process;
use nix::{
    sched::{CloneFlags, setns},
    sys::wait::{Id, WaitPidFlag, waitid},
};
use serde_json::{Value, json};

use crate::{
    harness::{Bundle, pipes},
    join_cases::{Running, status_of},
};

/// Name and body of each.
pub(crate) const ALL: &[(&str, fn())] = &[
    ("r02_nothing_of_the_hosts_is_seen_of_who_joins", r02_nothing_of_the_hosts_is_seen_of_who_joins),
    ("a_filter_against_forks_is_no_hindrance", a_filter_against_forks_is_no_hindrance),
    ("limits_that_leave_room_for_one_process", limits_that_leave_room_for_one_process),
];

/// A profile that denies what no test does, and `names`.
fn filter(names: &[&str]) -> Value {
    let denied: Vec<_> = names.iter().chain(&["kexec_load"]).collect();
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": denied, "action": "SCMP_ACT_ERRNO"}],
    })
}

fn with_ptrace(mut bundle: Bundle) -> Bundle {
    for set in ["bounding", "effective", "permitted"] {
        bundle.spec["process"]["capabilities"][set].as_array_mut().unwrap().push(json!("CAP_SYS_PTRACE"));
    }
    bundle
}

/// CVE-2016-9962, and more: who may trace all in the container sees no
/// descriptor, directory, right or freedom of the runtime's in a process that
/// is about to execute there.
fn r02_nothing_of_the_hosts_is_seen_of_who_joins() {
    let bundle = with_ptrace(Bundle::new(&["sleep", "1000"])).set("/linux/seccomp", filter(&[]));
    let running = Running::new(bundle);
    let spy = Spy::begin(&running);
    for number in 0..300 {
        let mut process = running.process("true");
        process.set_no_new_privileges(Some(number % 2 == 0));
        let (status, _) = running.join(process, None).unwrap();
        assert_eq!(status, 0);
    }
    let (seen, wrong) = spy.end();
    assert!(wrong.is_empty(), "{wrong:#?}");
    // It has met them between their birth and their execve. How often is for
    // the scheduler to say: thousands of times on a machine at rest.
    assert!(seen > 30, "{seen} looks");
}

/// A process in the container that has the right to look into all others.
struct Spy {
    child: process::Child,
    stop: std::io::PipeWriter,
    told: std::io::PipeReader,
}

impl Spy {
    fn begin(running: &Running) -> Self {
        let (asked, stop) = std::io::pipe().unwrap();
        let (told, tell) = std::io::pipe().unwrap();
        let container = running.container.pidfd().try_clone_to_owned().unwrap();
        let capabilities = &running.bundle.spec["process"]["capabilities"]["bounding"];
        let allowed = capabilities.as_array().unwrap().len();
        let child = process::clone3(0, None, || {
            // Whose end is waited for here.
            nix::unistd::close(stop.as_raw_fd()).unwrap();
            setns(&container, CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID).unwrap();
            let inside = process::clone3(0, None, || {
                let (seen, wrong) = watch(&asked, allowed);
                (&tell).write_all(json!([seen, wrong]).to_string().as_bytes()).unwrap();
                process::exit_now(0)
            })
            .unwrap();
            waitid(Id::PIDFd(inside.pidfd.as_fd()), WaitPidFlag::WEXITED).unwrap();
            process::exit_now(0)
        })
        .unwrap();
        Self { child, stop, told }
    }

    fn end(mut self) -> (usize, BTreeSet<String>) {
        drop(self.stop);
        let mut text = String::new();
        self.told.read_to_string(&mut text).unwrap();
        waitid(Id::PIDFd(self.child.pidfd.as_fd()), WaitPidFlag::WEXITED).unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

/// Looks at all processes but the first and itself, until `asked` ends: how
/// often it has met one, and what it should not have seen.
fn watch(asked: &std::io::PipeReader, allowed: usize) -> (usize, BTreeSet<String>) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let own = fs::read_link("/proc/self").unwrap();
    let root = fs::metadata("/").unwrap();
    let (mut seen, mut wrong) = (0, BTreeSet::new());
    while poll(&mut [PollFd::new(asked.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).unwrap() == 0 {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            if name.parse::<u32>().is_ok_and(|pid| pid != 1) && Path::new(&name) != own {
                seen += 1;
                look(&entry.path(), allowed, &root, &mut wrong);
            }
        }
    }
    (seen, wrong)
}

/// Whatever has ended meanwhile can't be looked at.
fn look(process: &Path, allowed: usize, root: &fs::Metadata, wrong: &mut BTreeSet<String>) {
    for entry in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let number: u32 = entry.file_name().to_str().unwrap().parse().unwrap();
        // A socket to the runtime is what it has besides the streams.
        if number >= 3 && !target.to_str().unwrap().starts_with("socket:") {
            wrong.insert(format!("a descriptor of {}", target.display()));
        }
    }
    if let Ok(theirs) = fs::metadata(process.join("root"))
        && (theirs.dev(), theirs.ino()) != (root.dev(), root.ino())
    {
        wrong.insert("another root".to_owned());
    }
    if let Ok(target) = fs::read_link(process.join("cwd"))
        && target != Path::new("/")
    {
        wrong.insert(format!("the directory {}", target.display()));
    }
    let Ok(status) = fs::read_to_string(process.join("status")) else { return };
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let permitted = field("CapPrm:").map_or(0, |text| u64::from_str_radix(text, 16).unwrap());
    if permitted.count_ones() as usize > allowed {
        wrong.insert(format!("the rights {permitted:#x}"));
    }
    // A dead one has no filter any more.
    if field("Seccomp:") != Some("2") && !field("State:").unwrap_or("Z").starts_with(['Z', 'X']) {
        wrong.insert("no filter".to_owned());
    }
}

/// Whatever the filter forbids: the runtime's own last steps are not its
/// concern.
fn a_filter_against_forks_is_no_hindrance() {
    let denied = [
        filter(&["clone", "clone3", "fork", "vfork"]),
        filter(&["setsid", "prctl"]),
        json!({
            "defaultAction": "SCMP_ACT_KILL_PROCESS",
            "syscalls": [{
                "names": [
                    "execve", "exit_group", "write", "read", "brk", "mmap", "munmap", "mprotect", "arch_prctl",
                    "uname", "getuid", "geteuid", "getgid", "getegid", "setuid", "setgid", "setresuid",
                    "setresgid", "setgroups", "getresuid", "getresgid", "set_robust_list", "set_tid_address",
                    "rseq", "prlimit64", "readlink", "getrandom", "newfstatat", "stat", "fstat", "faccessat2",
                    "faccessat", "getpid", "getppid", "close", "ioctl", "rt_sigaction", "rt_sigprocmask",
                    "umask", "openat", "sched_getaffinity", "poll", "fcntl", "dup2", "rt_sigreturn", "nanosleep", "clock_nanosleep", "prctl", "sendfile",
                ],
                "action": "SCMP_ACT_ALLOW",
            }],
        }),
    ];
    for filter in denied {
        let text = filter.to_string();
        let bundle = Bundle::new(&["sleep", "1000"]).set("/linux/seccomp", filter);
        let running = Running::new(bundle.set("/process/noNewPrivileges", json!(true)));
        let look = |process: &mut oci_spec::runtime::Process| {
            process.set_args(Some(["cat", "/proc/self/status"].map(str::to_owned).to_vec()));
        };
        let mut process = running.process("");
        look(&mut process);
        let (status, said) = running.join(process, None).unwrap();
        assert_eq!(status, 0, "{text}: {said}");
        assert!(said.contains("\nSeccomp:\t2\n"), "{text}: {said}");
    }
    // With rights to lose, and a filter that keeps nobody from that.
    let bundle =
        Bundle::new(&["sleep", "1000"]).set("/linux/seccomp", filter(&["clone", "clone3", "fork", "vfork"]));
    let running = Running::new(bundle);
    let mut process = running.process("");
    process
        .set_args(Some(["grep", "^Seccomp:\\|^NoNewPrivs", "/proc/self/status"].map(str::to_owned).to_vec()));
    let (status, said) = running.join(process, None).unwrap();
    assert_eq!((status, said.as_str()), (0, "NoNewPrivs:\t0\nSeccomp:\t2\n"));
}

/// The one that joins and the one that executes are not counted twice.
fn limits_that_leave_room_for_one_process() {
    let running = Running::new(Bundle::new(&["sleep", "1000"]));
    let mut process = running.process("");
    let limit = json!([{"type": "RLIMIT_NPROC", "soft": 1, "hard": 1}]);
    process
        .set_args(Some(["cat", "/proc/self/limits"].map(str::to_owned).to_vec()))
        .set_rlimits(serde_json::from_value(limit).unwrap())
        // Nobody else's on this machine.
        .set_user(serde_json::from_value(json!({"uid": 3_917_201, "gid": 5})).unwrap());
    let (status, said) = running.join(process, None).unwrap();
    assert_eq!(status, 0, "{said}");
    let line = said.lines().find(|line| line.starts_with("Max processes")).unwrap();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["Max", "processes", "1", "1", "processes"]);
    // How it is scheduled isn't what a fork hands on.
    let mut process = running.process("");
    let idle = json!({"policy": "SCHED_IDLE", "flags": ["SCHED_RESET_ON_FORK"]});
    process
        .set_args(Some(["cat", "/proc/self/stat"].map(str::to_owned).to_vec()))
        .set_scheduler(serde_json::from_value(idle).unwrap());
    let (stdio, [mut stdout, _stderr]) = pipes();
    let mut joined = running.begin(process, None, stdio).unwrap();
    let mut said = String::new();
    stdout.read_to_string(&mut said).unwrap();
    assert_eq!(status_of(&joined), 0);
    joined.cleanup();
    // proc_pid_stat(5): the policy is the 41st.
    let fields: Vec<_> = said.rsplit_once(')').unwrap().1.split_whitespace().collect();
    assert_eq!(fields[41 - 3], "5", "{said}");
}

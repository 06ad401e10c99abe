// SPDX-License-Identifier: Apache-2.0
//! The default seccomp profile: which system calls an ordinary container needs.
//!
//! It allows what Docker's default allows, so that images behave alike. What
//! is not listed answers EPERM, what is newer than the shim's tables ENOSYS.
//! The shim compiles it; here it is data.

mod profile;

use oci_spec::runtime::{
    Arch, Capability, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompOperator as Op, LinuxSyscall,
};

pub use profile::{KernelVersion, Profile, decode, kernel_version};

/// Allowed to every container.
const ALWAYS: &str = "\
    accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32
    clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
    clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
    epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64
    fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl
    fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64
    fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait
    futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64
    getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername
    getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32
    getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr
    getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy
    io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set ipc
    kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link
    linkat listen listmount listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat
    lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod
    mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive
    mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv
    msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat _newselect open openat
    openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll
    ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv
    process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readlink
    readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr
    removexattrat rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending
    rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
    rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr
    sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64
    sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl
    semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto
    set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid
    setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid
    setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32
    setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask
    sigreturn socketcall socketpair splice stat stat64 statfs statfs64 statmount statx symlink symlinkat
    sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun
    timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime
    timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask
    uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid
    waitpid write writev
";

/// Allowed on x86 only: thread-local storage and segments.
const X86: &str = "arch_prctl modify_ldt";

/// Allowed on Arm only.
const ARM: &str = "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2";

/// Allowed with a capability. What needs one and isn't here is in `ALWAYS`:
/// the kernel checks the capability itself.
const WITH_CAPABILITY: [(Capability, &str); 13] = [
    (Capability::DacReadSearch, "open_by_handle_at"),
    (
        Capability::SysAdmin,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr \
         lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open \
         quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    (Capability::SysBoot, "reboot"),
    (Capability::SysChroot, "chroot"),
    (Capability::SysModule, "delete_module finit_module init_module"),
    (Capability::SysPacct, "acct"),
    (Capability::SysPtrace, "kcmp pidfd_getfd process_madvise"),
    (Capability::SysRawio, "ioperm iopl"),
    (Capability::SysTime, "clock_settime clock_settime64 settimeofday stime"),
    (Capability::SysTtyConfig, "vhangup"),
    (Capability::SysNice, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (Capability::Bpf, "bpf"),
    (Capability::Perfmon, "perf_event_open"),
];

/// Address families that a socket may have, first and last. Left out are
/// those that unprivileged code has no use for and exploits have had: AF_ALG
/// (38), AF_VSOCK (40), and families without a user.
const SOCKET_FAMILIES: [(u64, u64); 8] =
    [(0, 11), (13, 18), (21, 22), (24, 24), (26, 33), (35, 36), (39, 39), (41, 45)];

/// personality(2) values: PER_LINUX, PER_LINUX32, both with UNAME26, and the
/// query.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// CLONE_NEW*, all of them but CLONE_NEWTIME (which clone(2) can't take).
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// The profile for a container with these capabilities.
#[must_use]
pub fn default_profile(capabilities: &[Capability]) -> LinuxSeccomp {
    let mut syscalls = vec![allow(ALWAYS, vec![])];
    syscalls.push(allow(if cfg!(target_arch = "aarch64") { ARM } else { X86 }, vec![]));
    for (first, last) in SOCKET_FAMILIES {
        syscalls.extend(families(first, last));
    }
    syscalls.extend(PERSONALITIES.map(|p| allow("personality", vec![argument(0, Op::ScmpCmpEq, p, None)])));
    for (capability, names) in WITH_CAPABILITY {
        if capabilities.contains(&capability) {
            syscalls.push(allow(names, vec![]));
        }
    }
    if !capabilities.contains(&Capability::SysAdmin) {
        let no_namespaces = argument(0, Op::ScmpCmpMaskedEq, CLONE_NAMESPACES, Some(0));
        syscalls.push(allow("clone", vec![no_namespaces]));
        // Its flags are behind a pointer, where a filter can't look: with
        // ENOSYS the C library falls back to clone.
        let mut clone3 = rule("clone3", Action::ScmpActErrno, vec![]);
        clone3.set_errno_ret(Some(libc::ENOSYS.unsigned_abs()));
        syscalls.push(clone3);
    }
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(Action::ScmpActErrno)
        .set_default_errno_ret(Some(libc::EPERM.unsigned_abs()))
        .set_architectures(Some(architectures()))
        .set_syscalls(Some(syscalls));
    profile
}

/// Every architecture whose calls a process on this CPU can make.
fn architectures() -> Vec<Arch> {
    if cfg!(target_arch = "aarch64") {
        vec![Arch::ScmpArchAarch64]
    } else {
        vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32]
    }
}

/// The families from `first` to `last`: one rule for a range from 0, one for
/// each family otherwise, since two conditions on one argument would be
/// alternatives.
fn families(first: u64, last: u64) -> Vec<LinuxSyscall> {
    if first == 0 {
        return vec![allow("socket", vec![argument(0, Op::ScmpCmpLe, last, None)])];
    }
    (first..=last).map(|f| allow("socket", vec![argument(0, Op::ScmpCmpEq, f, None)])).collect()
}

fn allow(names: &str, args: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    rule(names, Action::ScmpActAllow, args)
}

fn rule(names: &str, action: Action, args: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names.split_whitespace().map(str::to_owned).collect()).set_action(action);
    if !args.is_empty() {
        rule.set_args(Some(args));
    }
    rule
}

fn argument(index: usize, op: Op, value: u64, value_two: Option<u64>) -> LinuxSeccompArg {
    let mut argument = LinuxSeccompArgBuilder::default().index(index).op(op).value(value);
    if let Some(value_two) = value_two {
        argument = argument.value_two(value_two);
    }
    argument.build().expect("every required field is set")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn unconditional(profile: &LinuxSeccomp) -> HashSet<String> {
        profile
            .syscalls()
            .iter()
            .flatten()
            .filter(|rule| rule.action() == Action::ScmpActAllow && rule.args().is_none())
            .flat_map(|rule| rule.names().clone())
            .collect()
    }

    #[test]
    fn the_ways_to_the_kernel_are_closed() {
        let allowed = unconditional(&default_profile(&[Capability::Chown, Capability::SysChroot]));
        for closed in [
            "unshare",
            "setns",
            "mount",
            "fsopen",
            "bpf",
            "perf_event_open",
            "userfaultfd",
            "io_uring_setup",
            "keyctl",
            "add_key",
            "request_key",
            "kexec_load",
            "open_by_handle_at",
            "init_module",
            "clone",
            "clone3",
            "socket",
            "personality",
            "swapon",
            "reboot",
            "iopl",
            "settimeofday",
        ] {
            assert!(!allowed.contains(closed), "{closed}");
        }
        for open in ["read", "execve", "openat2", "chroot", "seccomp", "statx", "rseq"] {
            assert!(allowed.contains(open), "{open}");
        }
    }

    #[test]
    fn a_capability_opens_its_calls() {
        let allowed = unconditional(&default_profile(&[Capability::SysAdmin]));
        for open in ["clone", "clone3", "mount", "unshare"] {
            assert!(allowed.contains(open), "{open}");
        }
        assert!(!allowed.contains("chroot"));
    }

    /// The shim's tests hold these files against libseccomp, where this code
    /// is out of reach. `BERTH_BLESS=1` writes them anew.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_profiles_are_those_that_were_compared() {
        let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
        let all: Vec<_> = WITH_CAPABILITY.iter().map(|(capability, _)| *capability).collect();
        let usual = crate::domain::spec::capabilities::resolve(&[], &[]).expect("Docker's");
        for (file, capabilities) in [("seccomp-default.json", usual), ("seccomp-all-capabilities.json", all)]
        {
            let text = serde_json::to_string_pretty(&default_profile(&capabilities)).expect("JSON") + "\n";
            if std::env::var_os("BERTH_BLESS").is_some() {
                std::fs::write(golden.join(file), &text).expect("write");
            }
            assert_eq!(std::fs::read_to_string(golden.join(file)).expect(file), text, "{file}");
        }
    }

    #[test]
    fn no_name_stands_twice() {
        let names: Vec<_> = ALWAYS.split_whitespace().collect();
        let set: HashSet<_> = names.iter().collect();
        assert_eq!(names.len(), set.len());
        assert!(names.len() > 350, "{}", names.len());
    }
}

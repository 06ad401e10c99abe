// SPDX-License-Identifier: Apache-2.0
//! Processes as procfs shows them: proc_pid_stat(5). Read by pid: one that has
//! ended since is simply not there.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    time::SystemTime,
};

use nix::unistd::{SysconfVar, sysconf};

use super::host;
use crate::domain::ps::{Host, Process};

/// So many bytes of a command line are shown: a container's processes can have
/// megabytes of them each (execve(2), "Limits on size of arguments").
const MAX_COMMAND_LINE: u64 = 32 << 10;

/// The process `pid`; `None` when it has ended.
///
/// # Errors
/// Those of procfs.
pub fn read(pid: u32) -> io::Result<Option<Process>> {
    match look(pid) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(None),
        found => found.map(Some),
    }
}

fn look(pid: u32) -> io::Result<Process> {
    let dir = PathBuf::from(format!("/proc/{pid}"));
    // Its files belong to its effective user, unless it may not be looked at.
    let uid = fs::metadata(&dir)?.uid();
    let stat = fs::read(dir.join("stat"))?;
    let mut command_line = Vec::new();
    File::open(dir.join("cmdline"))?.take(MAX_COMMAND_LINE).read_to_end(&mut command_line)?;
    let words: Vec<_> = command_line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let command_line = words.join(" ").trim_end().to_owned();
    let page = u64::try_from(sysconf(SysconfVar::PAGE_SIZE)?.unwrap_or(4096)).unwrap_or(4096);
    let parsed = parse(&String::from_utf8_lossy(&stat), page);
    let process = parsed.ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat is malformed")))?;
    Ok(Process { pid, uid, command_line, ..process })
}

/// The name stands in parentheses and may hold any other.
fn parse(stat: &str, page: u64) -> Option<Process> {
    let (head, tail) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let fields: Vec<&str> = tail.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<i64>().ok();
    let unsigned = |at: usize| number(at).map(i64::unsigned_abs);
    let small = |at: usize| number(at).and_then(|n| u32::try_from(n).ok());
    Some(Process {
        name: name.to_owned(),
        state: fields.first()?.chars().next()?,
        ppid: small(1)?,
        group: small(2)?,
        session: small(3)?,
        terminal: small(4)?,
        foreground: number(5)?,
        cpu: unsigned(11)?.saturating_add(unsigned(12)?),
        nice: number(16).and_then(|n| i32::try_from(n).ok())?,
        threads: small(17)?,
        started: unsigned(19)?,
        virtual_size: fields.get(20)?.parse().ok()?,
        resident: unsigned(21)?.saturating_mul(page),
        ..Process::default()
    })
}

/// Whether the process `pid` has been killed or is ending, which can take it
/// seconds when it is in the middle of something. Not for one that isn't there.
///
/// # Errors
/// Those of procfs.
pub fn is_dying(pid: u32) -> io::Result<bool> {
    // Linux: include/linux/sched.h.
    const PF_EXITING: u64 = 4;
    let stat = fs::read(format!("/proc/{pid}/stat"))?;
    let stat = String::from_utf8_lossy(&stat);
    let flags =
        stat.rsplit_once(')').and_then(|(_, tail)| tail.split_whitespace().nth(6)?.parse::<u64>().ok());
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kill = 1_u64 << (libc::SIGKILL - 1);
    let killed = status.lines().filter_map(|line| {
        let signals = line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:"))?;
        u64::from_str_radix(signals.trim(), 16).ok()
    });
    let killed = killed.fold(0, |all, signals| all | signals) & kill != 0;
    Ok(killed || flags.is_some_and(|flags| flags & PF_EXITING != 0))
}

/// What the host says about times, sizes and names.
///
/// # Errors
/// Those of procfs.
pub fn host() -> io::Result<Host> {
    let ticks = u64::try_from(sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100)).unwrap_or(100);
    let stat = fs::read_to_string("/proc/stat")?;
    let booted = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok());
    let booted = booted.ok_or_else(|| io::Error::other("/proc/stat has no btime"))?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok(Host {
        ticks,
        uptime: uptime(ticks).ok_or_else(|| io::Error::other("/proc/uptime is malformed"))?,
        booted,
        now: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
        memory: host::memory()?,
        // Without the file there are numbers.
        users: fs::read_to_string("/etc/passwd").map(|text| users(&text)).unwrap_or_default(),
    })
}

/// Ticks, of a file that has seconds with two places.
fn uptime(ticks: u64) -> Option<u64> {
    let text = fs::read_to_string("/proc/uptime").ok()?;
    let (seconds, hundredths) = text.split_whitespace().next()?.split_once('.')?;
    let seconds: u64 = seconds.parse().ok()?;
    Some(seconds * ticks + hundredths.parse::<u64>().ok()? * ticks / 100)
}

/// The first name of each number: passwd(5).
fn users(passwd: &str) -> HashMap<u32, String> {
    let mut users = HashMap::new();
    for line in passwd.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(uid)) = (fields.next(), fields.nth(1).and_then(|uid| uid.parse().ok())) {
            users.entry(uid).or_insert_with(|| name.to_owned());
        }
    }
    users
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_parentheses_and_blanks() {
        let stat = "7 (a) (b c)) S 1 7 7 34816 7 4194304 1 2 3 4 50 60 0 0 20 -5 3 0 900 4096 2 184 0";
        let process = parse(stat, 4096).expect("well formed");
        assert_eq!((process.name.as_str(), process.state), ("a) (b c)", 'S'));
        assert_eq!((process.cpu, process.nice, process.threads, process.started), (110, -5, 3, 900));
        assert_eq!((process.virtual_size, process.resident), (4096, 8192));
        assert_eq!(parse("7 (x", 1), None);
        assert_eq!(parse("7 (x) S 1", 1), None);
    }

    #[test]
    fn we_are_there_and_a_pid_that_nobody_has_is_not() {
        let us = read(std::process::id()).expect("procfs").expect("we run");
        assert!(us.pid == std::process::id() && us.resident > 0 && !us.command_line.is_empty());
        assert!(us.uid == nix::unistd::geteuid().as_raw() && us.threads > 0);
        assert_eq!(read(u32::MAX - 1).expect("procfs"), None);
        let host = host().expect("procfs");
        assert!(host.uptime >= us.started && host.booted < host.now);
        assert_eq!(users("a:x:1:2\nb:x:1:\nbad\n"), [(1, "a".to_owned())].into());
    }

    #[test]
    fn who_was_killed_is_dying_until_it_is_reaped() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().expect("a process");
        assert!(!is_dying(child.id()).expect("procfs"));
        child.kill().expect("kill");
        assert!(is_dying(child.id()).expect("procfs"));
        child.wait().expect("its end");
        is_dying(child.id()).expect_err("nobody");
    }

    #[test]
    fn a_long_command_line_is_cut() {
        let long = "x".repeat(100_000);
        let mut child = std::process::Command::new("sh")
            .args(["-c", "echo; read line", &long])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("a shell");
        // The spawn is told of the exec before the new arguments are in place.
        let mut started = [0];
        child.stdout.as_mut().expect("a pipe").read_exact(&mut started).expect("a line");
        let read = read(child.id()).expect("procfs").expect("it runs");
        drop(child.stdin.take());
        child.wait().expect("its end");
        assert_eq!(read.command_line.len() as u64, MAX_COMMAND_LINE);
    }
}

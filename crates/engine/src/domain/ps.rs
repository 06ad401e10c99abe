// SPDX-License-Identifier: Apache-2.0
//! `berth top`: ps(1) without ps. Which columns its options ask for, and what
//! stands in them. Pure; procfs is read by the kernel layer.

use std::collections::HashMap;

use jiff::{Timestamp, tz::TimeZone};

use crate::error::{Error, Kind, Result};

/// A process, as procfs shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Process {
    /// In the engine's pid namespace, as all pids here.
    pub pid: u32,
    /// Its parent.
    pub ppid: u32,
    /// Its process group.
    pub group: u32,
    /// Its session.
    pub session: u32,
    /// Its terminal's device number; 0 is none.
    pub terminal: u32,
    /// The terminal's process group in the foreground; -1 is none.
    pub foreground: i64,
    /// `R`, `S`, `D`, …
    pub state: char,
    /// Ticks of CPU, in user mode and in the kernel.
    pub cpu: u64,
    /// -20 to 19.
    pub nice: i32,
    /// Threads.
    pub threads: u32,
    /// Ticks from the host's start to its own.
    pub started: u64,
    /// Bytes of its address space.
    pub virtual_size: u64,
    /// Bytes of it in memory.
    pub resident: u64,
    /// Effective user.
    pub uid: u32,
    /// Name of its program.
    pub name: String,
    /// Its arguments in one line; empty for a thread of the kernel.
    pub command_line: String,
}

/// What the host says about times, sizes and names.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// Ticks in a second.
    pub ticks: u64,
    /// Ticks since its start.
    pub uptime: u64,
    /// Seconds from the Unix epoch to its start.
    pub booted: i64,
    /// Seconds since the Unix epoch.
    pub now: i64,
    /// Bytes of memory.
    pub memory: u64,
    /// Names of users.
    pub users: HashMap<u32, String>,
}

/// A table: titles, and as many values in each row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Of the columns.
    pub titles: Vec<String>,
    /// Of the processes.
    pub rows: Vec<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Pid,
    Ppid,
    Group,
    Session,
    Uid,
    User,
    Name,
    Command,
    State,
    Status,
    Terminal,
    Time,
    BsdTime,
    Elapsed,
    ElapsedSeconds,
    Started,
    Cpu,
    CpuShare,
    MemoryShare,
    VirtualSize,
    Resident,
    Nice,
    Threads,
}

/// Names that `-o` takes, the title of the column, and what stands in it.
const FIELDS: [(&[&str], &str, Field); 23] = [
    (&["pid", "tgid"], "PID", Field::Pid),
    (&["ppid"], "PPID", Field::Ppid),
    (&["pgid", "pgrp"], "PGID", Field::Group),
    (&["sid", "sess", "session"], "SID", Field::Session),
    (&["uid", "euid"], "UID", Field::Uid),
    (&["user", "euser", "uname"], "USER", Field::User),
    (&["comm", "ucmd", "ucomm"], "COMMAND", Field::Name),
    (&["args", "cmd", "command"], "COMMAND", Field::Command),
    (&["s", "state"], "S", Field::State),
    (&["stat"], "STAT", Field::Status),
    (&["tty", "tname", "tt"], "TTY", Field::Terminal),
    (&["time", "cputime"], "TIME", Field::Time),
    (&["bsdtime"], "TIME", Field::BsdTime),
    (&["etime"], "ELAPSED", Field::Elapsed),
    (&["etimes"], "ELAPSED", Field::ElapsedSeconds),
    (&["stime", "start", "start_time"], "STIME", Field::Started),
    (&["c"], "C", Field::Cpu),
    (&["pcpu", "%cpu"], "%CPU", Field::CpuShare),
    (&["pmem", "%mem"], "%MEM", Field::MemoryShare),
    (&["vsz", "vsize"], "VSZ", Field::VirtualSize),
    (&["rss", "rssize", "rsz"], "RSS", Field::Resident),
    (&["ni", "nice"], "NI", Field::Nice),
    (&["nlwp", "thcount"], "NLWP", Field::Threads),
];

type Column = (&'static str, Field);

const FULL: [Column; 8] = [
    ("UID", Field::User),
    ("PID", Field::Pid),
    ("PPID", Field::Ppid),
    ("C", Field::Cpu),
    ("STIME", Field::Started),
    ("TTY", Field::Terminal),
    ("TIME", Field::Time),
    ("CMD", Field::Command),
];
const USER: [Column; 11] = [
    ("USER", Field::User),
    ("PID", Field::Pid),
    ("%CPU", Field::CpuShare),
    ("%MEM", Field::MemoryShare),
    ("VSZ", Field::VirtualSize),
    ("RSS", Field::Resident),
    ("TTY", Field::Terminal),
    ("STAT", Field::Status),
    ("START", Field::Started),
    ("TIME", Field::BsdTime),
    ("COMMAND", Field::Command),
];
const SHORT: [Column; 4] =
    [("PID", Field::Pid), ("TTY", Field::Terminal), ("TIME", Field::Time), ("CMD", Field::Name)];
const BSD: [Column; 5] = [
    ("PID", Field::Pid),
    ("TTY", Field::Terminal),
    ("STAT", Field::Status),
    ("TIME", Field::BsdTime),
    ("COMMAND", Field::Command),
];

/// The columns of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns(Vec<Column>);

impl Columns {
    /// Those that options of ps ask for; none are `-ef`, as Docker has it. The
    /// choice of processes among them is passed over: they are the container's.
    ///
    /// # Errors
    /// `InvalidArgument` for an option or a column that isn't known.
    pub fn parse(args: &[String]) -> Result<Self> {
        if args.is_empty() {
            return Ok(Self(FULL.to_vec()));
        }
        let mut chosen: Vec<Column> = Vec::new();
        let mut format: &[Column] = &SHORT;
        let mut words = args.iter();
        while let Some(word) = words.next() {
            let (dash, letters) = word.strip_prefix('-').map_or((false, word.as_str()), |rest| (true, rest));
            // `-aux` is common, although it means something else.
            let everybody = letters.contains('a') && letters.contains('x');
            if letters.is_empty() {
                return Err(unknown(word));
            }
            for (at, letter) in letters.char_indices() {
                match letter {
                    'e' | 'A' | 'w' if dash || letter == 'w' => {}
                    'a' | 'x' if dash => {}
                    'a' | 'x' if format == SHORT => format = &BSD,
                    'a' | 'x' => {}
                    'f' if dash => format = &FULL,
                    'u' if !dash || everybody => format = &USER,
                    'o' => {
                        let rest = &letters[at + 1..];
                        let list =
                            if rest.is_empty() { words.next().map_or("", String::as_str) } else { rest };
                        chosen.extend(list.split([',', ' ']).map(column).collect::<Result<Vec<_>>>()?);
                        break;
                    }
                    _ => return Err(unknown(word)),
                }
            }
        }
        Ok(Self(if chosen.is_empty() { format.to_vec() } else { chosen }))
    }

    /// The table of `processes`.
    #[must_use]
    pub fn table(&self, processes: &[Process], host: &Host) -> Table {
        let row = |process: &Process| self.0.iter().map(|(_, field)| value(*field, process, host)).collect();
        Table {
            titles: self.0.iter().map(|(title, _)| (*title).to_owned()).collect(),
            rows: processes.iter().map(row).collect(),
        }
    }
}

fn column(name: &str) -> Result<Column> {
    let found = FIELDS.iter().find(|(names, ..)| names.contains(&name.to_ascii_lowercase().as_str()));
    found.map(|(_, title, field)| (*title, *field)).ok_or_else(|| {
        let known: Vec<_> = FIELDS.iter().map(|(names, ..)| names[0]).collect();
        let what = format!("ps: unknown column {name:?}: there are {}", known.join(" "));
        Error::new(Kind::InvalidArgument, what)
    })
}

fn unknown(option: &str) -> Error {
    let what = format!("ps: option {option:?} is not known here: there are -ef, aux and -o COLUMN,COLUMN…");
    Error::new(Kind::InvalidArgument, what)
}

fn value(field: Field, process: &Process, host: &Host) -> String {
    let seconds = process.cpu / host.ticks.max(1);
    let elapsed = host.uptime.saturating_sub(process.started) / host.ticks.max(1);
    match field {
        Field::Pid => process.pid.to_string(),
        Field::Ppid => process.ppid.to_string(),
        Field::Group => process.group.to_string(),
        Field::Session => process.session.to_string(),
        Field::Uid => process.uid.to_string(),
        Field::User => user(process.uid, host),
        Field::Name => process.name.clone(),
        Field::Command if process.command_line.is_empty() => format!("[{}]", process.name),
        Field::Command => process.command_line.clone(),
        Field::State => process.state.to_string(),
        Field::Status => status(process),
        Field::Terminal => terminal(process.terminal),
        Field::Time => clock(seconds),
        Field::BsdTime => format!("{}:{:02}", seconds / 60, seconds % 60),
        Field::Elapsed => elapsed_clock(elapsed),
        Field::ElapsedSeconds => elapsed.to_string(),
        Field::Started => started(process, host),
        Field::Cpu => (permille(process.cpu, host.uptime.saturating_sub(process.started)) / 10).to_string(),
        Field::CpuShare => tenths(permille(process.cpu, host.uptime.saturating_sub(process.started))),
        Field::MemoryShare => tenths(permille(process.resident, host.memory)),
        Field::VirtualSize => (process.virtual_size / 1024).to_string(),
        Field::Resident => (process.resident / 1024).to_string(),
        Field::Nice => process.nice.to_string(),
        Field::Threads => process.threads.to_string(),
    }
}

fn permille(part: u64, whole: u64) -> u64 {
    part.saturating_mul(1000) / whole.max(1)
}

fn tenths(permille: u64) -> String {
    format!("{}.{}", permille / 10, permille % 10)
}

/// A name of more than eight letters is cut, as ps does it.
fn user(uid: u32, host: &Host) -> String {
    match host.users.get(&uid) {
        None => uid.to_string(),
        Some(name) if name.chars().count() > 8 => name.chars().take(7).chain(['+']).collect(),
        Some(name) => name.clone(),
    }
}

fn status(process: &Process) -> String {
    let mut text = String::from(process.state);
    match process.nice {
        ..0 => text.push('<'),
        1.. => text.push('N'),
        0 => {}
    }
    if process.session == process.pid {
        text.push('s');
    }
    if process.threads > 1 {
        text.push('l');
    }
    if process.terminal != 0 && i64::from(process.group) == process.foreground {
        text.push('+');
    }
    text
}

/// By the kernel's list of device numbers: 136 to 143 are pseudo-terminals, 4
/// is the console's.
fn terminal(device: u32) -> String {
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xf_ff00));
    match major {
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 if minor < 64 => format!("tty{minor}"),
        4 => format!("ttyS{}", minor - 64),
        _ => "?".to_owned(),
    }
}

/// `[days-]hours:minutes:seconds`.
fn clock(seconds: u64) -> String {
    let (days, hours) = (seconds / 86400, seconds / 3600 % 24);
    let days = if days > 0 { format!("{days}-") } else { String::new() };
    format!("{days}{hours:02}:{:02}:{:02}", seconds / 60 % 60, seconds % 60)
}

/// The same without hours where there are none.
fn elapsed_clock(seconds: u64) -> String {
    if seconds < 3600 { format!("{:02}:{:02}", seconds / 60, seconds % 60) } else { clock(seconds) }
}

/// The time of one that started within a day, the day of one of this year.
fn started(process: &Process, host: &Host) -> String {
    let seconds = i64::try_from(process.started / host.ticks.max(1)).unwrap_or(i64::MAX);
    let at = host.booted.saturating_add(seconds);
    let zone = TimeZone::system();
    let (Ok(then), Ok(now)) = (Timestamp::from_second(at), Timestamp::from_second(host.now)) else {
        return "?".to_owned();
    };
    let (then, now) = (then.to_zoned(zone.clone()), now.to_zoned(zone));
    let format = match (host.now.saturating_sub(at) < 86400, then.year() == now.year()) {
        (true, _) => "%H:%M",
        (false, true) => "%b%d",
        (false, false) => "%Y",
    };
    then.strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(args: &[&str]) -> Result<Columns> {
        Columns::parse(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
    }

    fn titles(args: &[&str]) -> String {
        columns(args).expect("known").table(&[], &Host::default()).titles.join(" ")
    }

    #[test]
    fn options_choose_columns() {
        let full = "UID PID PPID C STIME TTY TIME CMD";
        let user = "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND";
        for (args, wanted) in [
            (&[][..], full),
            (&["-ef"], full),
            (&["-e", "-f"], full),
            (&["aux"], user),
            (&["-aux"], user),
            (&["auxww"], user),
            (&["-e"], "PID TTY TIME CMD"),
            (&["ax"], "PID TTY STAT TIME COMMAND"),
            (&["-o", "pid,comm"], "PID COMMAND"),
            (&["-eo", "pid,%cpu", "-onice"], "PID %CPU NI"),
            (&["axo", "user args"], "USER COMMAND"),
        ] {
            assert_eq!(titles(args), wanted, "{args:?}");
        }
    }

    #[test]
    fn what_is_not_known_is_named() {
        for (args, named) in [
            (&["-u", "root"][..], "-u"),
            (&["--forest"], "--forest"),
            (&["-o", "pid,wchan"], "wchan"),
            (&["-o"], "\"\""),
            (&["-"], "-"),
            (&[""], "\"\""),
            (&["-o", "pid=X"], "pid=X"),
        ] {
            let error = columns(args).expect_err("not known");
            assert_eq!(error.kind(), Kind::InvalidArgument);
            assert!(error.to_string().contains(named), "{error}");
        }
    }

    #[test]
    fn values_are_those_of_ps() {
        let host = Host {
            ticks: 100,
            uptime: 20_000_000,
            booted: 1_000_000_000,
            now: 1_000_200_000,
            memory: 1 << 30,
            users: [(0, "root".to_owned()), (7, "longusername".to_owned())].into(),
        };
        let process = Process {
            pid: 12,
            session: 12,
            group: 12,
            foreground: 12,
            terminal: 136 << 8 | 3,
            state: 'S',
            cpu: 9_000_000,
            nice: -5,
            threads: 4,
            started: 2_000_000,
            resident: 1 << 28,
            virtual_size: 3 << 20,
            name: "web".to_owned(),
            ..Process::default()
        };
        let show = |list: &str| {
            let table = columns(&["-o", list]).expect("known").table(std::slice::from_ref(&process), &host);
            table.rows[0].join(" ")
        };
        assert_eq!(show("pid,user,stat,tty,args"), "12 root S<sl+ pts/3 [web]");
        assert_eq!(show("time,bsdtime,etime,etimes"), "1-01:00:00 1500:00 2-02:00:00 180000");
        assert_eq!(show("c,%cpu,%mem,vsz,rss,ni,nlwp"), "50 50.0 25.0 3072 262144 -5 4");
        assert_eq!(user(7, &host), "longuse+");
        assert_eq!(user(8, &host), "8");
        assert_eq!((clock(59), elapsed_clock(61)), ("00:00:59".to_owned(), "01:01".to_owned()));
    }
}

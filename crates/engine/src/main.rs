// SPDX-License-Identifier: Apache-2.0
//! `berthd`: the command line of the engine. What it does is in `daemon.rs`.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use berth_engine::{
    config::{self, Config, LogFormat, SocketPath},
    daemon::{self, Stopped, logging},
    error::{Context as _, Result},
    kernel::{memory, spawn},
    lifecycle::fsck::{Checked, Depth, Report},
};
use clap::{Args, Parser, Subcommand};

/// The berth container engine.
///
/// Serves the API (berth.v1, gRPC) on a unix socket; `berth` is its command
/// line. Containers don't depend on it: it can be stopped, upgraded and
/// started again while they run.
#[derive(Debug, Parser)]
#[command(name = "berthd", version = concat!(env!("CARGO_PKG_VERSION"), env!("BERTH_BUILD")), disable_help_subcommand = true, args_conflicts_with_subcommands = true)]
#[command(after_help = "Settings come from the configuration file; flags override it.\n\
                        `berthd config default` prints the file with every setting explained.")]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the default configuration, or check one
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Compare metadata, bundles, shims, cgroups, mounts and stores; change nothing
    ///
    /// Prints a line for each disagreement. Works beside a running engine:
    /// what that is about to finish is told as pending and is no finding.
    #[command(after_help = "Exit status: 0 when all agree, 1 with findings, 2 when it couldn't look.")]
    Fsck(Fsck),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the default configuration, with every setting explained
    Default,
    /// Read a configuration file and say what is wrong with it
    Check {
        /// The file
        file: PathBuf,
    },
}

/// What to check, and how it is told.
#[derive(Debug, Args)]
struct Fsck {
    #[command(flatten)]
    places: Places,
    /// Read every blob and compute its digest
    #[arg(long)]
    digests: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Which engine it is.
#[derive(Debug, Args)]
struct Places {
    /// Configuration file [default: /etc/berth/config.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where images, containers and metadata are kept [default: /var/lib/berth]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Where sockets and bundles are kept, until the next boot [default: /run/berth]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Cgroup that holds all containers [default: /berth]
    #[arg(long, value_name = "PATH", value_parser = config::parse_cgroup_parent)]
    cgroup_parent: Option<String>,
}

/// What overrides the file.
#[derive(Debug, Args)]
struct Settings {
    #[command(flatten)]
    places: Places,
    /// Where to listen [default: unix:///run/berth/berth.sock, or berth.sock in --state]
    #[arg(long, value_name = "ADDRESS")]
    address: Option<SocketPath>,
    /// The shim's program [default: berth-shim beside berthd]
    #[arg(long, value_name = "PATH")]
    shim: Option<PathBuf>,
    /// What to log: error, warn, info, debug, trace, or directives by module [default: info]
    #[arg(long, value_name = "LEVEL", env = "BERTH_LOG", value_parser = config::parse_log_level)]
    log_level: Option<String>,
    /// How to log [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

impl Places {
    /// The file's settings, with the flags over them.
    fn config(&self) -> Result<Config> {
        let mut config = Config::load(self.config.as_deref())?;
        if let Some(root) = &self.root {
            config.root = std::path::absolute(root).context("make --root absolute")?;
        }
        if let Some(state) = &self.state {
            config.state = std::path::absolute(state).context("make --state absolute")?;
            // One engine's socket must not be where another's is by default.
            if config.address == Config::default().address {
                config.address = SocketPath::in_dir(&config.state)?;
            }
        }
        if let Some(parent) = &self.cgroup_parent {
            config.containers.cgroup_parent.clone_from(parent);
        }
        Ok(config)
    }
}

impl Settings {
    /// The file's settings, with the flags over them.
    fn config(&self) -> Result<Config> {
        let mut config = self.places.config()?;
        if let Some(address) = &self.address {
            config.address = address.clone();
        }
        if let Some(shim) = &self.shim {
            config.shim = Some(std::path::absolute(shim).context("make --shim absolute")?);
        }
        if let Some(level) = &self.log_level {
            config.log.level.clone_from(level);
        }
        if let Some(format) = self.log_format {
            config.log.format = format;
        }
        config.validate()?;
        Ok(config)
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.command {
        None => serve(cli.settings),
        Some(Command::Fsck(fsck)) => return check(fsck),
        Some(Command::Config(ConfigCommand::Default)) => print(config::DEFAULT_TEXT),
        Some(Command::Config(ConfigCommand::Check { file })) => Config::load(Some(file))
            .and_then(|config| config.validate())
            .and_then(|()| print(&format!("{}: ok\n", file.display()))),
    };
    done.unwrap_or_else(|e| {
        eprintln!("berthd: {}", e.chain());
        ExitCode::FAILURE
    })
}

fn serve(settings: Settings) -> Result<ExitCode> {
    memory::keep_little();
    spawn::keep_descriptors().context("mark inherited descriptors close-on-exec")?;
    let config = settings.config()?;
    let logging = logging::start(&config.log, Box::new(move || settings.config()))?;
    Ok(match daemon::run(&config, &logging)? {
        Stopped::Gracefully => ExitCode::SUCCESS,
        // As a shell has it for a program that SIGTERM ended.
        Stopped::AtOnce => ExitCode::from(128 + 15),
    })
}

fn check(fsck: &Fsck) -> ExitCode {
    const COULD_NOT_LOOK: u8 = 2;
    let depth = if fsck.digests { Depth::Digests } else { Depth::Sizes };
    let told = fsck.places.config().and_then(|config| {
        let report = daemon::check(&config, depth)?;
        print(&if fsck.json { json(&report)? } else { lines(&report) })?;
        Ok(if report.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    });
    told.unwrap_or_else(|e| {
        eprintln!("berthd: {}", e.chain());
        ExitCode::from(COULD_NOT_LOOK)
    })
}

fn json(report: &Report) -> Result<String> {
    let text = serde_json::to_string_pretty(report).context("encode what was found")?;
    Ok(format!("{text}\n"))
}

fn lines(report: &Report) -> String {
    let findings = report.findings.iter().map(|finding| format!("{finding}\n"));
    let pending = report.pending.iter().map(|pending| format!("pending: {pending}\n"));
    let Checked { containers, shims, cgroups, images, blobs, snapshots } = report.checked;
    let summary = format!(
        "{} findings, {} pending; looked at {containers} containers, {shims} shims, {cgroups} cgroups, \
         {images} images, {blobs} blobs, {snapshots} snapshots\n",
        report.findings.len(),
        report.pending.len(),
    );
    findings.chain(pending).chain([summary]).collect()
}

fn print(text: &str) -> Result<ExitCode> {
    io::stdout().write_all(text.as_bytes()).context("write to standard output")?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_override_the_file() {
        let dir = tempfile::tempdir().expect("tempdir");
        let file = dir.path().join("config.toml");
        std::fs::write(&file, "root = \"/file\"\nworkers = 3\n[log]\nlevel = \"warn\"\n").expect("write");
        let file = file.to_str().expect("UTF-8");
        let config = |flags: &[&str]| {
            let all = ["berthd", "--config", file].into_iter().chain(flags.iter().copied());
            Cli::try_parse_from(all).expect("flags").settings.config().expect("config")
        };
        let plain = config(&[]);
        assert_eq!((plain.root, plain.workers, plain.log.level.as_str()), ("/file".into(), 3, "warn"));
        let over =
            config(&["--root", "/flag", "--state", "/s", "--log-level", "debug", "--cgroup-parent", "/t"]);
        assert_eq!((over.root, over.log.level.as_str()), ("/flag".into(), "debug"));
        assert_eq!(over.address.to_string(), "unix:///s/berth.sock");
        assert_eq!(over.containers.cgroup_parent, "/t");
        let moved = config(&["--state", "/s", "--address", "unix:///a.sock"]);
        assert_eq!(moved.address.to_string(), "unix:///a.sock");
    }

    #[test]
    fn flags_have_the_rules_of_the_file() {
        for flags in [["--cgroup-parent", "x"], ["--log-level", "loud"], ["--address", "tcp://1.2.3.4:5"]] {
            assert!(Cli::try_parse_from([&["berthd"][..], &flags].concat()).is_err(), "{flags:?}");
        }
    }

    #[test]
    fn the_checker_has_the_places_of_its_engine() {
        let flags = ["berthd", "fsck", "--root", "/r", "--state", "/s", "--cgroup-parent", "/c", "--json"];
        let Some(Command::Fsck(fsck)) = Cli::try_parse_from(flags).expect("flags").command else {
            panic!("no fsck");
        };
        let config = fsck.places.config().expect("config");
        assert!(fsck.json && !fsck.digests);
        assert_eq!((config.root, config.state), ("/r".into(), "/s".into()));
        assert_eq!(config.containers.cgroup_parent, "/c");
        assert!(Cli::try_parse_from(["berthd", "--root", "/r", "fsck"]).is_err(), "it would not count");
    }
}

// SPDX-License-Identifier: Apache-2.0
//! A configuration and its image become what is in force, by Docker's rules.
//!
//! Image data is data (D12): nothing here lets an image choose a log driver,
//! a mount, a device, or a label that the engine interprets.

use std::collections::{BTreeMap, HashMap};

use berth::ids::ContainerId;
use oci_spec::image::{Config as ImageConfig, ImageConfiguration};

use super::{
    container::{Config, Effective, NetworkMode},
    signal,
};
use crate::error::{Error, Kind, Result};

/// PATH of a container whose image sets none.
pub const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Linux's.
const PATH_MAX: usize = 4096;

/// Labels that only the engine may set begin so.
pub const RESERVED_LABEL: &str = "berth.";

/// What is in force, and what had to be left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// What is in force.
    pub effective: Effective,
    /// For the user: parts of the image that are ignored.
    pub warnings: Vec<String>,
}

/// Merges a (valid) configuration and its image. `host_name` is that of whose
/// network it has, or whose names.
///
/// # Errors
/// `InvalidArgument` when there is nothing to run, or the image's data can't
/// be given to a process.
pub fn resolve(
    config: &Config,
    image: &ImageConfiguration,
    id: &ContainerId,
    host_name: &str,
) -> Result<Resolved> {
    let defaults = image.config().clone().unwrap_or_default();
    let mut warnings = Vec::new();
    let hostname = match (config.hostname.as_str(), &config.host.network) {
        ("", _) if config.host.uts_host => host_name.to_owned(),
        ("", NetworkMode::Host | NetworkMode::Container(_)) => host_name.to_owned(),
        ("", NetworkMode::None) => id.short().to_owned(),
        (name, _) => name.to_owned(),
    };
    let effective = Effective {
        args: args(config, &defaults)?,
        env: env(config, &defaults, &hostname, &mut warnings),
        working_dir: working_dir(config, &defaults)?,
        user: pick(&config.user, defaults.user().as_deref()),
        hostname,
        stop_signal: stop_signal(config, &defaults, &mut warnings)?,
        labels: labels(config, &defaults, &mut warnings),
        platform: platform(image),
        // The caller's, who has the image's.
        health: None,
        // Chosen when the container is recorded.
        id_maps: Vec::new(),
    };
    refuse_bad(&effective)?;
    Ok(Resolved { effective, warnings })
}

fn pick(own: &str, image: Option<&str>) -> String {
    if own.is_empty() { image.unwrap_or_default().to_owned() } else { own.to_owned() }
}

/// Entrypoint and Cmd: a given entrypoint makes the image's Cmd meaningless,
/// and one of nothing is none.
fn args(config: &Config, image: &ImageConfig) -> Result<Vec<String>> {
    let own = config.entrypoint.as_ref().or(image.entrypoint().as_ref());
    let mut args = match own {
        Some(entrypoint) if !entrypoint.iter().all(String::is_empty) => entrypoint.clone(),
        _ => Vec::new(),
    };
    if !config.command.is_empty() {
        args.extend_from_slice(&config.command);
    } else if config.entrypoint.is_none() {
        args.extend(image.cmd().clone().unwrap_or_default());
    }
    if args.is_empty() {
        return Err(Error::new(Kind::InvalidArgument, "No command specified"));
    }
    Ok(args)
}

fn env(config: &Config, image: &ImageConfig, hostname: &str, warnings: &mut Vec<String>) -> Vec<String> {
    let mut env = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if config.tty {
        env.push("TERM=xterm".to_owned());
    }
    let sound = |entry: &&String| !entry.starts_with('=') && entry.contains('=') && !entry.contains('\0');
    let (entries, others): (Vec<_>, Vec<_>) = image.env().iter().flatten().partition(sound);
    warn(warnings, &others, |entry| format!("the image's environment entry {} is ignored", shown(entry)));
    change(&mut env, entries);
    change(&mut env, &config.env);
    env
}

/// Of an image's data that are ignored so many are told; the rest is counted.
const TOLD: usize = 3;

fn warn(warnings: &mut Vec<String>, ignored: &[&String], words: impl Fn(&str) -> String) {
    warnings.extend(ignored.iter().take(TOLD).map(|one| words(one)));
    if let Some(more) = ignored.len().checked_sub(TOLD).filter(|more| *more > 0) {
        warnings.push(format!("and {more} more of that kind"));
    }
}

/// The beginning of an image's text, quoted.
fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(100).collect::<String>())
}

/// What the user says of the environment: `NAME=value` sets, `NAME` removes.
pub fn change<'a>(env: &mut Vec<String>, changes: impl IntoIterator<Item = &'a String>) {
    // By name: images with a hundred thousand entries exist to be a nuisance.
    let mut places: HashMap<String, Vec<usize>> = HashMap::new();
    for (at, entry) in env.iter().enumerate() {
        places.entry(name_of(entry).to_owned()).or_default().push(at);
    }
    let mut entries: Vec<Option<String>> = std::mem::take(env).into_iter().map(Some).collect();
    for entry in changes {
        match (entry.contains('='), places.get(name_of(entry)).and_then(|all| all.first())) {
            (true, Some(at)) => entries[*at] = Some(entry.clone()),
            (true, None) => {
                places.insert(name_of(entry).to_owned(), vec![entries.len()]);
                entries.push(Some(entry.clone()));
            }
            (false, _) => {
                places.remove(entry).into_iter().flatten().for_each(|at| entries[at] = None);
            }
        }
    }
    *env = entries.into_iter().flatten().collect();
}

fn name_of(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

fn working_dir(config: &Config, image: &ImageConfig) -> Result<String> {
    let dir = pick(&config.working_dir, image.working_dir().as_deref());
    match dir.as_str() {
        "" => Ok("/".to_owned()),
        absolute if absolute.starts_with('/') => Ok(dir),
        _ => Err(Error::new(
            Kind::InvalidArgument,
            format!("the working directory '{dir}' is invalid, it needs to be an absolute path"),
        )),
    }
}

fn stop_signal(config: &Config, image: &ImageConfig, warnings: &mut Vec<String>) -> Result<i32> {
    if !config.stop_signal.is_empty() {
        return signal::parse(&config.stop_signal);
    }
    match image.stop_signal().as_deref() {
        None | Some("") => Ok(libc::SIGTERM),
        Some(text) => Ok(signal::parse(text).unwrap_or_else(|_| {
            warnings
                .push(format!("the image's stop signal {} is not a signal, SIGTERM is used", shown(text)));
            libc::SIGTERM
        })),
    }
}

fn labels(config: &Config, image: &ImageConfig, warnings: &mut Vec<String>) -> BTreeMap<String, String> {
    let (reserved, own): (Vec<_>, Vec<_>) =
        image.labels().iter().flatten().partition(|(name, _)| name.starts_with(RESERVED_LABEL));
    let reserved: Vec<_> = reserved.into_iter().map(|(name, _)| name).collect();
    warn(warnings, &reserved, |name| {
        format!("the image's label {} is ignored: {RESERVED_LABEL}* is the engine's", shown(name))
    });
    let mut labels: BTreeMap<_, _> =
        own.into_iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    labels.extend(config.labels.clone());
    labels
}

fn platform(image: &ImageConfiguration) -> String {
    let variant = image.variant().as_deref().filter(|v| !v.is_empty());
    format!("{}/{}{}", image.os(), image.architecture(), variant.map_or(String::new(), |v| format!("/{v}")))
}

/// execve(2) ends a string at NUL: one inside would change its meaning. No path
/// is longer than PATH_MAX, and nobody's name: what an image says is in messages.
fn refuse_bad(effective: &Effective) -> Result<()> {
    let fields = [("working directory", &effective.working_dir), ("user", &effective.user)];
    for (what, value) in fields {
        if value.len() >= PATH_MAX {
            return Err(Error::new(Kind::InvalidArgument, format!("invalid {what}: it is too long")));
        }
    }
    let all = effective.args.iter().map(|a| ("command", a)).chain(fields);
    for (what, value) in all {
        if value.contains('\0') {
            return Err(Error::new(Kind::InvalidArgument, format!("invalid {what}: contains a NUL byte")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(json: &str) -> ImageConfiguration {
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[]}},"config":{json}}}"#
        );
        serde_json::from_str(&text).expect("image")
    }

    fn run(config: &Config, image: &ImageConfiguration) -> Result<Resolved> {
        resolve(config, image, &"abcdef0123456789".parse().expect("id"), "host")
    }

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn entrypoint_and_command_merge_as_dockers_do() {
        let image = image(r#"{"Entrypoint":["/e"],"Cmd":["a","b"]}"#);
        type Words = &'static [&'static str];
        let cases: [(Option<Words>, Words, Words); 6] = [
            (None, &[], &["/e", "a", "b"]),
            (None, &["c"], &["/e", "c"]),
            (Some(&["/x"]), &[], &["/x"]),
            (Some(&["/x"]), &["c"], &["/x", "c"]),
            (Some(&[]), &["c"], &["c"]),
            (Some(&[""]), &["c"], &["c"]),
        ];
        for (entrypoint, command, expected) in cases {
            let config = Config {
                entrypoint: entrypoint.map(strings),
                command: strings(command),
                ..Config::default()
            };
            assert_eq!(run(&config, &image).expect("resolve").effective.args, strings(expected));
        }
        let config = Config { entrypoint: Some(Vec::new()), ..Config::default() };
        assert_eq!(run(&config, &image).expect_err("nothing").to_string(), "No command specified");
    }

    #[test]
    fn the_environment_is_default_then_image_then_user() {
        let image = image(r#"{"Cmd":["x"],"Env":["PATH=/bin","A=1","B=2","=bad","worse"]}"#);
        let config = Config { tty: true, env: strings(&["A=3", "B", "C=x=y"]), ..Config::default() };
        let resolved = run(&config, &image).expect("resolve");
        assert_eq!(
            resolved.effective.env,
            strings(&["PATH=/bin", "HOSTNAME=abcdef012345", "TERM=xterm", "A=3", "C=x=y"])
        );
        assert_eq!(resolved.warnings.len(), 2);
    }

    #[test]
    fn an_image_cannot_set_the_engines_labels_or_a_wrong_signal() {
        let image = image(
            r#"{"Cmd":["x"],"Labels":{"berth.restart":"always","a":"1","b":"1"},"StopSignal":"SIGNONE"}"#,
        );
        let config = Config { labels: [("b".to_owned(), "2".to_owned())].into(), ..Config::default() };
        let resolved = run(&config, &image).expect("resolve");
        let labels: Vec<_> = resolved.effective.labels.into_iter().collect();
        assert_eq!(labels, [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
        assert_eq!(resolved.effective.stop_signal, 15);
        assert_eq!(resolved.warnings.len(), 2);
    }

    #[test]
    fn an_environment_of_any_length_is_changed_at_once() {
        let all: Vec<String> = (0..100_000).map(|n| format!("A{n}=x")).collect();
        let mut env = all.clone();
        change(&mut env, &all);
        assert_eq!(env, all);
        let none: Vec<String> = (1..100_000).map(|n| format!("A{n}")).collect();
        change(&mut env, &none);
        assert_eq!(env, ["A0=x"]);
        change(&mut env, &strings(&["A0", "B=1", "A0=2", "B=3"]));
        assert_eq!(env, ["B=3", "A0=2"]);
    }

    #[test]
    fn what_is_ignored_of_an_image_is_told_in_bounds() {
        let many: Vec<String> = (0..100_000).map(|n| format!("A{n}{}", "x".repeat(20))).collect();
        let labels: BTreeMap<String, String> =
            (0..1000).map(|n| (format!("berth.{n}"), String::new())).collect();
        let json =
            serde_json::json!({"Cmd": ["x"], "Env": many, "Labels": labels, "StopSignal": "S".repeat(5000)});
        let warnings = run(&Config::default(), &image(&json.to_string())).expect("sound").warnings;
        assert_eq!(warnings.len(), 9, "{warnings:?}");
        assert!(warnings.iter().all(|warning| warning.len() < 200), "{warnings:?}");
        assert_eq!(warnings[3], "and 99997 more of that kind");
    }

    #[test]
    fn a_relative_working_directory_or_a_nul_byte_is_refused() {
        assert!(run(&Config::default(), &image(r#"{"Cmd":["x"],"WorkingDir":"app"}"#)).is_err());
        assert!(run(&Config::default(), &image(r#"{"Cmd":["x\u0000y"]}"#)).is_err());
        assert!(run(&Config::default(), &image(r#"{"Cmd":["x"],"User":"a\u0000b"}"#)).is_err());
    }

    #[test]
    fn the_hosts_network_comes_with_the_hosts_name() {
        let mut config = Config { command: strings(&["x"]), ..Config::default() };
        config.host.network = NetworkMode::Host;
        assert_eq!(run(&config, &image("{}")).expect("resolve").effective.hostname, "host");
        config.hostname = "own".to_owned();
        assert_eq!(run(&config, &image("{}")).expect("resolve").effective.hostname, "own");
    }
}

// SPDX-License-Identifier: Apache-2.0
//! The command line, as Go's flag package has it: one dash or two, a value in
//! the next argument or after `=`.

use std::{ffi::OsString, path::PathBuf};

use berth::{
    bootstrap,
    ids::{ContainerId, Namespace},
};

use super::{CGROUP_PARENT, Failure};
use crate::supervisor::Identity;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Serve,
    Files,
    Start,
    Delete,
    Info,
    Version,
    Help,
}

/// The command line.
#[derive(Debug)]
pub(super) struct Args {
    pub(super) verb: Verb,
    namespace: Option<Namespace>,
    id: Option<ContainerId>,
    pub(super) bundle: Option<PathBuf>,
    pub(super) cgroup_parent: String,
    /// Served for containerd on a socket of our own: no attach socket.
    pub(super) socket: Option<PathBuf>,
}

impl Args {
    /// Reads the command line, the program's name first.
    pub(super) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self, Failure> {
        let mut args = Self {
            verb: Verb::Help,
            namespace: None,
            id: None,
            bundle: None,
            cgroup_parent: CGROUP_PARENT.to_owned(),
            socket: None,
        };
        let mut verb = None;
        let mut rest = arguments.skip(1).map(text);
        while let Some(argument) = rest.next() {
            let argument = argument?;
            match argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) {
                None => args.take_verb(&mut verb, &argument)?,
                Some(flag) => {
                    let (name, value) = match flag.split_once('=') {
                        Some((name, value)) => (name, Some(value.to_owned())),
                        None => (flag, None),
                    };
                    args.take_flag(&mut verb, name, value, &mut rest)?;
                }
            }
        }
        args.verb = verb.unwrap_or(Verb::Help);
        Ok(args)
    }

    pub(super) fn namespace(&self) -> Result<&Namespace, Failure> {
        self.namespace.as_ref().ok_or_else(|| Failure("-namespace is missing".to_owned()))
    }

    pub(super) fn id(&self) -> Result<&ContainerId, Failure> {
        self.id.as_ref().ok_or_else(|| Failure("-id is missing".to_owned()))
    }

    /// Whose shim this is, with the bundle in `bundle`.
    pub(super) fn identity(&self, bundle: PathBuf) -> Result<Identity, Failure> {
        Ok(Identity {
            namespace: self.namespace()?.clone(),
            id: self.id()?.clone(),
            bundle,
            cgroup_parent: self.cgroup_parent.clone(),
        })
    }

    fn take_verb(&self, verb: &mut Option<Verb>, word: &str) -> Result<(), Failure> {
        let found = match word {
            bootstrap::SERVE => Verb::Serve,
            berth::files::FILES => Verb::Files,
            "start" => Verb::Start,
            "delete" => Verb::Delete,
            "info" => Verb::Info,
            _ => return Err(Failure(format!("unknown command {word:?}; see berth-shim --help"))),
        };
        // The flags for version and help win over what else is asked for.
        verb.get_or_insert(found);
        Ok(())
    }

    fn take_flag(
        &mut self,
        verb: &mut Option<Verb>,
        name: &str,
        value: Option<String>,
        rest: &mut impl Iterator<Item = Result<String, Failure>>,
    ) -> Result<(), Failure> {
        match name {
            "version" | "v" => *verb = Some(Verb::Version),
            "help" | "h" => *verb = Some(Verb::Help),
            "info" => *verb = Some(Verb::Info),
            "debug" => {}
            "namespace" | "id" | "bundle" | "cgroup-parent" | "socket" | "address" | "publish-binary" => {
                let value = match value {
                    Some(value) => value,
                    None => rest.next().ok_or_else(|| Failure(format!("-{name} needs a value")))??,
                };
                self.set(name, value)?;
            }
            _ => return Err(Failure(format!("unknown flag -{name}; see berth-shim --help"))),
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), Failure> {
        match name {
            "namespace" => self.namespace = Some(value.parse().map_err(|e| Failure::io("-namespace", e))?),
            "id" => self.id = Some(value.parse().map_err(|e| Failure::io("-id", e))?),
            "bundle" => self.bundle = Some(value.into()),
            "cgroup-parent" => self.cgroup_parent = value,
            "socket" => self.socket = Some(value.into()),
            // containerd's own sockets and program: events are not published yet.
            _ => {}
        }
        Ok(())
    }
}

fn text(argument: OsString) -> Result<String, Failure> {
    argument.into_string().map_err(|raw| Failure(format!("argument {raw:?} is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, Failure> {
        Args::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn as_the_engine_calls_it() {
        let args = parse("berth-shim serve --namespace default --id abc --cgroup-parent /x").expect("valid");
        assert_eq!(args.verb, Verb::Serve);
        assert_eq!(args.namespace().expect("given").as_str(), "default");
        assert_eq!(args.id().expect("given").as_str(), "abc");
        assert_eq!(args.cgroup_parent, "/x");
    }

    #[test]
    fn as_containerd_calls_it() {
        let args = parse(
            "shim -namespace k8s.io -address /run/containerd/containerd.sock -publish-binary /usr/bin/containerd \
             -id=pod-1 -bundle /b -debug delete",
        )
        .expect("valid");
        assert_eq!(args.verb, Verb::Delete);
        assert_eq!(args.bundle, Some("/b".into()));
        assert_eq!(args.id().expect("given").as_str(), "pod-1");
        assert_eq!(parse("shim -info").expect("valid").verb, Verb::Info);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, message) in [
            ("s frobnicate", "unknown command \"frobnicate\"; see berth-shim --help"),
            ("s -frob start", "unknown flag -frob; see berth-shim --help"),
            ("s start -id", "-id needs a value"),
            (
                "s -id ../x start",
                "-id: invalid container id (../x), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, at most 128",
            ),
        ] {
            assert_eq!(parse(line).expect_err(line).to_string(), message);
        }
        assert!(parse("s start").expect("valid").id().is_err());
    }
}

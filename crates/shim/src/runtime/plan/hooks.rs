// SPDX-License-Identifier: Apache-2.0
//! Hooks: programs that the specification wants run at moments of a
//! container's life, and what they are told of it (runtime-spec 1.3,
//! config.md "POSIX-platform Hooks", runtime.md "State"). Pure; carried out by
//! [`super::super::hooks`].

use std::{
    collections::HashMap,
    ffi::CString,
    fmt,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use oci_spec::runtime::Spec;
use serde::Serialize;

use super::super::error::{Error, Result};

/// A hook without a timeout is waited for as long as anybody waits.
const UNBOUNDED: Duration = Duration::from_secs(24 * 60 * 60);

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The container's namespaces and mounts are there, it has not entered its
    /// root; run by the runtime.
    Prestart,
    /// After those of `Prestart`, the same in everything else.
    CreateRuntime,
    /// After those of `CreateRuntime`, in the container's namespaces; the path
    /// is the host's.
    CreateContainer,
    /// After start was called, inside of the container, before its program.
    StartContainer,
    /// The program has been executed; run by the runtime.
    Poststart,
    /// The container is gone; run by the runtime.
    Poststop,
}

impl Moment {
    /// What `state` says of a container at this moment (runtime.md, "State").
    fn status(self) -> &'static str {
        match self {
            Self::CreateRuntime | Self::CreateContainer => "creating",
            // Prestart hooks once ran when start was called, and a hook that
            // looks still expects what the state was then.
            Self::Prestart | Self::StartContainer => "created",
            Self::Poststart => "running",
            Self::Poststop => "stopped",
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        })
    }
}

/// One program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Absolute.
    pub(crate) path: CString,
    /// With its name; never empty.
    pub(crate) args: Vec<CString>,
    /// All of its environment: nothing of the runtime's is added. Without one
    /// a hook in the container has the container's, as with runc; others none.
    pub(crate) env: Option<Vec<CString>>,
    /// It is killed after this time.
    pub(crate) timeout: Option<Duration>,
}

/// A container's state, as hooks get it on their standard input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The version of the specification that the bundle follows.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// `creating`, `created`, `running` or `stopped`.
    pub status: String,
    /// Its first process, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The bundle's directory, absolute.
    pub bundle: PathBuf,
    /// The specification's annotations.
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    pub annotations: HashMap<String, String>,
}

/// The hooks of a container, and what they are told.
#[derive(Debug, Clone)]
pub struct Hooks {
    lists: [(Moment, Vec<Hook>); 6],
    state: State,
}

impl Hooks {
    /// Those of a specification.
    ///
    /// # Errors
    /// `InvalidSpec` for a path that is not absolute, a timeout that is not
    /// positive, and texts that contain NUL.
    pub fn of(spec: &Spec, id: &str, bundle: &Path) -> Result<Self> {
        let hooks = spec.hooks().as_ref();
        let list = |moment, of: Getter| Ok::<_, Error>((moment, plan(moment, hooks.and_then(of))?));
        Ok(Self {
            lists: [
                list(Moment::Prestart, |hooks| hooks.prestart().as_ref())?,
                list(Moment::CreateRuntime, |hooks| hooks.create_runtime().as_ref())?,
                list(Moment::CreateContainer, |hooks| hooks.create_container().as_ref())?,
                list(Moment::StartContainer, |hooks| hooks.start_container().as_ref())?,
                list(Moment::Poststart, |hooks| hooks.poststart().as_ref())?,
                list(Moment::Poststop, |hooks| hooks.poststop().as_ref())?,
            ],
            state: State {
                oci_version: spec.version().clone(),
                id: id.to_owned(),
                status: String::new(),
                pid: None,
                bundle: bundle.to_owned(),
                annotations: spec.annotations().clone().unwrap_or_default(),
            },
        })
    }

    /// The hooks of a moment, in their order.
    pub(crate) fn at(&self, moment: Moment) -> &[Hook] {
        self.lists.iter().find(|(m, _)| *m == moment).map_or(&[], |(_, hooks)| hooks)
    }

    /// Whether a moment has none.
    #[must_use]
    pub fn is_empty(&self, moment: Moment) -> bool {
        self.at(moment).is_empty()
    }

    /// Whether the runtime has something to do while init waits.
    pub(crate) fn any_before_the_root(&self) -> bool {
        !self.is_empty(Moment::Prestart) || !self.is_empty(Moment::CreateRuntime)
    }

    /// Whether hooks may look for the container's root.
    pub(crate) fn any_in_creation(&self) -> bool {
        self.any_before_the_root() || !self.is_empty(Moment::CreateContainer)
    }

    /// Whether something runs in the container before its program.
    pub(crate) fn any_in_start(&self) -> bool {
        !self.is_empty(Moment::StartContainer)
    }

    /// How long the hooks of a moment may take.
    pub(crate) fn time(&self, moment: Moment) -> Duration {
        let times = self.at(moment).iter().map(|hook| hook.timeout.unwrap_or(UNBOUNDED));
        times.fold(Duration::ZERO, Duration::saturating_add)
    }

    /// The state at a moment, with the pid of the first process.
    pub(crate) fn state(&self, moment: Moment, pid: Option<u32>) -> State {
        State { status: moment.status().to_owned(), pid, ..self.state.clone() }
    }

    /// The bundle's directory.
    pub(crate) fn bundle(&self) -> &Path {
        &self.state.bundle
    }
}

/// Where a specification has the hooks of a moment.
type Getter = fn(&oci_spec::runtime::Hooks) -> Option<&Vec<oci_spec::runtime::Hook>>;

fn plan(moment: Moment, list: Option<&Vec<oci_spec::runtime::Hook>>) -> Result<Vec<Hook>> {
    list.into_iter().flatten().enumerate().map(|(index, entry)| hook(moment, index, entry)).collect()
}

fn hook(moment: Moment, index: usize, hook: &oci_spec::runtime::Hook) -> Result<Hook> {
    let wrong = |what: &str| Error::invalid(format!("hooks.{moment}[{index}].{what}"));
    if !hook.path().is_absolute() {
        return Err(wrong(&format!("path: {:?} is not absolute", hook.path())));
    }
    let timeout = match hook.timeout() {
        None => None,
        Some(seconds) => match u64::try_from(seconds) {
            Ok(1..) => Some(Duration::from_secs(seconds.unsigned_abs())),
            _ => return Err(wrong(&format!("timeout: {seconds} is not greater than zero"))),
        },
    };
    let text = |text: &[u8], field: &str| {
        CString::new(text).map_err(|_| wrong(&format!("{field}: \"{}\" contains NUL", text.escape_ascii())))
    };
    let texts = |list: &Option<Vec<String>>, field| {
        list.iter().flatten().map(|entry| text(entry.as_bytes(), field)).collect::<Result<Vec<_>>>()
    };
    let path = text(hook.path().as_os_str().as_bytes(), "path")?;
    let args = texts(hook.args(), "args")?;
    let args = if args.is_empty() { vec![path.clone()] } else { args };
    let env = hook.env().is_some().then(|| texts(hook.env(), "env")).transpose()?;
    Ok(Hook { path, args, env, timeout })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(hooks: serde_json::Value) -> Result<Hooks> {
        let mut spec = Spec::default();
        spec.set_hooks(Some(serde_json::from_value(hooks).expect("hooks")));
        spec.set_annotations(Some(HashMap::from([("a".to_owned(), "b".to_owned())])));
        Hooks::of(&spec, "c1", Path::new("/bundle"))
    }

    #[test]
    fn a_hook_has_what_was_given_and_no_more() {
        let hooks =
            of(json!({"poststop": [{"path": "/bin/a"}, {"path": "/b", "args": ["x", "y"], "timeout": 5}]}))
                .expect("hooks");
        let [first, second] = hooks.at(Moment::Poststop) else { panic!("two hooks") };
        assert_eq!((first.args.as_slice(), &first.env), (&[c"/bin/a".to_owned()][..], &None));
        assert_eq!(first.timeout, None);
        assert_eq!(second.args, [c"x".to_owned(), c"y".to_owned()]);
        assert_eq!(second.timeout, Some(Duration::from_secs(5)));
        assert!(hooks.at(Moment::Prestart).is_empty() && !hooks.any_before_the_root());
        assert!(hooks.time(Moment::Poststop) > UNBOUNDED);
    }

    #[test]
    fn what_the_specification_forbids_is_refused_by_name() {
        for (hook, expected) in [
            (json!({"path": "a"}), r#"hooks.createRuntime[0].path: "a" is not absolute"#),
            (
                json!({"path": "/a", "timeout": 0}),
                "hooks.createRuntime[0].timeout: 0 is not greater than zero",
            ),
            (
                json!({"path": "/a", "timeout": -1}),
                "hooks.createRuntime[0].timeout: -1 is not greater than zero",
            ),
            (json!({"path": "/a", "env": ["a\0"]}), r#"hooks.createRuntime[0].env: "a\x00" contains NUL"#),
        ] {
            let e = of(json!({"createRuntime": [hook]})).expect_err(expected);
            assert_eq!(e.to_string(), expected);
        }
    }

    #[test]
    fn the_state_is_that_of_the_moment() {
        let hooks = of(json!({})).expect("hooks");
        let state =
            |moment, pid| serde_json::to_value(hooks.state(moment, pid)).expect("a state is plain values");
        assert_eq!(
            state(Moment::CreateContainer, Some(1)),
            json!({
                "ociVersion": Spec::default().version(), "id": "c1", "status": "creating", "pid": 1,
                "bundle": "/bundle", "annotations": {"a": "b"},
            })
        );
        assert_eq!(state(Moment::Prestart, Some(1))["status"], "created");
        assert_eq!(state(Moment::StartContainer, Some(1))["status"], "created");
        assert_eq!(state(Moment::Poststart, Some(1))["status"], "running");
        let stopped = state(Moment::Poststop, None);
        assert_eq!((&stopped["status"], stopped.get("pid")), (&json!("stopped"), None));
    }
}

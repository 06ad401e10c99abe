// SPDX-License-Identifier: Apache-2.0
//! A user's seccomp profile: Docker's format, whose rules can depend on the
//! CPU, the capabilities and the kernel, made into the OCI one, which can't.
//! An OCI profile is a Docker profile that uses none of that.

use std::path::PathBuf;

use oci_spec::runtime::{
    Arch, Capability, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSyscall,
};
use serde::Deserialize;

use super::super::spec::capabilities;
use crate::error::{Error, Kind, Result};

/// A kernel's major and minor version.
pub type KernelVersion = (u32, u32);

/// This CPU in Go's words, which profiles have theirs from.
const CPU: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// This CPU as a key of `archMap`.
const ARCH: Arch = if cfg!(target_arch = "aarch64") { Arch::ScmpArchAarch64 } else { Arch::ScmpArchX86_64 };

/// What a file of `--security-opt seccomp=FILE` says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    default_action: Action,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Option<Vec<Arch>>,
    #[serde(default)]
    arch_map: Option<Vec<ArchMap>>,
    #[serde(default)]
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    listener_path: Option<PathBuf>,
    listener_metadata: Option<String>,
    #[serde(default)]
    syscalls: Option<Vec<Rule>>,
}

/// What else a process on this CPU can call.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: Arch,
    #[serde(default)]
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    /// The older form: one.
    #[serde(default)]
    name: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: Action,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<LinuxSeccompArg>>,
    #[serde(default)]
    includes: Option<Filter>,
    #[serde(default)]
    excludes: Option<Filter>,
}

/// When a rule is one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// Reads a profile, in JSON.
///
/// # Errors
/// `InvalidArgument`, in Docker's words, for what isn't one.
pub fn decode(text: &str) -> Result<Profile> {
    let failed = |e: &dyn std::fmt::Display| {
        Error::new(Kind::InvalidArgument, format!("Decoding seccomp profile failed: {e}"))
    };
    let profile: Profile = serde_json::from_str(text).map_err(|e| failed(&e))?;
    profile.check().map_err(|e| failed(&e))?;
    Ok(profile)
}

impl Profile {
    fn check(&self) -> std::result::Result<(), String> {
        if has(self.architectures.as_deref()) && has(self.arch_map.as_deref()) {
            return Err("both 'archMap' and 'architectures' are specified, use either of them".to_owned());
        }
        self.syscalls.iter().flatten().try_for_each(Rule::check)
    }

    /// The profile for a container with these capabilities on this kernel.
    #[must_use]
    pub fn resolve(&self, capabilities: &[Capability], kernel: KernelVersion) -> LinuxSeccomp {
        let rules = self.syscalls.iter().flatten().filter(|rule| rule.applies(capabilities, kernel));
        let mut profile = LinuxSeccomp::default();
        profile
            .set_default_action(self.default_action)
            .set_default_errno_ret(self.default_errno_ret)
            .set_architectures(self.architectures())
            .set_flags(self.flags.clone())
            .set_listener_path(self.listener_path.clone())
            .set_listener_metadata(self.listener_metadata.clone())
            .set_syscalls(Some(rules.map(Rule::oci).collect()));
        profile
    }

    fn architectures(&self) -> Option<Vec<Arch>> {
        if has(self.architectures.as_deref()) {
            return self.architectures.clone();
        }
        let ours = self.arch_map.iter().flatten().find(|map| map.architecture == ARCH)?;
        Some(std::iter::once(ARCH).chain(ours.sub_architectures.iter().flatten().copied()).collect())
    }
}

impl Rule {
    fn check(&self) -> std::result::Result<(), String> {
        if !self.name.is_empty() && has(self.names.as_deref()) {
            return Err("both 'name' and 'names' are specified, use either of them".to_owned());
        }
        if self.name.is_empty() && !has(self.names.as_deref()) {
            return Err("a rule of 'syscalls' has no names".to_owned());
        }
        for filter in [&self.includes, &self.excludes].into_iter().flatten() {
            filter.check()?;
        }
        Ok(())
    }

    fn applies(&self, capabilities: &[Capability], kernel: KernelVersion) -> bool {
        self.includes.as_ref().is_none_or(|filter| filter.all(capabilities, kernel))
            && !self.excludes.as_ref().is_some_and(|filter| filter.any(capabilities, kernel))
    }

    fn oci(&self) -> LinuxSyscall {
        let names = self.names.clone().filter(|names| !names.is_empty());
        let mut rule = LinuxSyscall::default();
        rule.set_names(names.unwrap_or_else(|| vec![self.name.clone()]))
            .set_action(self.action)
            .set_errno_ret(self.errno_ret)
            .set_args(self.args.clone().filter(|args| !args.is_empty()));
        rule
    }
}

impl Filter {
    fn check(&self) -> std::result::Result<(), String> {
        match &self.min_kernel {
            Some(version) if !version.is_empty() && kernel_version(version).is_none() => {
                Err(format!("invalid kernel version: {version:?}, expected '<kernel>.<major>'"))
            }
            _ => Ok(()),
        }
    }

    /// Every capability that is named, one of the CPUs, and the kernel.
    fn all(&self, capabilities: &[Capability], kernel: KernelVersion) -> bool {
        self.caps.iter().flatten().all(|name| has_capability(capabilities, name))
            && (!has(self.arches.as_deref()) || self.names_cpu())
            && self.min_kernel().is_none_or(|least| kernel >= least)
    }

    /// One of the capabilities that are named, or CPUs, or the kernel.
    fn any(&self, capabilities: &[Capability], kernel: KernelVersion) -> bool {
        self.caps.iter().flatten().any(|name| has_capability(capabilities, name))
            || self.names_cpu()
            || self.min_kernel().is_some_and(|least| kernel >= least)
    }

    fn names_cpu(&self) -> bool {
        self.arches.iter().flatten().any(|arch| arch == CPU)
    }

    fn min_kernel(&self) -> Option<KernelVersion> {
        self.min_kernel.as_deref().and_then(kernel_version)
    }
}

/// The version at the beginning of a release: `6.18` of `6.18.5-generic`.
#[must_use]
pub fn kernel_version(release: &str) -> Option<KernelVersion> {
    let (major, rest) = release.split_once('.')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    Some((major.parse().ok()?, rest[..digits].parse().ok()?))
}

fn has<T>(list: Option<&[T]>) -> bool {
    list.is_some_and(|list| !list.is_empty())
}

/// A name that no kernel has is nobody's capability.
fn has_capability(capabilities: &[Capability], name: &str) -> bool {
    capabilities::by_name(name).is_some_and(|wanted| capabilities.contains(&wanted))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(text: &str, capabilities: &[Capability], kernel: KernelVersion) -> Vec<String> {
        let profile = decode(text).expect("a profile").resolve(capabilities, kernel);
        profile.syscalls().iter().flatten().flat_map(|rule| rule.names().clone()).collect()
    }

    const CONDITIONAL: &str = r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"name": "a", "action": "SCMP_ACT_ALLOW", "comment": "nobody reads it", "args": null},
        {"names": ["b"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]}},
        {"names": ["c"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]}},
        {"names": ["d"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "arm64"]}},
        {"names": ["e"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390x"]}},
        {"names": ["f"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["amd64", "arm64"]}},
        {"names": ["g"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"names": ["h"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "4.8"}},
        {"names": ["i"], "action": "SCMP_ACT_ALLOW", "includes": {}, "excludes": {}}
    ]}"#;

    #[test]
    fn a_rule_depends_on_capabilities_cpu_and_kernel() {
        use Capability::{Bpf, SysAdmin};
        assert_eq!(names(CONDITIONAL, &[], (4, 7)), ["a", "c", "d", "h", "i"]);
        assert_eq!(names(CONDITIONAL, &[SysAdmin], (4, 8)), ["a", "d", "g", "i"]);
        assert_eq!(names(CONDITIONAL, &[SysAdmin, Bpf], (6, 1)), ["a", "b", "d", "g", "i"]);
    }

    #[test]
    fn the_map_of_architectures_is_asked_for_this_cpu() {
        let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "archMap": [
            {"architecture": "SCMP_ARCH_S390X", "subArchitectures": ["SCMP_ARCH_S390"]},
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]}]}"#;
        let profile = decode(text).expect("a profile").resolve(&[], (6, 1));
        let expected = match ARCH {
            Arch::ScmpArchX86_64 => vec![ARCH, Arch::ScmpArchX86, Arch::ScmpArchX32],
            _ => vec![ARCH, Arch::ScmpArchArm],
        };
        assert_eq!(profile.architectures(), &Some(expected));
    }

    /// The default profile as the shim reads it is one for a user, too.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn an_oci_profile_stays_as_it_is() {
        let text = include_str!("../../../../../tests/golden/seccomp-default.json");
        let expected: LinuxSeccomp = serde_json::from_str(text).expect("a profile");
        assert_eq!(decode(text).expect("a profile").resolve(&[], (6, 1)), expected);
    }

    #[test]
    fn what_is_no_profile_is_an_error_in_dockers_words() {
        for (text, why) in [
            ("", "EOF while parsing a value"),
            ("/etc/profile.json", "expected value"),
            ("{}", "missing field `defaultAction`"),
            (r#"{"defaultAction": "ALLOW"}"#, "unknown variant `ALLOW`"),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"],
                    "archMap": [{"architecture": "SCMP_ARCH_X86_64"}]}"#,
                "both 'archMap' and 'architectures'",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW",
                    "syscalls": [{"name": "a", "names": ["b"], "action": "SCMP_ACT_ERRNO"}]}"#,
                "both 'name' and 'names'",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "SCMP_ACT_ERRNO"}]}"#,
                "no names",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                    {"name": "a", "action": "SCMP_ACT_ERRNO", "includes": {"minKernel": "new"}}]}"#,
                "invalid kernel version: \"new\"",
            ),
        ] {
            let error = decode(text).expect_err(why).to_string();
            assert!(error.starts_with("Decoding seccomp profile failed: ") && error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_release_begins_with_its_version() {
        assert_eq!(kernel_version("6.18.5-generic"), Some((6, 18)));
        assert_eq!(kernel_version("4.8"), Some((4, 8)));
        assert_eq!(kernel_version("5.10+"), Some((5, 10)));
        assert_eq!(kernel_version("6"), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,60}") {
            let _ = decode(&text);
            let _ = kernel_version(&text);
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Compiled seccomp profiles: each is compiled once, however many containers
//! have it (docs/adr/0014). Called by a start.

use std::sync::{Arc, Mutex};

use oci_spec::runtime::LinuxSeccomp;

use crate::error::{Error, Kind, Result};

/// Most profiles that are remembered: the built-in one has a form for each set
/// of capabilities, and users have few of their own.
const REMEMBERED: usize = 16;

/// The programs of the profiles used last, the latest first. Compared whole:
/// no digest decides what a container may do.
#[derive(Debug, Default)]
pub(super) struct Filters(Mutex<Vec<(LinuxSeccomp, Arc<[u8]>)>>);

impl Filters {
    /// `profile` as the kernel takes it; empty for none.
    ///
    /// # Errors
    /// `InvalidArgument` for what can't be compiled.
    pub(super) fn compiled(&self, profile: Option<&LinuxSeccomp>) -> Result<Arc<[u8]>> {
        let Some(profile) = profile else { return Ok(Arc::new([])) };
        if let Some(program) = self.remembered(profile) {
            return Ok(program);
        }
        // Without the lock: a second start may compile it, too.
        let program = berth_seccomp::compile(profile)
            .map_err(|e| Error::new(Kind::InvalidArgument, format!("linux.seccomp: {e}")))?;
        let program: Arc<[u8]> = program.bytes().into();
        let mut all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        all.insert(0, (profile.clone(), Arc::clone(&program)));
        all.truncate(REMEMBERED);
        Ok(program)
    }

    fn remembered(&self, profile: &LinuxSeccomp) -> Option<Arc<[u8]>> {
        let mut all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let at = all.iter().position(|(known, _)| known == profile)?;
        all[..=at].rotate_right(1);
        Some(Arc::clone(&all[0].1))
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{LinuxSeccompAction as Action, LinuxSyscall};

    use super::*;

    fn refusing(names: &[String]) -> LinuxSeccomp {
        let mut rule = LinuxSyscall::default();
        rule.set_names(names.to_vec()).set_action(Action::ScmpActErrno);
        let mut profile = LinuxSeccomp::default();
        profile.set_default_action(Action::ScmpActAllow).set_syscalls(Some(vec![rule]));
        profile
    }

    #[test]
    fn a_profile_is_compiled_once() {
        let filters = Filters::default();
        let (read, write) = (refusing(&["read".to_owned()]), refusing(&["write".to_owned()]));
        let first = filters.compiled(Some(&read)).expect("compiles");
        let other = filters.compiled(Some(&write)).expect("compiles");
        assert_ne!(first, other);
        assert!(Arc::ptr_eq(&first, &filters.compiled(Some(&read)).expect("remembered")));
        assert_eq!(*first, berth_seccomp::compile(&read).expect("compiles").bytes());
        assert!(filters.compiled(None).expect("none").is_empty());
    }

    #[test]
    fn what_is_not_used_is_forgotten() {
        let filters = Filters::default();
        let read = refusing(&["read".to_owned()]);
        let first = filters.compiled(Some(&read)).expect("compiles");
        for n in 0..REMEMBERED {
            filters.compiled(Some(&refusing(&[format!("none{n}")]))).expect("compiles");
            assert!(filters.0.lock().expect("lock").len() <= REMEMBERED);
        }
        assert!(!Arc::ptr_eq(&first, &filters.compiled(Some(&read)).expect("compiles")));
    }

    #[test]
    fn what_cannot_be_compiled_is_named() {
        let mut profile = refusing(&[]);
        profile.set_default_action(Action::ScmpActNotify);
        let error = Filters::default().compiled(Some(&profile)).expect_err("notify").to_string();
        assert!(error.starts_with("linux.seccomp: ") && error.contains("SCMP_ACT_NOTIFY"), "{error}");
    }
}

// SPDX-License-Identifier: Apache-2.0
//! The driver `systemd`: a container's cgroup is a transient unit's.

mod scope;

pub(crate) use scope::{Manager, Scope};

use crate::runtime::Result;

impl Scope {
    /// As [`Scope::new`], asking a user's manager where it is.
    pub(super) fn parse(cgroups_path: &str, name: &str, user: bool) -> Result<Self> {
        if user {
            return Err(crate::runtime::Error::unsupported("the systemd driver for an unprivileged user"));
        }
        Self::new(cgroups_path, name, Manager::System)
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Limits of a container that runs. Called by the supervisor, and by whoever
//! has found the cgroups of another process's container.

use oci_spec::runtime::LinuxResources;

use super::{error::Result, plan};
use crate::cgroup::{Group, devices::Policy};

/// Changes limits; what isn't set stays. Returns warnings.
///
/// # Errors
/// `InvalidSpec` and `Unsupported` name the field. Limits before it may be in
/// force.
pub fn update(group: &mut Group, resources: &LinuxResources) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    let limits = plan::resources(Some(resources))?;
    let rules = resources.devices().as_deref().unwrap_or_default();
    // No rule changes no rule: it does not mean that there are none.
    let devices = (!rules.is_empty()).then(|| Policy::from_spec(rules)).transpose()?;
    group.update(&limits, devices.as_ref(), &mut warnings)?;
    Ok(warnings)
}

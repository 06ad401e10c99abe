// SPDX-License-Identifier: Apache-2.0
//! Kernel parameters of the container's namespaces, written through the
//! host's procfs: what the container mounts at /proc has no part in it (D5).

use std::path::{Path, PathBuf};

use crate::{
    kernel::Procfs,
    runtime::{During as _, Result},
};

pub(super) fn write(proc: &Procfs, sysctls: &[(PathBuf, String)]) -> Result<()> {
    for (path, value) in sysctls {
        proc.write(Path::new("sys").join(path), value.as_bytes())
            .during(|| format!("set {}", path.display()))?;
    }
    Ok(())
}

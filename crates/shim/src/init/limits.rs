// SPDX-License-Identifier: Apache-2.0
//! Resource limits of the process.

use nix::{
    errno::Errno,
    sys::resource::{getrlimit, setrlimit},
};

use crate::{
    kernel::sys,
    runtime::{Error, Kind, Result, Rlimit},
};

/// Sets the limits. The specification wants them as they are or not at all.
pub(super) fn set(limits: &[Rlimit]) -> Result<()> {
    for limit in limits {
        let Rlimit { resource, soft, hard } = *limit;
        match setrlimit(resource, soft, hard) {
            Err(Errno::EPERM) => {
                let (_, most) = sys(getrlimit(resource), || format!("getrlimit({resource:?})"))?;
                let why = format!(
                    "process.rlimits: {resource:?}: {hard} is above the host's hard limit of {most}, \
                     which only CAP_SYS_RESOURCE may raise"
                );
                return Err(Error::new(Kind::Os, why));
            }
            result => sys(result, || format!("setrlimit({resource:?}, {soft}, {hard})"))?,
        }
    }
    Ok(())
}
